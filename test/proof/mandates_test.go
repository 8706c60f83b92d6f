package proof

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/governance/mandate"
	"ambit.dev/ambit/governance/mandate/register"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/failpoint"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/tenants/identity"
	"ambit.dev/ambit/test/instance"
)

// grove is an organisation with a root mandate, two that narrow it, and four below each of those, each with less than those above it allow
// together.
type grove struct {
	*stage

	account  *instance.Account
	mandates *register.Service
	agent    id.Agent
	root     register.Mandate
	middles  []register.Mandate
	leaves   []register.Mandate
}

// The limits, in effects. Four leaves want more than their middle has, and two middles more than the root.
const (
	rootFits, middleFits, leafFits = 20, 13, 5
	leavesEach                     = 4
)

// watchMandates makes the database itself look, at the commit of each hold, whether any mandate above it is not in force, and whether the hold
// counts against every one of them.
func (s *stage) watchMandates() {
	_, err := s.owner.Exec(s.t.Context(), `
CREATE FUNCTION proof_mandates() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
  m record;
BEGIN
  FOR m IN SELECT up.id, up.state, up.budgets FROM sessions s JOIN mandates own ON own.org_id = s.org_id AND own.id = s.mandate_id
           JOIN mandates up ON up.org_id = s.org_id AND up.id = ANY (own.path) WHERE s.org_id = NEW.org_id AND s.id = NEW.session_id LOOP
    IF m.state <> 'active' THEN
      INSERT INTO proof_violations (what) VALUES (format('hold %s was admitted under the mandate %s, which is %s', NEW.id, m.id, m.state));
    END IF;
    IF NEW.parent_id IS NULL AND NOT (m.budgets <@ (SELECT array_agg(b.budget) FROM unnest(NEW.budgets) b)) THEN
      INSERT INTO proof_violations (what) VALUES (format('hold %s does not count against the mandate %s', NEW.id, m.id));
    END IF;
  END LOOP;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER proof_mandates AFTER INSERT ON holds DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION proof_mandates();`)
	require.NoError(s.t, err)
}

func (s *stage) newGrove(name string) *grove {
	s.t.Helper()
	g := &grove{stage: s, account: s.instance.Account(name), mandates: register.New(s.domains.AgentKeys, s.domains.Identity, clock.System())}
	var made struct{ ID id.Agent }
	status := g.account.Call(http.MethodPost, "/v1/agents", map[string]any{"name": "scout", "model": "openai/parrot", "max_tokens": 64}, &made)
	require.Equal(s.t, http.StatusCreated, status)
	g.agent = made.ID
	user := id.New[id.User]()
	ctx := principal.With(s.t.Context(), principal.Principal{Kind: principal.User, ID: string(user), Org: g.account.Org})
	limit := func(effects int) *money.Nanos { n := money.Nanos(effects) * s.bound; return &n }
	require.NoError(s.t, s.domains.DB.InTx(ctx, g.account.Org, func(tx pgx.Tx) (err error) {
		grant := mandate.Grant{Intent: "the proof's", Total: limit(rootFits), Until: time.Now().Add(time.Hour), Depth: 2}
		m, err := g.mandates.Draft(ctx, tx, g.account.Org, register.DraftInput{Agent: g.agent, Grant: grant})
		if err != nil {
			return err
		}
		if m, err = g.mandates.Prepare(ctx, tx, g.account.Org, m.ID, user); err != nil {
			return err
		}
		g.root, err = g.mandates.Sign(ctx, tx, g.account.Org, m.ID, user, identity.Proof{
			Method: identity.MethodPasskey, User: string(user), Purpose: register.Purpose(m.ID), Challenge: register.Challenge(m.Digest),
		})
		if err != nil {
			return err
		}
		narrow := func(parent id.Mandate, effects int) (register.Mandate, error) {
			return g.mandates.Narrow(ctx, tx, g.account.Org, register.NarrowInput{Parent: parent, Agent: g.agent, Grant: mandate.Grant{Total: limit(effects), Depth: -1}})
		}
		for range 2 {
			middle, err := narrow(g.root.ID, middleFits)
			if err != nil {
				return err
			}
			g.middles = append(g.middles, middle)
			for range leavesEach {
				leaf, err := narrow(middle.ID, leafFits)
				if err != nil {
					return err
				}
				g.leaves = append(g.leaves, leaf)
			}
		}
		return nil
	}))
	return g
}

