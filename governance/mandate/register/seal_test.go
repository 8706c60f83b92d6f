package register_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/billing/prices"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/governance/mandate"
	"ambit.dev/ambit/governance/mandate/register"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/tenants/identity"
)

func answering(tokens int64) gate.Proposal {
	step := id.New[id.Step]()
	return gate.Proposal{
		Step: step, Kind: gate.ModelCall, Name: "test/model", Digest: gate.Digest{1}, EffectKey: string(step), Within: time.Minute,
		Quantity: []gate.Priced{{Kind: prices.Model, Ref: "test/model", Quantities: prices.Quantities{prices.OutputToken: tokens}}},
	}
}

// spend admits an effect and settles it with so many tokens of 1,000 nano-dollars.
func (w *world) spend(lease journal.Lease, tokens int64) {
	w.Helper()
	p := answering(tokens)
	d, err := w.propose(lease, p)
	require.NoError(w, err)
	require.Equal(w, journal.Admitted, d.Outcome, "%v", d.Reasons)
	require.NoError(w, w.settle(lease, d, p.Step, gate.Used{At: w.clock.Now(), Quantity: p.Quantity}))
}

func (w *world) keySet() (set jose.JSONWebKeySet) {
	w.Helper()
	raw, err := w.instance.JWKS()
	require.NoError(w, err)
	require.NoError(w, json.Unmarshal(raw, &set))
	w.in(func(ctx context.Context, tx pgx.Tx) error {
		key, err := w.keys.AgentKey(ctx, tx, w.org, identity.OfOrganization(w.org))
		set.Keys = append(set.Keys, key.JWK)
		return err
	})
	return set
}

func (w *world) export(of id.Mandate) []byte {
	w.Helper()
	var f mandate.File
	w.in(func(ctx context.Context, tx pgx.Tx) (err error) {
		f, err = w.mandates.Export(ctx, tx, w.org, of, "https://ambit.example")
		return err
	})
	raw, err := json.Marshal(f)
	require.NoError(w, err)
	return raw
}

