package sandbox_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/billing/prices"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/blob"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/config"
	"ambit.dev/ambit/internal/dbtest"
	"ambit.dev/ambit/internal/engines"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/nomad"
	"ambit.dev/ambit/nomad/nomadtest"
	"ambit.dev/ambit/sandbox"
	"ambit.dev/ambit/sandbox/bridge"
	"ambit.dev/ambit/sandbox/guest"
	"ambit.dev/ambit/sandbox/node"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if binaries.dir != "" {
		_ = os.RemoveAll(binaries.dir)
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// binaries are the node's and the guest's programs, built once.
var binaries struct {
	sync.Once
	dir string
	err error
}

func built(t testing.TB) string {
	t.Helper()
	binaries.Do(func() {
		if binaries.dir, binaries.err = os.MkdirTemp("", "ambit-binaries-"); binaries.err != nil {
			return
		}
		for _, name := range []string{"ambit-node", "ambit-guest"} {
			cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", filepath.Join(binaries.dir, name), "ambit.dev/ambit/cmd/"+name) //nolint:noctx // a build
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
			if out, err := cmd.CombinedOutput(); err != nil {
				binaries.err = fmt.Errorf("build %s: %w\n%s", name, err, out)
				return
			}
		}
	})
	require.NoError(t, binaries.err)
	return binaries.dir
}

// signer is an instance signing key.
type signer struct {
	key ed25519.PrivateKey
	kid string
}

func newSigner(t testing.TB, kid string) *signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	return &signer{key: key, kid: kid}
}

func (s *signer) Sign(_ context.Context, claims any) (string, error) {
	opts := (&jose.SignerOptions{}).WithHeader("kid", s.kid)
	js, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: s.key}, opts)
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	jws, err := js.Sign(payload)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}

func (s *signer) keys() jose.JSONWebKeySet {
	return jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: s.key.Public(), KeyID: s.kid, Algorithm: "EdDSA", Use: "sig"}}}
}

// rig is a control plane with real parts: Postgres, Nomad, QEMU.
type rig struct {
	t       testing.TB
	db      *postgres.DB
	agent   *nomadtest.Agent
	nomad   *nomad.Client
	blobs   *blob.Store
	blobDir string
	signer  *signer
	control *httptest.Server
	gate    *gate.Gate
	service *sandbox.Service
	config  sandbox.Config
	runRoot string
	log     *slog.Logger

	mu    sync.Mutex
	ended []sandbox.Ended
	inner http.Handler
	down  bool
}

type rigOption func(*rig, *sandbox.Config)

func warm(n int) rigOption { return func(_ *rig, c *sandbox.Config) { c.Warm = n } }
func most(n int) rigOption { return func(_ *rig, c *sandbox.Config) { c.Max = n } }
func idleAfter(d time.Duration) rigOption {
	return func(_ *rig, c *sandbox.Config) { c.IdleAfter = d }
}

func claimWait(d time.Duration) rigOption {
	return func(_ *rig, c *sandbox.Config) { c.ClaimWait = d }
}

func tickOf(d time.Duration) rigOption { return func(_ *rig, c *sandbox.Config) { c.Tick = d } }

func onAgent(a *nomadtest.Agent) rigOption { return func(r *rig, _ *sandbox.Config) { r.agent = a } }

func newRig(t testing.TB, opts ...rigOption) *rig {
	t.Helper()
	r := &rig{t: t, signer: newSigner(t, "key-1")}
	level := slog.LevelInfo
	r.log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: level}))
	dir := built(t)
	set, err := engines.Require(t.Context(), engines.QEMU, engines.Kernel, engines.Rootfs)
	require.NoError(t, err)
	// Short, because sockets lie below it; of its own, because a test may sweep it.
	r.runRoot, err = os.MkdirTemp("", "amb-run-")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(r.runRoot, 0o711)) //nolint:gosec // the engine's account passes
	t.Cleanup(func() { _ = os.RemoveAll(r.runRoot) })

	table, err := prices.Shipped()
	require.NoError(t, err)
	r.db = dbtest.New(t)
	r.gate = gate.New(table, policy.NewCache(r.db, nil, r.log), clock.System(), r.log)
	r.blobDir = t.TempDir()
	r.blobs, err = blob.OpenDir(r.blobDir)
	require.NoError(t, err)
	t.Cleanup(func() { _ = r.blobs.Close() })

	mux := http.NewServeMux()
	mux.HandleFunc("GET "+bridge.KeysPath, func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(r.signer.keys()) })
	mux.HandleFunc("/internal/", func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		inner, down := r.inner, r.down
		r.mu.Unlock()
		if inner == nil || down {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		inner.ServeHTTP(w, req)
	})
	r.control = httptest.NewServer(mux)
	t.Cleanup(r.control.Close)

	r.config = sandbox.Config{
		Warm: 1, Max: 4, ControlURL: r.control.URL, NodeToken: "a-node-token-of-the-test",
		ClaimWait: time.Minute,
		Node: sandbox.NodeSetup{
			Binary: filepath.Join(dir, "ambit-node"), Guest: filepath.Join(dir, "ambit-guest"),
			QEMU: set.QEMU, Kernel: set.Vmlinux, Modules: set.KernelModules, Rootfs: set.RootfsErofs,
			TemplatesDir: filepath.Join(config.CacheDir(), "test-templates"), RunRoot: r.runRoot, Socket: filepath.Join(r.runRoot, "node.sock"),
			MemoryMiB: 256, Grace: 5 * time.Second,
		},
	}
	for _, o := range opts {
		o(r, &r.config)
	}
	if r.agent == nil {
		r.agent = nomadtest.Start(t)
	}
	r.nomad = r.agent.Client(r.log)
	r.start()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := r.service.Drain(ctx); err != nil {
			t.Logf("drain at the end of the test: %v", err)
		}
		if t.Failed() {
			r.showLogs()
		}
		r.requireNothingLeft()
	})
	return r
}