// work asks for a session of one effect under a leaf, at any of the processes.
func (g *grove) work(url string, leaf register.Mandate) int {
	a := *g.account
	in := map[string]any{"agent": g.agent, "input": question, "mode": "async", "mandate_id": leaf.ID}
	status, _, err := at(&a, url, "/v1/invoke", in)
	if err != nil {
		return 0 // that process was killed
	}
	return status
}

// revoke takes back one of the middles, and says when that was committed.
func (g *grove) revoke(of register.Mandate) time.Time {
	g.t.Helper()
	status := g.account.Call(http.MethodPost, "/v1/mandates/"+string(of.ID)+"/revoke", map[string]any{"reason": "the proof's"}, nil)
	require.Equal(g.t, http.StatusOK, status)
	return time.Now()
}

// within is what must hold of the mandates whatever happened: by the ledger alone, none has spent, holds or leaves unsettled more than it has.
func (g *grove) within() (captured money.Nanos) {
	g.t.Helper()
	ctx := g.t.Context()
	for _, m := range append(append([]register.Mandate{g.root}, g.middles...), g.leaves...) {
		var used, limit int64
		err := g.owner.QueryRow(ctx, `
			SELECT coalesce((SELECT sum(CASE WHEN t.credit_account = 'held' THEN t.amount_nanos WHEN t.debit_account = 'held' AND t.credit_account = 'available' THEN -t.amount_nanos ELSE 0 END)
				FROM ledger_transfers t JOIN sessions s ON s.org_id = t.org_id AND s.id = t.session_id JOIN mandates own ON own.org_id = s.org_id AND own.id = s.mandate_id
				WHERE t.org_id = $1 AND $2 = ANY (own.path)), 0)::bigint, (SELECT sum(b.limit_nanos) FROM budgets b WHERE b.scope = 'mandate:' || $2)::bigint`, g.account.Org, m.ID).Scan(&used, &limit)
		require.NoError(g.t, err)
		require.LessOrEqual(g.t, used, limit, "the mandate %s has used more than it allows", m.ID)
		require.Equal(g.t, int64(*m.Grant.Total), limit)
	}
	var sum int64
	require.NoError(g.t, g.owner.QueryRow(ctx, `SELECT coalesce(sum(amount_nanos), 0)::bigint FROM ledger_transfers WHERE org_id = $1 AND kind = 'capture'`, g.account.Org).Scan(&sum))
	return money.Nanos(sum)
}

// receipts exports the root and checks the file with public keys alone: there is a receipt of each capture and each refusal.
func (g *grove) receipts(captured money.Nanos) mandate.Checked {
	g.t.Helper()
	status, raw := g.account.Raw(http.MethodGet, "/v1/mandates/"+string(g.root.ID)+"/export", nil)
	require.Equal(g.t, http.StatusOK, status, "%s", raw)
	var keys jose.JSONWebKeySet
	require.Equal(g.t, http.StatusOK, g.account.Call(http.MethodGet, "/.well-known/jwks.json", nil, &keys))
	require.NoError(g.t, g.domains.DB.InTx(g.t.Context(), g.account.Org, func(tx pgx.Tx) error {
		key, err := g.domains.AgentKeys.AgentKey(g.t.Context(), tx, g.account.Org, identity.OfOrganization(g.account.Org))
		keys.Keys = append(keys.Keys, key.JWK)
		return err
	}))
	c, err := mandate.VerifyFile(raw, keys, time.Now(), nil)
	require.NoError(g.t, err)
	require.Equal(g.t, captured, c.Spent, "the receipts are what the ledger captured")
	require.Len(g.t, c.Spends, g.count(`SELECT count(*) FROM ledger_transfers WHERE org_id = $1 AND kind = 'capture'`, g.account.Org))
	require.Len(g.t, c.Refusals, g.count(`SELECT count(*) FROM events WHERE org_id = $1 AND type = 'gate.decided' AND payload ->> 'decision' = 'denied'`, g.account.Org))
	return c
}

func (g *grove) atRest(within time.Duration) {
	g.t.Helper()
	g.settled(g.account, g.count(`SELECT count(*) FROM sessions WHERE org_id = $1`, g.account.Org), within)
}

