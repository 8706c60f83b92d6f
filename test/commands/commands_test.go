package commands

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/governance/mandate/register"
	"ambit.dev/ambit/internal/app/server"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/tenants/identity"
	"ambit.dev/ambit/test/instance"
)

// user is a person at a terminal, with a home of their own.
type user struct {
	t      *testing.T
	binary string
	home   string
}

type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// running is a command under way.
type running struct {
	cmd      *exec.Cmd
	out, err output
}

func (u *user) start(stdin string, args ...string) *running {
	u.t.Helper()
	r := &running{cmd: exec.Command(u.binary, args...)} //nolint:noctx // waited for, or ended by a signal
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "AMBIT_") && !strings.HasPrefix(v, "XDG_") && !strings.HasPrefix(v, "HOME=") {
			r.cmd.Env = append(r.cmd.Env, v)
		}
	}
	r.cmd.Env = append(r.cmd.Env, "HOME="+u.home)
	r.cmd.Stdin, r.cmd.Stdout, r.cmd.Stderr = strings.NewReader(stdin), &r.out, &r.err
	require.NoError(u.t, r.cmd.Start())
	u.t.Cleanup(func() { _ = r.cmd.Process.Kill() })
	return r
}

// wait returns the exit status.
func (r *running) wait() int {
	_ = r.cmd.Wait()
	return r.cmd.ProcessState.ExitCode()
}

// run runs a command that must succeed and returns what it printed.
func (u *user) run(args ...string) string {
	u.t.Helper()
	r := u.start("", args...)
	require.Zero(u.t, r.wait(), "ambit %s: %s%s", strings.Join(args, " "), &r.out, &r.err)
	return r.out.String()
}

// fail runs a command that must not, and returns what it said.
func (u *user) fail(args ...string) string {
	u.t.Helper()
	r := u.start("", args...)
	require.NotZero(u.t, r.wait(), r.out.String())
	require.Empty(u.t, r.out.String(), "a refusal is no output")
	return r.err.String()
}

var sessionID = regexp.MustCompile(`ses_[0-9a-z]{26}`)

