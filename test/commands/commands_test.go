package commands

import (
	"bytes"
	"encoding/json"
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

	"github.com/stretchr/testify/require"

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