func TestMandatesNest(t *testing.T) {
	s := newStage(t)
	s.watchMandates()

	t.Run("children that race at three processes", func(t *testing.T) {
		s.t = t
		urls := []string{s.instance.URL, s.instance.Serve("all"), s.instance.Serve("all")}
		g := s.newGrove("race")
		before, hold := len(s.provider.Keys()), make(chan struct{})
		s.provider.Set(hold, nil) // nobody is given back money while others ask
		const each = 12
		var wg sync.WaitGroup
		accepted := make(chan int, processes*len(g.leaves)*each)
		for _, url := range urls {
			for _, leaf := range g.leaves {
				for range each {
					wg.Go(func() { accepted <- g.work(url, leaf) })
				}
			}
		}
		wg.Wait()
		close(accepted)
		for status := range accepted {
			require.Equal(t, http.StatusAccepted, status)
		}
		all := processes * len(g.leaves) * each
		s.settled(g.account, all-rootFits, 3*time.Minute)
		require.Equal(t, rootFits, s.count(`SELECT count(*) FROM holds WHERE org_id = $1`, g.account.Org), "exactly what the root covers was admitted")
		g.within()
		close(hold)
		s.provider.Set(nil, nil)
		g.atRest(2 * time.Minute)
		s.sound(g.account, before)
		c := g.receipts(g.within())
		t.Logf("%d sessions under %d mandates, three deep: %d were spent of, %d refused; %d receipts in %d batches verify with the public keys alone",
			all, 1+len(g.middles)+len(g.leaves), len(c.Spends), len(c.Refusals), len(c.Spends)+len(c.Refusals), c.Batches)
	})

	places := []string{failpoint.AfterCommit}
	if os.Getenv("PROOF") == "full" {
		places = []string{failpoint.BeforeCommit, failpoint.AfterCommit, failpoint.Announced, failpoint.BeforeEffect, failpoint.AfterEffect}
	}
	binary := instance.BuildWithFailpoints(t)
	for _, place := range places {
		t.Run("processes killed at "+place+", and a revocation", func(t *testing.T) {
			s.t = t
			g := s.newGrove(fmt.Sprintf("crash-%s", id.New[id.Request]()[4:14]))
			before := len(s.provider.Keys())
			replicas := []*instance.Replica{}
			for range processes - 1 {
				replicas = append(replicas, s.instance.Replica("all", binary, fmt.Sprintf("FAILPOINT=%s:%d", place, 2+rand.IntN(4)))) //nolint:gosec // any will do
			}
			urls := []string{s.instance.URL, replicas[0].URL, replicas[1].URL}
			const sessions = 72
			var wg sync.WaitGroup
			half := make(chan struct{})
			for i := range sessions {
				if i == sessions/2 {
					close(half)
				}
				wg.Go(func() {
					leaf := g.leaves[i%len(g.leaves)]
					if status := g.work(urls[i%len(urls)], leaf); status == 0 {
						g.work(s.instance.URL, leaf) // that process was killed: another takes it, or the mandate is revoked by now
					}
				})
			}
			<-half
			revoked := g.revoke(g.middles[0])
			wg.Wait()
			g.atRest(2 * time.Minute)
			killed := 0
			for _, r := range replicas {
				select {
				case <-r.Done():
					killed++
				default:
					require.NoError(t, r.Stop())
				}
			}
			g.atRest(2 * time.Minute)
			require.Positive(t, killed, "no process came to the place where it is killed")
			s.sound(g.account, before) // and that none was admitted after the revocation's commit: the database looked, at each commit
			require.Equal(t, http.StatusForbidden, g.work(s.instance.URL, g.leaves[0]), "nothing begins under what was revoked")
			c := g.receipts(g.within())
			late := s.count(`SELECT count(*) FROM holds h JOIN sessions s ON s.org_id = h.org_id AND s.id = h.session_id JOIN mandates m ON m.org_id = s.org_id AND m.id = s.mandate_id
				WHERE h.org_id = $1 AND $2 = ANY (m.path) AND h.created_at > $3`, g.account.Org, g.middles[0].ID, revoked)
			require.Zero(t, late, "an effect was admitted after the revocation")
			t.Logf("%d processes were killed at %s; %d effects were spent, %d refused; all receipts verify", killed, place, len(c.Spends), len(c.Refusals))
		})
	}
}

// at asks one of the processes.
func at(a *instance.Account, url, path string, in any) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	body, err := json.Marshal(in)
	if err != nil {
		return 0, nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+a.Key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}