func TestTheUsersCommands(t *testing.T) {
	i := instance.Start(t)
	account := i.Account("ada")
	u := &user{t: t, binary: instance.Build(t), home: t.TempDir()}

	require.Contains(t, u.fail("agents"), "ambit login")
	require.Contains(t, u.fail("login", "--url", i.URL, "--key", "amb_nonsense"), "unauthenticated")
	login := u.start(account.Key+"\n", "login", "--url", i.URL)
	require.Zero(t, login.wait(), login.err.String())
	require.NotContains(t, login.out.String()+login.err.String(), account.Key)
	info, err := os.Stat(filepath.Join(u.home, ".config", "ambit", "cli.json"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	require.Contains(t, u.run("agents", "create", "--name", "helper", "--model", "ambit/scripted", "--tool", "bash"), "Created agt_")
	require.Contains(t, u.run("agents"), "helper")
	require.Contains(t, u.run("agents", "get", "helper"), `"model": "ambit/scripted"`)
	require.Contains(t, u.fail("agents", "create", "--name", "other", "--model", "acme/none"), "acme/none")

	keys := u.run("agents", "keys", "list", "helper")
	require.Contains(t, keys, "did:web:")
	require.Contains(t, keys, "active", "made with the agent")
	require.Contains(t, u.run("agents", "keys", "rotate", "helper"), "retiring")
	published := regexp.MustCompile(`http\S+/jwks\.json`).FindString(keys)
	for _, document := range []string{published, strings.Replace(published, "jwks.json", "did.json", 1), i.URL + "/.well-known/did.json"} {
		res, err := http.Get(document) //nolint:noctx // a test's own
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, res.StatusCode, document)
		require.NoError(t, res.Body.Close())
	}
	kid := regexp.MustCompile(`(?m)^(\S{43})\s+retiring`).FindStringSubmatch(u.run("agents", "keys", "list", "helper"))[1]
	require.Contains(t, u.run("agents", "keys", "retire", "helper", kid), "retired (compromised)")
	jwks := filepath.Join(u.home, "jwks.json")
	require.NoError(t, os.WriteFile(jwks, []byte(`{"keys":[]}`), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(u.home, "token"), []byte("eyJhbGciOiJub25lIn0.e30."), 0o600))
	require.Contains(t, u.fail("agents", "keys", "verify-token", filepath.Join(u.home, "token"), "--jwks", jwks, "--issuer", "did:web:x", "--audience", "https://x"), "algorithm is not ES256")

	invoke := u.start("", "invoke", "--model", "ambit/scripted", "--max-cost", "0.50", "```say\nfive words and a half\n```")
	require.Zero(t, invoke.wait(), invoke.err.String())
	require.Contains(t, invoke.out.String(), "five words and a half")
	require.Equal(t, 1, strings.Count(invoke.out.String(), "five words"), "previews and message are shown once: %q", invoke.out.String())
	require.Contains(t, invoke.err.String(), "idle (end_turn)")
	session := sessionID.FindString(invoke.err.String())
	require.NotEmpty(t, session)
	require.Contains(t, u.run("sessions"), session)
	require.Contains(t, u.fail("invoke", "--model", "ambit/scripted", "--max-cost", "1000.00", "x"), "insufficient_funds")
	require.Contains(t, u.fail("invoke", "x"), "--agent")

	offer := u.run("quote", "--agent", "helper", "```say\nquoted\n```")
	require.Contains(t, offer, "builtin/bash", "what it is likely to be made of")
	require.Contains(t, offer, "model calls with")
	quoted := regexp.MustCompile(`quo_[0-9a-z]{26}`).FindString(offer)
	require.Contains(t, u.fail("invoke", "--agent", "helper", "--quote", quoted, "something else"), "quote_mismatch")
	require.Contains(t, u.run("invoke", "--agent", "helper", "--quote", quoted, "```say\nquoted\n```"), "quoted")
	require.Contains(t, u.fail("invoke", "--agent", "helper", "--quote", quoted, "```say\nquoted\n```"), "quote_used")

	for line := range strings.Lines(u.run("logs", "--json", session)) {
		require.True(t, json.Valid([]byte(line)), line)
	}

	mandated(u, i, account)

	// Ctrl-C stops watching, not the work.
	watching := u.start("", "invoke", "--agent", "helper@1", "```pause seconds=120\n```")
	require.Eventually(t, func() bool { return sessionID.MatchString(watching.err.String()) }, 30*time.Second, 20*time.Millisecond)
	paused := sessionID.FindString(watching.err.String())
	require.Eventually(t, func() bool { return strings.Contains(u.run("sessions", "get", paused), `"status": "running"`) }, 30*time.Second, 50*time.Millisecond)
	require.NoError(t, watching.cmd.Process.Signal(syscall.SIGINT))
	require.NotZero(t, watching.wait())
	require.Contains(t, watching.err.String(), paused+" goes on")
	require.Contains(t, u.run("sessions", "get", paused), `"status": "running"`)
	u.run("sessions", "interrupt", paused, "--reason", "enough")
	require.Eventually(t, func() bool { return strings.Contains(u.run("sessions", "get", paused), `"interrupted"`) }, 30*time.Second, 50*time.Millisecond)

	// Following outlives the instance, and ends with the session.
	follow := u.start("", "logs", "-f", session)
	require.Eventually(t, func() bool { return strings.Contains(follow.out.String(), "session.status_idle") }, 30*time.Second, 20*time.Millisecond)
	i.Stop()
	i.Restart()
	u.run("invoke", "-q", "--session", session, "```say\nafter the restart\n```")
	require.Contains(t, u.run("sessions", "kill", session, "--reason", "done"), `"type": "kill_receipt"`)
	require.Zero(t, follow.wait(), follow.err.String())
	got := seqs(follow.out.String())
	require.Equal(t, seqs(u.run("logs", session)), got, "each event once, in order")
	require.Contains(t, follow.out.String(), "after the restart")

	stopping(u, i)
}

// mandated runs a session under a mandate, and checks what was exported with the keys that were kept.
func mandated(u *user, i *instance.Instance, account *instance.Account) {
	t := u.t
	t.Helper()
	var agent, drafted struct{ ID string }
	require.Equal(t, http.StatusCreated, account.Call(http.MethodPost, "/v1/agents", map[string]any{"name": "buyer", "model": "ambit/scripted"}, &agent))
	require.Equal(t, http.StatusCreated, account.Call(http.MethodPost, "/v1/mandates", map[string]any{
		"agent_id": agent.ID, "intent": "say a few words", "total": map[string]string{"amount": "1.00", "currency": "USD"}, "expires_at": time.Now().Add(time.Hour).UTC().Format(time.RFC3339),
	}, &drafted))
	require.Contains(t, u.fail("invoke", "--agent", "buyer", "--mandate", drafted.ID, "x"), "permission_denied")
	sign(t, i, account, id.Mandate(drafted.ID))
	require.Contains(t, u.run("mandate", "list"), "active")
	require.Contains(t, u.run("invoke", "--agent", "buyer", "--mandate", drafted.ID, "```say\nunder a mandate\n```"), "under a mandate")
	kept := filepath.Join(u.home, "mandate.json")
	require.Contains(t, u.run("mandate", "export", drafted.ID, "--out", kept), "Kept in")
	said := u.run("mandate", "verify", kept)
	require.Contains(t, said, "The mandate "+drafted.ID+" is genuine")
	require.Contains(t, said, "1 effects were spent")
	raw, err := os.ReadFile(kept)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(kept, bytes.Replace(raw, []byte(`"amount_nanos":`), []byte(`"amount_nanos":1`), 1), 0o600))
	require.Contains(t, u.fail("mandate", "verify", kept), "it was altered, or made up")
	require.Contains(t, u.run("mandate", "revoke", drafted.ID, "--reason", "done"), "Revoked: "+drafted.ID)
	require.Contains(t, u.fail("invoke", "--agent", "buyer", "--mandate", drafted.ID, "x"), "permission_denied")
}

