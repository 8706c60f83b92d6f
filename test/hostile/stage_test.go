package hostile

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/app/server"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/tenants"
	"ambit.dev/ambit/test/instance"
	"ambit.dev/ambit/test/provider"
)

// What things cost here, in nano-dollars: a request is dear, so that money is what stops it.
const (
	requestPrice = 10_000_000
	cent         = 10_000_000
	minutePrice  = 6 * cent // of a sandbox
)

// outside is a server that is no part of Ambit and keeps a log of its own. It listens on several of this machine's loopback addresses, so that
// another spelling of its address would reach it.
type outside struct {
	port string
	// slow answers requests to paths that end in /slow once it is closed.
	slow chan struct{}

	mu  sync.Mutex
	log []hit
}

// hit is one request as the server saw it. Path is cleaned, as many a server does before it decides who answers.
type hit struct{ method, path, key string }

func newOutside(t *testing.T) *outside {
	t.Helper()
	o := &outside{slow: make(chan struct{})}
	four, err := net.Listen("tcp4", "127.0.0.1:0") //nolint:noctx // loopback
	require.NoError(t, err)
	_, o.port, err = net.SplitHostPort(four.Addr().String())
	require.NoError(t, err)
	listeners := []net.Listener{four}
	for _, host := range []string{"127.0.0.2", "[::1]"} {
		if more, err := net.Listen("tcp", host+":"+o.port); err == nil { //nolint:noctx // a machine without IPv6 has nothing to be reached by it
			listeners = append(listeners, more)
		}
	}
	for _, l := range listeners {
		s := httptest.NewUnstartedServer(o)
		_ = s.Listener.Close()
		s.Listener = l
		s.Start()
		t.Cleanup(s.Close)
		t.Cleanup(s.CloseClientConnections)
	}
	return o
}

// ServeHTTP implements http.Handler.
func (o *outside) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	o.log = append(o.log, hit{method: r.Method, path: path.Clean("/" + r.URL.Path), key: r.Header.Get("Idempotency-Key")})
	o.mu.Unlock()
	if to := r.URL.Query().Get("to"); to != "" {
		w.Header().Set("Location", to)
		w.WriteHeader(http.StatusFound)
		return
	}
	if strings.HasSuffix(r.URL.Path, "/slow") {
		select {
		case <-o.slow:
		case <-r.Context().Done():
			return
		}
	}
	_, _ = io.WriteString(w, "hello from outside")
}

// seen are the requests whose path holds all of the texts.
func (o *outside) seen(texts ...string) (found []hit) {
	o.mu.Lock()
	defer o.mu.Unlock()
next:
	for _, h := range o.log {
		for _, t := range texts {
			if !strings.Contains(h.path+"/", t) {
				continue next
			}
		}
		found = append(found, h)
	}
	return found
}

// stage is an instance, a hostile provider, and two servers outside: one that agents may be allowed to reach, and one that none ever is.
type stage struct {
	provider   *provider.Provider
	instance   *instance.Instance
	owner      *pgxpool.Pool
	account    *instance.Account // whose agents are hostile
	admin      *instance.Account // the same with a key of the whole organisation
	open, shut *outside
	// secrets were written by honest sessions: one of the same account, one of another tenant.
	secret, foreign planted
	// machines bounds how many sandboxes are wanted at once.
	machines chan struct{}
}

// planted is a secret in a file of a session.
type planted struct{ session, text string }

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{provider: provider.New(t), open: newOutside(t), shut: newOutside(t), machines: make(chan struct{}, 2)}
	s.instance = instance.Start(t, append(s.provider.Environment(t,
		fmt.Sprintf(`{"kind":"tool","ref":"builtin/http_request","effective_from":"2026-01-01T00:00:00Z","nanos":{"call":%d}}`, requestPrice),
		fmt.Sprintf(`{"kind":"sandbox","ref":"small","effective_from":"2026-01-01T00:00:00Z","nanos":{"second":%d}}`, minutePrice/60),
		`{"kind":"tool","ref":"builtin/edit_file","effective_from":"2126-01-01T00:00:00Z","nanos":{"call":1000}}`,
	), "AMBIT_EGRESS_ALLOW_LOOPBACK=true")...)
	var err error
	s.owner, err = pgxpool.New(t.Context(), string(s.instance.Config.PostgresURL))
	require.NoError(t, err)
	t.Cleanup(s.owner.Close)
	s.account = s.instance.Account("hostile")
	s.admin = s.wholeKey(t, s.account)
	s.trusting(t, s.account)
	s.secret = s.plant(t, s.account, "SECRET-of-another-session")
	s.foreign = s.plant(t, s.instance.Account("victim"), "SECRET-of-another-tenant")
	return s
}

// trusting lets the account's sessions act outside after they have read from there, as an owner may: what holds then is what is tried here.
func (s *stage) trusting(t *testing.T, a *instance.Account) {
	t.Helper()
	for _, sql := range []string{
		`INSERT INTO approval_settings (org_id, taint, asks_per_day, updated_by, updated_at) VALUES ($1, 'allow', 50, 'test', now())`,
		`INSERT INTO policy_versions (org_id, version, changed_at) VALUES ($1, nextval('policy_version_numbers'), now())
		 ON CONFLICT (org_id) DO UPDATE SET version = nextval('policy_version_numbers')`,
	} {
		_, err := s.owner.Exec(t.Context(), sql, string(a.Org))
		require.NoError(t, err)
	}
}

// wholeKey is the account with a key of the whole organisation, as rules and budgets ask for.
func (s *stage) wholeKey(t *testing.T, a *instance.Account) *instance.Account {
	t.Helper()
	d, closing, err := server.OpenTenants(t.Context(), s.instance.Config, server.NewLogger(s.instance.Config, io.Discard))
	require.NoError(t, err)
	defer closing()
	admin := *a
	var user string
	require.NoError(t, s.owner.QueryRow(t.Context(), `SELECT user_id FROM members WHERE org_id = $1`, a.Org).Scan(&user))
	by := principal.Principal{Kind: principal.User, ID: user, Org: a.Org, Role: string(tenants.RoleOwner)}
	require.NoError(t, d.DB.InTx(t.Context(), a.Org, func(tx pgx.Tx) (err error) {
		_, admin.Key, err = d.Tenants.CreateKeyTx(t.Context(), tx, by, tenants.CreateKey{Name: "whole", Scopes: []string{"*"}})
		return err
	}))
	return &admin
}

func (s *stage) plant(t *testing.T, a *instance.Account, text string) planted {
	t.Helper()
	var made struct {
		Session string `json:"session_id"`
	}
	status := a.Call(http.MethodPost, "/v1/invoke", map[string]any{
		"agent": map[string]any{"model": "ambit/scripted", "tools": []string{"write_file"}}, "input": "```write_file path=secret.txt\n" + text + "\n```", "wait_seconds": 120,
	}, &made)
	require.Equal(t, http.StatusOK, status)
	status, content := a.Raw(http.MethodGet, "/v1/sessions/"+made.Session+"/files/content?path=secret.txt", nil)
	require.Equal(t, http.StatusOK, status, "%s", content)
	require.Contains(t, string(content), text)
	return planted{made.Session, text}
}

// number is what a query counts.
func (s *stage) number(t *testing.T, query string, args ...any) (n int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
	defer cancel()
	require.NoError(t, s.owner.QueryRow(ctx, query, args...).Scan(&n))
	return n
}