// start makes a service and starts it, as a process of the control plane does.
func (r *rig) start() {
	r.t.Helper()
	service, err := sandbox.New(sandbox.Options{
		Config: r.config, DB: r.db, Gate: r.gate, Nomad: r.nomad, Blobs: r.blobs, Signer: r.signer,
		Keys:  func(context.Context) (jose.JSONWebKeySet, error) { return r.signer.keys(), nil },
		Clock: clock.System(), Log: r.log,
		OnEnded: func(e sandbox.Ended) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.ended = append(r.ended, e)
		},
	})
	require.NoError(r.t, err)
	r.mu.Lock()
	r.service, r.inner = service, service.Handler()
	r.mu.Unlock()
	require.NoError(r.t, service.Start(r.t.Context()))
	<-service.Started()
}

// setDown makes the control plane unreachable for allocations.
func (r *rig) setDown(down bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = down
}

func (r *rig) endings() []sandbox.Ended {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]sandbox.Ended{}, r.ended...)
}

func (r *rig) eventually(within time.Duration, what string, cond func() bool) {
	r.t.Helper()
	require.Eventually(r.t, cond, within, 25*time.Millisecond, what)
}

// warmOnes are the machines that wait, ready.
func (r *rig) warmOnes() (ids []string) {
	require.NoError(r.t, r.db.InWorkerTx(r.t.Context(), func(tx pgx.Tx) error {
		rows, err := tx.Query(r.t.Context(), "SELECT id FROM warm_sandboxes WHERE state = 'ready' ORDER BY id")
		if err != nil {
			return err
		}
		ids, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	}))
	return ids
}

func (r *rig) awaitWarm(n int) {
	r.t.Helper()
	r.eventually(2*time.Minute, fmt.Sprintf("%d warm sandboxes", n), func() bool { return len(r.warmOnes()) >= n })
}

// tenant is an organisation with credit and one session.
type tenant struct {
	r       *rig
	org     id.Org
	project id.Project
	session id.Session
}

func (r *rig) tenant() *tenant {
	r.t.Helper()
	tn := &tenant{r: r, org: id.New[id.Org](), project: id.New[id.Project]()}
	now := clock.System().Now()
	require.NoError(r.t, r.db.InTx(r.t.Context(), tn.org, func(tx pgx.Tx) error {
		ctx := r.t.Context()
		slug := strings.ToLower(string(tn.org[4:]))
		if _, err := tx.Exec(ctx, "INSERT INTO organizations (id, name, slug, created_at, updated_at) VALUES ($1, 'Test', $2, $3, $3)", tn.org, slug, now); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "INSERT INTO projects (org_id, id, name, slug, created_at, updated_at) VALUES ($1, $2, 'Test', 'test', $3, $3)", tn.org, tn.project, now); err != nil {
			return err
		}
		credit, err := money.Parse("100.00")
		if err != nil {
			return err
		}
		_, err = billing.Grant(ctx, tx, now, tn.org, credit, "test")
		return err
	}))
	tn.session = tn.newSession()
	return tn
}

func (tn *tenant) newSession() id.Session {
	session := id.New[id.Session]()
	require.NoError(tn.r.t, tn.r.db.InTx(tn.r.t.Context(), tn.org, func(tx pgx.Tx) error {
		_, _, err := journal.Create(tn.r.t.Context(), tx, clock.System().Now(), journal.New{
			Org: tn.org, ID: session, Project: tn.project, By: principal.Principal{Kind: "user", ID: "usr_test"},
			Agent: journal.Snapshot{Name: "test", Definition: journal.Definition{Model: "ambit/scripted", Tools: []string{"bash"}, MaxTokens: 100}},
		})
		return err
	}))
	return session
}