// sign confirms a mandate as its person does on the console's page, with the password.
func sign(t *testing.T, i *instance.Instance, account *instance.Account, of id.Mandate) {
	t.Helper()
	d, closing, err := server.OpenTenants(t.Context(), i.Config, server.NewLogger(i.Config, io.Discard))
	require.NoError(t, err)
	defer closing()
	mandates := register.New(d.AgentKeys, d.Identity, d.Clock)
	var user id.User
	require.NoError(t, d.DB.InTx(t.Context(), account.Org, func(tx pgx.Tx) error {
		return tx.QueryRow(t.Context(), `SELECT user_id FROM members WHERE org_id = $1 LIMIT 1`, account.Org).Scan(&user)
	}))
	ctx := principal.With(t.Context(), principal.Principal{Kind: principal.User, ID: string(user), Org: account.Org})
	var m register.Mandate
	require.NoError(t, d.DB.InTx(ctx, account.Org, func(tx pgx.Tx) (err error) {
		m, err = mandates.Prepare(ctx, tx, account.Org, of, user)
		return err
	}))
	ask := identity.Ask{User: user, Org: account.Org, Purpose: register.Purpose(of), Challenge: m.Digest}
	asked, err := d.StepUp.Begin(ctx, ask)
	require.NoError(t, err)
	proof, err := d.StepUp.Finish(ctx, ask, identity.Response{Method: identity.MethodPassword, Challenge: asked.Challenge, Password: account.Password})
	require.NoError(t, err)
	require.NoError(t, d.DB.InTx(ctx, account.Org, func(tx pgx.Tx) error {
		_, err := mandates.Sign(ctx, tx, account.Org, of, user, proof)
		return err
	}))
}

// stopping stops what works, keeps the receipts, and checks them once the instance is gone.
func stopping(u *user, i *instance.Instance) {
	t := u.t
	begin := func(args ...string) string {
		watching := u.start("", append(append([]string{"invoke"}, args...), "```pause seconds=120\n```")...)
		require.Eventually(t, func() bool { return sessionID.MatchString(watching.err.String()) }, 30*time.Second, 20*time.Millisecond)
		return sessionID.FindString(watching.err.String())
	}
	first, second, third := begin("--agent", "helper"), begin("--agent", "helper"), begin("--model", "ambit/scripted")
	require.Contains(t, u.run("stop", "session", first, "--reason", "enough"), "Stopped "+first)
	said := u.run("stop", "agent", "helper")
	require.Contains(t, said, "Stopped 1 session of agent agt_")
	order := regexp.MustCompile(`sto_[0-9a-z]{26}`).FindString(said)
	require.NotEmpty(t, order)
	require.Contains(t, u.run("sessions", "get", second), `"killed"`)
	require.Contains(t, u.run("sessions", "get", third), `"running"`)
	require.Contains(t, u.fail("stop", "agent", "nobody"), "nobody")
	require.Contains(t, u.fail("stop", "session", "ses_01m7x0mn07fg9803q94qn22yrp"), "not_found")
	require.Contains(t, u.fail("stop", "key", "key_01m7x0mn07fg9803q94qn22yrp"), "not_found")
	wrong := u.start("Somebody else\n", "stop", "everything")
	require.NotZero(t, wrong.wait())
	require.Contains(t, wrong.err.String(), "nothing was stopped")
	require.Contains(t, u.run("sessions", "get", third), `"running"`)

	kept, whole := filepath.Join(u.home, "receipt.json"), filepath.Join(u.home, "stop.json")
	u.run("receipt", "get", first, "--out", kept)
	u.run("receipt", "get", order, "--out", whole)
	require.Contains(t, u.fail("receipt", "get", third), "not_found")
	i.Stop()
	require.Contains(t, u.run("receipt", "verify", kept), "session "+first+" was killed")
	require.Contains(t, u.run("receipt", "verify", whole), "all that worked in agent")
	raw, err := os.ReadFile(kept)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(kept, bytes.Replace(raw, []byte("enough"), []byte("nought"), 1), 0o600))
	require.Contains(t, u.fail("receipt", "verify", kept), "reason is not what the instance signed")
	require.NoError(t, os.WriteFile(kept, raw[:len(raw)/2], 0o600))
	require.Contains(t, u.fail("receipt", "verify", kept), "not whole")
}

// seqs are the numbers of the events in the order of their lines.
func seqs(out string) (all []string) {
	for _, m := range regexp.MustCompile(`(?m)^\S+ +(\d+)  `).FindAllStringSubmatch(out, -1) {
		all = append(all, m[1])
	}
	return all
}