func TestAFileProvesWhatWasSpentWithThePublicKeysAlone(t *testing.T) {
	w := newWorld(t)
	g := grant(money.Dollar, 2)
	g.PerAction = amount(50 * money.Cent)
	root := w.signed(g)
	child, err := w.narrow(root, w.newAgent(), mandate.Grant{Total: amount(20 * money.Cent), Depth: -1})
	require.NoError(t, err)
	above, below := w.session(root), w.session(child)
	w.spend(above, 123_456) // $0.123456
	w.spend(above, 400_001) // $0.400001
	w.spend(below, 100_000) // $0.10
	d, err := w.propose(below, answering(150_000))
	require.NoError(t, err)
	require.Equal(t, journal.Denied, d.Outcome)

	keys, raw := w.keySet(), w.export(root.ID)
	c, err := mandate.VerifyFile(raw, keys, time.Now(), nil)
	require.NoError(t, err)
	require.Len(t, c.Spends, 3)
	require.Len(t, c.Refusals, 1)
	require.Equal(t, string(child.ID), c.Refusals[0].Rule)
	require.Equal(t, money.Nanos(623_457_000), c.Spent)
	require.Equal(t, c.Spent, w.spent(root).Total.Spent, "the receipts are what the ledger captured")
	require.Len(t, c.Below, 1)
	// One payee was paid under two mandates: each is rounded up once, in whole cents, and the larger in parts of what one payment may be.
	require.Equal(t, int64(53+10), c.PaidCents)
	require.Len(t, c.Paid, 3)

	// A second export adds what came since, and rounds nothing up twice.
	w.spend(above, 1_000) // $0.001: the carried part of a cent pays for it
	c, err = mandate.VerifyFile(w.export(root.ID), keys, time.Now(), nil)
	require.NoError(t, err)
	require.Equal(t, 2, c.Batches)
	require.Equal(t, int64(53+10), c.PaidCents)
	w.spend(above, 6_000)
	c, err = mandate.VerifyFile(w.export(root.ID), keys, time.Now(), nil)
	require.NoError(t, err)
	require.Equal(t, int64(54+10), c.PaidCents)

	// The file of what is below holds what is its own.
	c, err = mandate.VerifyFile(w.export(child.ID), keys, time.Now(), nil)
	require.NoError(t, err)
	require.Len(t, c.Spends, 1)
	require.Len(t, c.Terms, 2)

	changed := func(change func(f *mandate.File)) func(string) string {
		return func(s string) string {
			var f mandate.File
			require.NoError(t, json.Unmarshal([]byte(s), &f))
			change(&f)
			out, err := json.Marshal(f)
			require.NoError(t, err)
			return string(out)
		}
	}
	raw = w.export(root.ID)
	for what, change := range map[string]func(string) string{
		"an amount": func(s string) string {
			return strings.Replace(s, `"amount_nanos":123456000`, `"amount_nanos":123456001`, 1)
		},
		"a payee": func(s string) string {
			return strings.Replace(s, `"payee":"provider:test"`, `"payee":"provider:best"`, 1)
		},
		"the name of a model":  func(s string) string { return strings.Replace(s, `"name":"test/model"`, `"name":"test/other"`, 1) },
		"a batch left out":     changed(func(f *mandate.File) { f.Batches = append(f.Batches[:1], f.Batches[2:]...) }),
		"the first left out":   changed(func(f *mandate.File) { f.Batches = f.Batches[1:] }),
		"a batch twice":        changed(func(f *mandate.File) { f.Batches = append(f.Batches, f.Batches[2]) }),
		"a line left out":      changed(func(f *mandate.File) { f.Batches[0].Lines = f.Batches[0].Lines[1:] }),
		"a line twice":         changed(func(f *mandate.File) { f.Batches[0].Lines[1] = f.Batches[0].Lines[0] }),
		"a mandate left out":   changed(func(f *mandate.File) { f.Below = nil }),
		"a mandate for itself": changed(func(f *mandate.File) { f.Chain = f.Below[0] }),
		"another's statement":  changed(func(f *mandate.File) { f.Batches[0].Statement = f.Batches[1].Statement }),
		"another chain":        changed(func(f *mandate.File) { f.Chain = strings.Replace(f.Chain, ".", ".A", 1) }),
		"a payment altered":    changed(func(f *mandate.File) { f.Closed[0] = f.Closed[0][:len(f.Closed[0])-9] + "AAAAAAAA~" }),
		"a payment twice":      changed(func(f *mandate.File) { f.Closed = append(f.Closed, f.Closed[0]) }),
		"a member more":        func(s string) string { return `{"more":1,` + s[1:] },
	} {
		text := change(string(raw))
		require.NotEqual(t, string(raw), text, what)
		_, err := mandate.VerifyFile([]byte(text), keys, time.Now(), nil)
		require.Error(t, err, "the file was altered and is accepted: %s", what)
	}
	_, err = mandate.VerifyFile(raw, jose.JSONWebKeySet{}, time.Now(), nil)
	require.Error(t, err)
}

