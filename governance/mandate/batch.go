package mandate

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"

	"ambit.dev/ambit/internal/id"
)

// BatchType is the typ of the instance's statement about a batch of receipts.
const BatchType = "mandate-receipts+jwt"

// Kinds of line.
const (
	Spend   = "spend"
	Refusal = "denial"
)

// Line is the receipt of one effect that was spent, or of one that was refused. Amounts are integer nano-dollars.
type Line struct {
	Type string `json:"type"`
	// ID is the ledger's entry of a spend, and the journal's event of a refusal.
	ID      string       `json:"id"`
	Path    []id.Mandate `json:"path"`
	Agent   id.Agent     `json:"agent_id"`
	Session id.Session   `json:"session_id"`
	Step    id.Step      `json:"step_id,omitempty"`
	Kind    string       `json:"kind"`
	Name    string       `json:"name"`
	Payee   string       `json:"payee"`
	// Held is what was held for it at most, Amount what was captured.
	Held   int64 `json:"held_nanos"`
	Amount int64 `json:"amount_nanos"`
	// Rule and Reason say why it was refused.
	Rule   string `json:"rule,omitempty"`
	Reason string `json:"reason,omitempty"`
	// At is when it was captured or refused, HeldAt when its money was held: in the period of that time it counts.
	At     time.Time `json:"at"`
	HeldAt time.Time `json:"held_at"`
}

// BatchStatement is what the instance signs of a batch.
type BatchStatement struct {
	ID           id.MandateBatch `json:"id"`
	Organization id.Org          `json:"organization"`
	// Root is the mandate that all lines descend from; Number counts its batches from 1, so that a missing one is missed.
	Root   id.Mandate `json:"root_mandate"`
	Number int64      `json:"number"`
	Size   int        `json:"size"`
	Hash   string     `json:"merkle_root"`
	Zone   string     `json:"time_zone"`
	At     time.Time  `json:"at"`
}

// Tree is a Merkle tree of RFC 6962 over lines.
type Tree struct{ levels [][][]byte }

// NewTree makes a tree.
func NewTree(lines [][]byte) Tree {
	h := rfc6962.DefaultHasher
	level := make([][]byte, len(lines))
	for i, l := range lines {
		level[i] = h.HashLeaf(l)
	}
	t := Tree{levels: [][][]byte{level}}
	for len(level) > 1 {
		next := make([][]byte, 0, (len(level)+1)/2)
		for i := 0; i+1 < len(level); i += 2 {
			next = append(next, h.HashChildren(level[i], level[i+1]))
		}
		if len(level)%2 == 1 {
			next = append(next, level[len(level)-1])
		}
		t.levels = append(t.levels, next)
		level = next
	}
	return t
}

// Root is the tree's hash.
func (t Tree) Root() []byte {
	top := t.levels[len(t.levels)-1]
	if len(top) == 0 {
		return rfc6962.DefaultHasher.EmptyRoot()
	}
	return top[0]
}

// Inclusion proves that the line at a place is in the tree.
func (t Tree) Inclusion(place int) [][]byte {
	out := [][]byte{}
	for _, level := range t.levels {
		if beside := place ^ 1; beside < len(level) {
			out = append(out, level[beside])
		}
		place /= 2
	}
	return out
}

// Included checks that a line stands at a place of a batch.
func Included(line []byte, place, size int, root []byte, path [][]byte) error {
	if place < 0 || size <= place {
		return errors.New("there is no such place in the batch")
	}
	return proof.VerifyInclusion(rfc6962.DefaultHasher, uint64(place), uint64(size), rfc6962.DefaultHasher.HashLeaf(line), path, root) //nolint:gosec // not negative
}

// FileType is what a mandate's file says of itself.
const FileType = "ambit.mandate/1"

// File is a mandate with what was spent under it, for anybody to check with the public keys alone.
type File struct {
	Type string `json:"type"`
	// Issuer is where the public keys are published.
	Issuer string `json:"issuer"`
	// Chain is the mandate with all above it, from the root on.
	Chain string `json:"chain"`
	// Below are the chains of all that narrow it, each from the root on.
	Below []string `json:"below"`
	// Batches hold the receipts of what was spent under it.
	Batches []BatchOfReceipts `json:"batches"`
	// Closed are the chains of what was paid.
	Closed []string `json:"closed"`
	// Revoked says when it was revoked, as far as the instance says; nothing of it is signed.
	Revoked *time.Time `json:"revoked_at,omitempty"`
}

// BatchOfReceipts is a batch, as far as it is this mandate's.
type BatchOfReceipts struct {
	Statement string           `json:"statement"`
	Lines     []ReceiptInBatch `json:"lines"`
}

// ReceiptInBatch is a receipt with the proof that it is in its batch.
type ReceiptInBatch struct {
	Line  json.RawMessage `json:"line"`
	Place int             `json:"place"`
	Path  [][]byte        `json:"path"`
}
