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
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/internal/app/server"
	"ambit.dev/ambit/internal/clickhouse"
	"ambit.dev/ambit/internal/failpoint"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/observability"
	"ambit.dev/ambit/test/instance"
	"ambit.dev/ambit/test/provider"
)

const (
	callers   = 200 // at each of three processes
	processes = 3
	fit       = 10 // what the budget covers
	question  = "How much is this?"
)

// stage is an instance with a provider outside of it, and a check of the ledger at each commit.
type stage struct {
	t        *testing.T
	provider *provider.Provider
	instance *instance.Instance
	domains  *server.Domains
	owner    *pgx.Conn
	bound    money.Nanos // what one effect holds
}

func newStage(t *testing.T) *stage {
	s := &stage{t: t, provider: provider.New(t)}
	s.instance = instance.Start(t, s.provider.Environment(t)...)
	domains, closing, err := server.OpenTenants(t.Context(), s.instance.Config, server.NewLogger(s.instance.Config, io.Discard))
	require.NoError(t, err)
	t.Cleanup(closing)
	s.domains = domains
	s.owner, err = pgx.Connect(t.Context(), string(s.instance.Config.PostgresURL))
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.owner.Close(context.Background()) })
	s.watchEachCommit()

	// What an effect holds, told by one.
	a := s.instance.Account("probe")
	status, body := invoke(a, a.URL, nil)
	require.Equal(t, http.StatusAccepted, status, "%s", body)
	s.settled(a, 1, time.Minute)
	require.NoError(t, s.owner.QueryRow(t.Context(), `SELECT amount_nanos FROM holds WHERE org_id = $1`, a.Org).Scan(&s.bound))
	require.Positive(t, s.bound)
	return s
}

// watchEachCommit makes the database itself reckon, at the commit of each transfer and from the transfers alone, whether a budget or a
// balance is exceeded. What it finds is kept beside what it found it in.
func (s *stage) watchEachCommit() {
	_, err := s.owner.Exec(s.t.Context(), `
CREATE TABLE proof_violations (what text NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE TABLE proof_commits (n bigint NOT NULL);
INSERT INTO proof_commits VALUES (0);
CREATE FUNCTION proof_check() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
  r budget_ref;
  used bigint;
  allowed bigint;
BEGIN
  FOREACH r IN ARRAY NEW.budgets LOOP
    SELECT sum(CASE WHEN t.credit_account = 'held' THEN t.amount_nanos WHEN t.debit_account = 'held' AND t.credit_account = 'available' THEN -t.amount_nanos ELSE 0 END)
      INTO used FROM ledger_transfers t WHERE t.org_id = NEW.org_id AND r = ANY (t.budgets);
    SELECT b.limit_nanos INTO allowed FROM budgets b WHERE b.org_id = NEW.org_id AND b.id = r.budget;
    IF used > allowed THEN
      INSERT INTO proof_violations (what) VALUES (format('budget %s: captured, held and unsettled are %s of %s', r.budget, used, allowed));
    END IF;
  END LOOP;
  SELECT sum(CASE WHEN t.credit_account = 'available' THEN t.amount_nanos ELSE -t.amount_nanos END) INTO used
    FROM ledger_transfers t WHERE t.org_id = NEW.org_id AND 'available' IN (t.credit_account, t.debit_account);
  IF used < 0 THEN
    INSERT INTO proof_violations (what) VALUES (format('%s is overdrawn by %s', NEW.org_id, -used));
  END IF;
  UPDATE proof_commits SET n = n + 1;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER proof_check AFTER INSERT ON ledger_transfers DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION proof_check();`)
	require.NoError(s.t, err)
}

// budget limits an organisation to what so many effects hold.
func (s *stage) budget(a *instance.Account, effects int) {
	s.t.Helper()
	ctx := principal.With(s.t.Context(), principal.NamedSystem("proof"))
	require.NoError(s.t, s.domains.DB.InTx(ctx, a.Org, func(tx pgx.Tx) error {
		_, err := billing.CreateBudget(ctx, tx, time.Now(), a.Org, billing.NewBudget{
			Name: "the proof's", Scope: billing.Scope{Type: billing.ScopeOrganization}, Limit: money.Nanos(effects) * s.bound, Period: "total", Action: billing.Block,
		})
		return err
	}))
}