// finish makes a session idle, as the end of its work does.
func (tn *tenant) finish(session id.Session) {
	tn.r.t.Helper()
	require.NoError(tn.r.t, tn.r.db.InTx(tn.r.t.Context(), tn.org, func(tx pgx.Tx) error {
		l, err := journal.Lock(tn.r.t.Context(), tx, tn.org, session)
		if err != nil {
			return err
		}
		_, err = l.Append(tn.r.t.Context(), clock.System().Now(), journal.Of(journal.StatusIdle{StopReason: journal.StopReason{Type: "end_turn"}}))
		return err
	}))
}

func (tn *tenant) acquire(epoch int64) (*sandbox.Sandbox, error) {
	return tn.acquireFor(tn.session, epoch)
}

func (tn *tenant) acquireFor(session id.Session, epoch int64) (*sandbox.Sandbox, error) {
	return tn.r.service.Acquire(tn.r.t.Context(), sandbox.AcquireInput{Org: tn.org, Project: tn.project, Session: session, Epoch: epoch})
}

// admit begins a step and has the gate admit it, as the scheduler does for a tool call that a worker takes up at its epoch.
func (tn *tenant) admit(session id.Session, epoch int64, key string, args any) (*gate.Admission, gate.Digest) {
	tn.r.t.Helper()
	raw, err := json.Marshal(args)
	require.NoError(tn.r.t, err)
	digest := sha256.Sum256(raw)
	var adm *gate.Admission
	require.NoError(tn.r.t, tn.r.db.InTx(tn.r.t.Context(), tn.org, func(tx pgx.Tx) error {
		ctx := tn.r.t.Context()
		l, err := journal.Lock(ctx, tx, tn.org, session)
		if err != nil {
			return err
		}
		l.Epoch = epoch // as if the lease had come that far
		now := clock.System().Now()
		step := id.New[id.Step]()
		hold, short, err := billing.Place(ctx, tx, now, tn.org, billing.HoldRequest{
			Session: session, Step: step, Amount: money.Cent / 100, PriceVersion: tn.r.gate.Prices().Version(), Expires: now.Add(time.Hour),
		})
		if err != nil || short != nil {
			return fmt.Errorf("hold: %v, %w", short, err)
		}
		intended := journal.StepIntended{Kind: string(gate.ToolCall), Name: "bash", EffectKey: key, Hold: &journal.HoldRef{ID: hold, Amount: money.Cent / 100}}
		if _, err := l.Append(ctx, now, journal.Entry{Step: step, Payload: intended}); err != nil {
			return err
		}
		p := gate.Proposal{Step: step, Kind: gate.ToolCall, Name: "bash", Digest: digest, EffectKey: key, Within: time.Hour}
		d, err := tn.r.gate.Readmit(ctx, tx, now, l, p, journal.Step{ID: step, EffectKey: key, Hold: hold})
		if err != nil {
			return err
		}
		if d.Admission == nil {
			return fmt.Errorf("not admitted: %v", d.Reasons)
		}
		adm = d.Admission
		return nil
	}))
	return adm, digest
}

// begin admits an effect and consumes the admission.
func (tn *tenant) begin(b *sandbox.Sandbox, key string) *sandbox.Effect {
	tn.r.t.Helper()
	adm, digest := tn.admit(b.Session, b.Epoch, key, map[string]string{"key": key})
	e, err := b.Begin(adm, gate.ToolCall, digest)
	require.NoError(tn.r.t, err)
	return e
}

// sh runs a script under a fresh effect and returns its output.
func (tn *tenant) sh(b *sandbox.Sandbox, script string) (string, *sandbox.ExecResult, error) {
	tn.r.t.Helper()
	e := tn.begin(b, "eff-"+string(id.New[id.Step]()))
	var out bytes.Buffer
	res, err := e.Exec(tn.r.t.Context(), sandbox.ExecSpec{Script: script}, func(c guest.Chunk) error {
		out.Write(c.Data)
		return nil
	})
	return out.String(), res, err
}

func (tn *tenant) must(b *sandbox.Sandbox, script string) string {
	tn.r.t.Helper()
	out, res, err := tn.sh(b, script)
	require.NoError(tn.r.t, err)
	require.Zero(tn.r.t, res.ExitCode, "%s: %s", script, out)
	return strings.TrimSpace(out)
}