func TestTheSealerMakesEachReceiptOnce(t *testing.T) {
	w := newWorld(t)
	root := w.signed(grant(money.Dollar, 0))
	w.spend(w.session(root), 10)
	sealer := register.NewSealer(w.db, w.mandates, slog.New(slog.DiscardHandler))
	together(4, func(int) {
		if err := sealer.SealOnce(t.Context()); err != nil {
			t.Error(err)
		}
	})
	var receipts, batches int
	require.NoError(t, w.owner.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM mandate_receipts), (SELECT count(*) FROM mandate_batches)`).Scan(&receipts, &batches))
	require.Equal(t, 1, receipts)
	require.Equal(t, 1, batches)
}

func TestNoReceiptIsLostWhereThereAreMoreThanABatchHolds(t *testing.T) {
	w := newWorld(t)
	root := w.signed(grant(money.Dollar, 0))
	lease := w.session(root)
	const refusals = 2500
	// The session was last active hours ago: nothing was sealed since.
	_, err := w.owner.Exec(t.Context(), `INSERT INTO events (org_id, session_id, seq, id, type, schema_version, epoch, payload, created_at)
		SELECT $1::text, $2::text, 1000 + n, 'evt_' || n, 'gate.decided', 1, 1, '{"decision":"denied","kind":"tool_call","name":"bash"}', now() - interval '5 hours' FROM generate_series(1, $3::int) n`, w.org, lease.Session, refusals)
	require.NoError(t, err)
	_, err = w.owner.Exec(t.Context(), `UPDATE sessions SET last_active_at = now() - interval '5 hours' WHERE id = $1`, lease.Session)
	require.NoError(t, err)
	_, err = w.owner.Exec(t.Context(), `UPDATE mandates SET signed_at = now() - interval '6 hours' WHERE id = $1`, root.ID)
	require.NoError(t, err)
	c, err := mandate.VerifyFile(w.export(root.ID), w.keySet(), time.Now(), nil)
	require.NoError(t, err)
	require.Len(t, c.Refusals, refusals)
}

func TestAFileIsSignedByThePersonWhoIsNamedInIt(t *testing.T) {
	w := newWorld(t)
	checked := func(change func(p *identity.Proof)) error {
		var m register.Mandate
		w.in(func(ctx context.Context, tx pgx.Tx) (err error) {
			if m, err = w.mandates.Draft(ctx, tx, w.org, register.DraftInput{Agent: w.agent, Grant: grant(money.Dollar, 0)}); err != nil {
				return err
			}
			if m, err = w.mandates.Prepare(ctx, tx, w.org, m.ID, w.user); err != nil {
				return err
			}
			m, err = w.mandates.Sign(ctx, tx, w.org, m.ID, w.user, w.proof(m, identity.MethodPasskey))
			return err
		})
		// Signed by the same organisation, with another's answer beside the very same body.
		var f mandate.File
		require.NoError(t, json.Unmarshal(w.export(m.ID), &f))
		proof := w.proof(m, identity.MethodPasskey)
		change(&proof)
		shown, err := json.Marshal(proof)
		require.NoError(t, err)
		w.in(func(ctx context.Context, tx pgx.Tx) error {
			token, err := mandate.SignRoot(func(header map[string]any, payload []byte) (string, error) {
				return w.keys.SignAsOrganization(ctx, tx, w.org, header, payload)
			}, m.Body, shown)
			f.Chain = token.String()
			return err
		})
		raw, err := json.Marshal(f)
		require.NoError(t, err)
		_, err = mandate.VerifyFile(raw, w.keySet(), time.Now(), func(json.RawMessage, [32]byte, jose.JSONWebKeySet) error { return nil })
		return err
	}
	require.NoError(t, checked(func(*identity.Proof) {}))
	require.ErrorContains(t, checked(func(p *identity.Proof) { p.User = string(id.New[id.User]()) }), "by the person who is named")
	require.ErrorContains(t, checked(func(p *identity.Proof) { p.Purpose = "passkey.enrol" }), "by the person who is named")
}

func TestASpendOutsideOfTheMandatesTimeIsFoundInItsFile(t *testing.T) {
	for _, shift := range []string{"2 hours", "-2 hours"} {
		w := newWorld(t)
		g := grant(money.Dollar, 0)
		from := time.Now().Add(-time.Second)
		g.From = &from
		root := w.signed(g)
		w.spend(w.session(root), 1_000)
		_, err := w.owner.Exec(t.Context(), `UPDATE holds SET created_at = created_at + $1::interval`, shift)
		require.NoError(t, err)
		_, err = mandate.VerifyFile(w.export(root.ID), w.keySet(), time.Now(), nil)
		require.ErrorContains(t, err, "it was held on", shift)
	}
}