// invoke asks for one session of one effect, at any of the processes.
func invoke(a *instance.Account, url string, ceiling *money.Nanos) (int, []byte) {
	in := map[string]any{"agent": map[string]any{"model": "openai/parrot", "tools": []string{}, "max_tokens": 64}, "input": question, "mode": "async"}
	if ceiling != nil {
		in["limits"] = map[string]any{"max_cost": ceiling}
	}
	body, err := json.Marshal(in)
	if err != nil {
		return 0, []byte(err.Error())
	}
	req, err := http.NewRequest(http.MethodPost, url+"/v1/invoke", bytes.NewReader(body)) //nolint:noctx // the client has a limit
	if err != nil {
		return 0, []byte(err.Error())
	}
	req.Header.Set("Authorization", "Bearer "+a.Key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := (&http.Client{Timeout: time.Minute}).Do(req)
	if err != nil {
		return 0, []byte(err.Error())
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, []byte(err.Error())
	}
	return resp.StatusCode, answer
}

// settled waits until so many sessions of the organisation are at rest.
func (s *stage) settled(a *instance.Account, n int, within time.Duration) {
	s.t.Helper()
	var atRest, all int
	ok := func() bool {
		err := s.owner.QueryRow(s.t.Context(), `SELECT count(*) FILTER (WHERE status IN ('idle', 'terminated')), count(*) FROM sessions WHERE org_id = $1`, a.Org).Scan(&atRest, &all)
		return err == nil && atRest >= n
	}
	deadline := time.Now().Add(within)
	for !ok() {
		if time.Now().After(deadline) {
			s.t.Fatalf("%d of %d sessions are at rest after %s; %d were awaited", atRest, all, within, n)
		}
		time.Sleep(50 * time.Millisecond) //nolint:forbidigo // between two looks
	}
}

func (s *stage) count(query string, args ...any) (n int) {
	s.t.Helper()
	require.NoError(s.t, s.owner.QueryRow(s.t.Context(), query, args...).Scan(&n))
	return n
}

// sound is what must hold of an organisation whose sessions are all at rest, whatever happened before.
func (s *stage) sound(a *instance.Account, callsBefore int) {
	s.t.Helper()
	rows, err := s.owner.Query(s.t.Context(), `SELECT what FROM proof_violations`)
	require.NoError(s.t, err)
	violations, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(s.t, err)
	require.Empty(s.t, violations, "at a commit, more was captured, held and unsettled than the budget or the balance has")
	require.Positive(s.t, s.count(`SELECT n FROM proof_commits`), "the check at each commit did not run")

	require.Zero(s.t, s.count(`SELECT count(*) FROM holds WHERE org_id = $1 AND state IN ('held', 'unsettled')`, a.Org), "a hold was left without an owner")
	require.NoError(s.t, s.domains.DB.InTx(s.t.Context(), a.Org, func(tx pgx.Tx) error {
		wrong, err := billing.Recount(s.t.Context(), tx, a.Org)
		require.Empty(s.t, wrong)
		if err != nil {
			return err
		}
		mismatches, err := billing.BudgetMismatches(s.t.Context(), tx, a.Org)
		require.Empty(s.t, mismatches)
		return err
	}))

	// The provider's own log: each call is a step's, at most one a key, and captured or listed as unknown.
	seen := map[string]bool{}
	for _, key := range s.provider.Keys()[callsBefore:] {
		require.NotEmpty(s.t, key)
		require.False(s.t, seen[key], "effect %s left twice", key)
		seen[key] = true
		var outcome string
		var captured bool
		err := s.owner.QueryRow(s.t.Context(), `
			SELECT coalesce(s.outcome, 'open'), EXISTS (SELECT FROM ledger_transfers t WHERE t.org_id = s.org_id AND t.step_id = s.id AND t.kind = 'capture')
			FROM steps s WHERE s.org_id = $1 AND s.effect_key = $2`, a.Org, key).Scan(&outcome, &captured)
		require.NoError(s.t, err, "a call reached the provider that no step stands for")
		require.True(s.t, captured || outcome == "unknown", "a call that reached the provider is %s and not captured", outcome)
	}

	// Each captured nano-dollar is on exactly one span.
	ch, err := clickhouse.Open(s.t.Context(), s.clickhouse())
	require.NoError(s.t, err)
	defer ch.Close() //nolint:errcheck // read only
	reader := observability.NewReader(ch)
	captured := s.count(`SELECT coalesce(sum(amount_nanos), 0)::bigint FROM ledger_transfers WHERE org_id = $1 AND kind = 'capture'`, a.Org)
	var shown int64
	var traces int
	var failed error
	matches := func() bool {
		shown, traces = 0, 0
		filter := observability.TraceFilter{Limit: 100}
		for {
			page, next, err := reader.Traces(s.t.Context(), observability.Scope{Org: a.Org, Project: a.Project}, filter)
			if failed = err; err != nil {
				return false
			}
			for _, tr := range page {
				shown += tr.CostNanos
				traces++
			}
			if next == "" {
				return shown == int64(captured)
			}
			filter.Before = next
		}
	}
	for deadline := time.Now().Add(30 * time.Second); !matches(); time.Sleep(200 * time.Millisecond) { //nolint:forbidigo // between two looks
		require.True(s.t, time.Now().Before(deadline), "the spans' cost is %d in %d traces, the ledger captured %d (%v)", shown, traces, captured, failed)
	}
}

func (s *stage) clickhouse() clickhouse.Config {
	url := string(s.instance.Config.ClickHouseURL)
	if path, ok := strings.CutPrefix(url, "unix://"); ok {
		return clickhouse.Config{Socket: path}
	}
	return clickhouse.Config{URL: url}
}

// everywhere calls fn for each caller at each process, all at once.
func everywhere(urls []string, fn func(url string)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for _, url := range urls {
		for range callers {
			wg.Go(func() {
				<-start
				fn(url)
			})
		}
	}
	close(start)
	wg.Wait()
}

func TestNothingIsSpentThatIsNotHeld(t *testing.T) {
	s := newStage(t)
	urls := []string{s.instance.URL, s.instance.Serve("all"), s.instance.Serve("all")}
	require.Len(t, urls, processes)

	t.Run("a budget for ten effects admits ten", func(t *testing.T) {
		s.t = t
		a := s.instance.Account("ten")
		s.budget(a, fit)
		before, hold := len(s.provider.Keys()), make(chan struct{})
		s.provider.Set(hold, nil) // nobody is given back money while others ask
		var mu sync.Mutex
		statuses := map[int]int{}
		everywhere(urls, func(url string) {
			status, _ := invoke(a, url, nil)
			mu.Lock()
			defer mu.Unlock()
			statuses[status]++
		})
		require.Equal(t, map[int]int{http.StatusAccepted: processes * callers}, statuses)
		s.settled(a, processes*callers-fit, 3*time.Minute)
		require.Eventually(t, func() bool { return len(s.provider.Keys())-before == fit }, 20*time.Second, 50*time.Millisecond)
		require.Equal(t, fit, s.count(`SELECT count(*) FROM holds WHERE org_id = $1`, a.Org), "exactly ten were admitted")
		require.Equal(t, processes*callers-fit, s.count(`SELECT count(*) FROM sessions WHERE org_id = $1 AND stop_reason ->> 'type' = 'budget_reached' AND stop_reason ->> 'scope' = 'budget'
			AND stop_reason ->> 'reason' LIKE '%“the proof''s”%'`, a.Org), "the rest was refused with the shortfall")
		require.Equal(t, processes*callers-fit, s.count(`SELECT count(*) FROM events WHERE org_id = $1 AND type = 'gate.decided' AND payload -> 'shortfall' ->> 'scope' = 'budget'`, a.Org), "each refusal is journalled")
		close(hold)
		s.provider.Set(nil, nil)
		s.settled(a, processes*callers, time.Minute)
		s.sound(a, before)
	})

	t.Run("a budget for ten ceilings accepts ten invokes", func(t *testing.T) {
		s.t = t
		a := s.instance.Account("ceilings")
		s.budget(a, fit)
		before, hold := len(s.provider.Keys()), make(chan struct{})
		s.provider.Set(hold, nil)
		var mu sync.Mutex
		statuses := map[int]int{}
		var refusals [][]byte
		everywhere(urls, func(url string) {
			status, body := invoke(a, url, &s.bound)
			mu.Lock()
			defer mu.Unlock()
			statuses[status]++
			if status == http.StatusPaymentRequired {
				refusals = append(refusals, body)
			}
		})
		require.Equal(t, map[int]int{http.StatusAccepted: fit, http.StatusPaymentRequired: processes*callers - fit}, statuses)
		for _, r := range refusals {
			var problem struct {
				Shortfall money.Nanos `json:"shortfall"`
				Limiting  []struct {
					Scope string `json:"scope"`
				} `json:"limiting"`
			}
			require.NoError(t, json.Unmarshal(r, &problem))
			require.Equal(t, s.bound, problem.Shortfall)
			require.Equal(t, "budget", problem.Limiting[0].Scope)
		}
		close(hold)
		s.provider.Set(nil, nil)
		s.settled(a, fit, time.Minute)
		s.sound(a, before)
	})
}

// TestNothingIsOverspentWhereverAProcessIsKilled kills processes at each of the places that an effect passes.
func TestNothingIsOverspentWhereverAProcessIsKilled(t *testing.T) {
	places := []string{failpoint.AfterCommit, failpoint.AfterEffect}
	rounds, sessions := 1, 24
	if os.Getenv("PROOF") == "full" {
		places = []string{failpoint.BeforeCommit, failpoint.AfterCommit, failpoint.Announced, failpoint.BeforeEffect, failpoint.AfterEffect}
		rounds, sessions = 3, 60
	}
	binary := instance.BuildWithFailpoints(t)
	s := newStage(t)
	for _, place := range places {
		t.Run(place, func(t *testing.T) {
			s.t = t
			for round := range rounds {
				a := s.instance.Account(fmt.Sprintf("%s-%d", id.New[id.Request]()[4:12], round))
				s.budget(a, fit)
				before := len(s.provider.Keys())
				killed := 0
				replicas := []*instance.Replica{}
				for range processes - 1 {
					replicas = append(replicas, s.instance.Replica("all", binary, fmt.Sprintf("FAILPOINT=%s:%d", place, 1+rand.IntN(4)))) //nolint:gosec // any will do
				}
				for i := range sessions {
					url := s.instance.URL
					if i%2 == 1 {
						url = replicas[i%len(replicas)].URL
					}
					if status, _ := invoke(a, url, nil); status != http.StatusAccepted { // that process was killed: another takes it
						status, body := invoke(a, s.instance.URL, nil)
						require.Equal(t, http.StatusAccepted, status, "%s", body)
					}
				}
				// An invoke whose answer was lost may have been accepted: there may be more sessions than answers, and never fewer.
				s.settled(a, s.count(`SELECT count(*) FROM sessions WHERE org_id = $1`, a.Org), 2*time.Minute)
				for _, r := range replicas {
					select {
					case <-r.Done():
						killed++
					default:
						require.NoError(t, r.Stop())
					}
				}
				t.Logf("round %d: %d processes were killed at %s; %d calls reached the provider", round, killed, place, len(s.provider.Keys())-before)
				require.Positive(t, killed, "no process came to the place where it is killed")
				s.settled(a, s.count(`SELECT count(*) FROM sessions WHERE org_id = $1`, a.Org), 2*time.Minute)
				s.sound(a, before)
			}
		})
	}
}