// events are the types and payloads of the session's journal.
func (tn *tenant) events(kind string) (payloads []json.RawMessage) {
	tn.r.t.Helper()
	require.NoError(tn.r.t, tn.r.db.InTx(tn.r.t.Context(), tn.org, func(tx pgx.Tx) error {
		rows, err := tx.Query(tn.r.t.Context(), "SELECT payload FROM events WHERE org_id = $1 AND session_id = $2 AND type = $3 ORDER BY seq", tn.org, tn.session, kind)
		if err != nil {
			return err
		}
		payloads, err = pgx.CollectRows(rows, pgx.RowTo[json.RawMessage])
		return err
	}))
	return payloads
}

// live is the session's machine as the API and the console see it.
func (tn *tenant) live() map[id.Session]id.Sandbox {
	tn.r.t.Helper()
	out := map[id.Session]id.Sandbox{}
	require.NoError(tn.r.t, tn.r.db.InTx(tn.r.t.Context(), tn.org, func(tx pgx.Tx) error {
		found, err := sandbox.LiveOf(tn.r.t.Context(), tx, tn.org, tn.session, id.New[id.Session]())
		for session, b := range found {
			out[session] = b.ID
		}
		return err
	}))
	return out
}

// row is what the table says of a sandbox.
type row struct {
	State, Reason, Detail, Proof string
	Epoch                        int64
	Gone                         bool
}

func (tn *tenant) row(sandboxID id.Sandbox) (out row) {
	tn.r.t.Helper()
	require.NoError(tn.r.t, tn.r.db.InTx(tn.r.t.Context(), tn.org, func(tx pgx.Tx) error {
		return tx.QueryRow(tn.r.t.Context(),
			"SELECT state, coalesce(end_reason, ''), end_detail, coalesce(gone_proof::text, ''), epoch, gone_at IS NOT NULL FROM sandboxes WHERE org_id = $1 AND id = $2",
			tn.org, sandboxID).Scan(&out.State, &out.Reason, &out.Detail, &out.Proof, &out.Epoch, &out.Gone)
	}))
	return out
}

// processes are the pids whose command line, or whose environment, holds text.
func processes(program, text string) (pids []int) {
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		cmdline, _ := os.ReadFile(filepath.Join(p, "cmdline"))
		if !bytes.Contains(cmdline, []byte(program)) {
			continue
		}
		environ, _ := os.ReadFile(filepath.Join(p, "environ"))
		if text == "" || bytes.Contains(cmdline, []byte(text)) || bytes.Contains(environ, []byte(text)) {
			if pid, err := strconv.Atoi(filepath.Base(p)); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// machines are the QEMU processes of a sandbox.
func machines(sandboxID id.Sandbox) []int {
	return processes("-name\x00guest="+string(sandboxID)+"\x00", "")
}

// qemuOf is the machine's process of a sandbox, allocationOf its allocation's.
func (r *rig) qemuOf(sandboxID id.Sandbox) int {
	r.t.Helper()
	pids := machines(sandboxID)
	require.Len(r.t, pids, 1)
	return pids[0]
}

func (r *rig) allocationOf(sandboxID id.Sandbox) int {
	r.t.Helper()
	found := processes("ambit-node\x00sandbox", "NOMAD_META_sandbox="+string(sandboxID))
	require.Len(r.t, found, 1)
	return found[0]
}

func kill9(t testing.TB, pid int) {
	t.Helper()
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
}

// requireNothingLeft checks that no process of this rig lives, and that its run
// folder is empty but for the node service's socket.
func (r *rig) requireNothingLeft() {
	r.t.Helper()
	r.eventually(10*time.Second, "no process is left", func() bool { return len(processes("", r.runRoot)) == 0 })
	for _, e := range r.endings() {
		require.Empty(r.t, machines(e.Sandbox))
	}
	// What a killed allocation left is the sweep's, which the node service does
	// every few seconds and at its start.
	require.NoError(r.t, node.Sweep(r.runRoot, r.log))
	entries, err := os.ReadDir(r.runRoot)
	require.NoError(r.t, err)
	for _, e := range entries {
		if e.Name() != "node.sock" {
			r.t.Errorf("left in the run folder: %s", e.Name())
		}
	}
}

// showLogs prints what the allocations and the node service said.
func (r *rig) showLogs() {
	logs, _ := filepath.Glob("/tmp/nomad-test-*/data/alloc/*/alloc/logs/*.std*")
	more, _ := filepath.Glob("/tmp/NomadClient*/*/alloc/logs/*.std*")
	for _, l := range append(logs, more...) {
		if strings.HasSuffix(l, ".fifo") {
			continue // reading one waits for ever
		}
		if b, err := os.ReadFile(l); err == nil && len(b) > 0 {
			if len(b) > 3000 {
				b = b[len(b)-3000:]
			}
			r.t.Logf("== %s\n%s", filepath.Base(l), b)
		}
	}
}
