package identity

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/tenants/identity/internal/identitydb"
)

const (
	// codesMade is how many recovery codes a person gets at once.
	codesMade = 10
	// codeAlphabet is Crockford's base 32, lower case: no i, l, o or u. Sixteen of its characters are 80 bits.
	codeAlphabet = "0123456789abcdefghjkmnpqrstvwxyz"
	codeLen      = 16

	purposeCodes = "recovery_codes.replace"
)

// RecoveryCodes says how many codes a person has left. It can't say which.
type RecoveryCodes struct {
	Unused    int
	Total     int
	CreatedAt time.Time
}

// Codes tells a person how many recovery codes are left.
func (s *StepUp) Codes(ctx context.Context, user id.User) (out RecoveryCodes, err error) {
	err = s.as(ctx, user, "", func(q *identitydb.Queries) error {
		out, err = countCodes(ctx, q, user)
		return err
	})
	return out, err
}

func countCodes(ctx context.Context, q *identitydb.Queries, user id.User) (RecoveryCodes, error) {
	row, err := q.CountRecoveryCodes(ctx, string(user))
	if errors.Is(err, pgx.ErrNoRows) {
		return RecoveryCodes{}, nil
	}
	if err != nil {
		return RecoveryCodes{}, fmt.Errorf("count recovery codes: %w", err)
	}
	return RecoveryCodes{Unused: int(row.Unused), Total: int(row.Total), CreatedAt: row.CreatedAt}, nil
}

// AskCodes is what is confirmed before recovery codes are made anew.
func (s *StepUp) AskCodes(user id.User) Ask {
	return Ask{User: user, Purpose: purposeCodes, Recovery: true}
}

// ReplaceCodes makes ten new recovery codes and voids all older ones. They are shown once: what is kept of them opens nothing.
func (s *StepUp) ReplaceCodes(ctx context.Context, user id.User, in Response) (codes []string, err error) {
	now := s.deps.Clock.Now()
	err = s.finishAnd(ctx, s.AskCodes(user), in, func(q *identitydb.Queries, _ Proof) error {
		codes, err = s.replaceCodes(ctx, q, user, now)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.deps.Logger.InfoContext(ctx, "recovery codes made anew", "user", user)
	return codes, nil
}

// OperatorForget revokes all of a person's passkeys and voids the recovery codes, so that the password confirms again: for who lost both. It
// is the operator's act, at the instance's own shell, and returns how many passkeys there were.
func (s *StepUp) OperatorForget(ctx context.Context, user id.User) (n int, err error) {
	now := s.deps.Clock.Now()
	err = s.as(ctx, user, "", func(q *identitydb.Queries) error {
		keys, err := listPasskeys(ctx, q, user, "")
		if err != nil {
			return err
		}
		for _, k := range keys {
			if _, err := q.RevokePasskey(ctx, identitydb.RevokePasskeyParams{ID: string(k.ID), UserID: string(user), Now: now}); err != nil {
				return fmt.Errorf("revoke a passkey: %w", err)
			}
		}
		n = len(keys)
		if err := q.DeleteRecoveryCodes(ctx, string(user)); err != nil {
			return fmt.Errorf("void recovery codes: %w", err)
		}
		return nil
	})
	if err == nil {
		s.deps.Logger.WarnContext(ctx, "the operator revoked a person's passkeys", "user", user, "passkeys", n)
	}
	return n, err
}

func (s *StepUp) replaceCodes(ctx context.Context, q *identitydb.Queries, user id.User, now time.Time) ([]string, error) {
	if err := q.DeleteRecoveryCodes(ctx, string(user)); err != nil {
		return nil, fmt.Errorf("void recovery codes: %w", err)
	}
	codes := make([]string, codesMade)
	for i := range codes {
		codes[i] = newCode()
		if err := q.InsertRecoveryCode(ctx, identitydb.InsertRecoveryCodeParams{UserID: string(user), Digest: s.codeDigest(user, codes[i]), CreatedAt: now}); err != nil {
			return nil, fmt.Errorf("keep a recovery code's digest: %w", err)
		}
	}
	return codes, nil
}

// newCode is 80 random bits, as "k3vp-90ax-w2rt-m7qd".
func newCode() string {
	raw := make([]byte, codeLen)
	_, _ = rand.Read(raw) // never an error: it ends the program when the system has no randomness
	var b strings.Builder
	for i, c := range raw {
		if i > 0 && i%4 == 0 {
			b.WriteByte('-')
		}
		b.WriteByte(codeAlphabet[c&31])
	}
	return b.String()
}

// codeDigest is keyed and bound to the person, so that the table alone opens nothing.
func (s *StepUp) codeDigest(user id.User, code string) []byte {
	mac := hmac.New(sha256.New, s.codeKey)
	mac.Write([]byte(string(user) + "\x00" + cleanCode(code)))
	return mac.Sum(nil)
}

// cleanCode takes what people type: any case, spaces, and the letters that the alphabet leaves out for the digits that they look like.
func cleanCode(code string) string {
	return strings.Map(func(r rune) rune {
		switch r {
		case 'o', 'O':
			return '0'
		case 'i', 'I', 'l', 'L':
			return '1'
		}
		if r >= 'A' && r <= 'Z' {
			r += 'a' - 'A'
		}
		if r < 128 && strings.ContainsRune(codeAlphabet, r) {
			return r
		}
		return -1
	}, code)
}

// useCode uses one recovery code up, in the transaction of what it confirms. The last one makes new codes and does nothing else, so that
// nobody ends with a passkey that is lost and no code.
func (s *StepUp) useCode(ctx context.Context, q *identitydb.Queries, ask Ask, code string, now time.Time) error {
	if !ask.Recovery {
		return errNoRecovery
	}
	if len(code) > 100 || len(cleanCode(code)) != codeLen {
		return errWrongCode
	}
	n, err := q.UseRecoveryCode(ctx, identitydb.UseRecoveryCodeParams{UserID: string(ask.User), Digest: s.codeDigest(ask.User, code), Now: now})
	if err != nil {
		return fmt.Errorf("use a recovery code: %w", err)
	}
	if n == 0 {
		return errWrongCode
	}
	left, err := countCodes(ctx, q, ask.User)
	if err != nil {
		return err
	}
	if left.Unused == 0 && ask.Purpose != purposeCodes {
		return errLastCode
	}
	return nil
}
