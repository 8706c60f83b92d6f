package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/app/up"
	"ambit.dev/ambit/internal/clickhouse"
	"ambit.dev/ambit/internal/engines"
	"ambit.dev/ambit/internal/engines/nomadagent"
	"ambit.dev/ambit/internal/masterkey"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/sandbox/qemu"
)

func postgresAnswers(ctx context.Context, e *examination) []Finding {
	const part = "postgres"
	if !e.cfg.PostgresURL.IsSet() {
		return one(part, Skipped, "", "not asked: no instance runs, and none outside is configured")
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	conn, err := pgx.Connect(ctx, e.cfg.PostgresURL.Reveal())
	if err != nil {
		// pgx's text names host and user, never the password.
		return one(part, Failed, "look at the Postgres server, its address in AMBIT_POSTGRES_URL and its log", "does not answer: %v", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var number int
	var version string
	var theirs time.Time
	asked := time.Now()
	if err := conn.QueryRow(ctx, "SELECT current_setting('server_version_num')::int, current_setting('server_version'), clock_timestamp()").Scan(&number, &version, &theirs); err != nil {
		return one(part, Failed, "", "answers with an error: %v", err)
	}
	if number < 150000 {
		return one(part, Failed, "upgrade it to 15 or newer", "is version %s", version)
	}
	drift := theirs.Sub(asked.Add(time.Since(asked) / 2))
	if drift.Abs() > clockDrift {
		return one(part, Failed, "set both machines' clocks by a time service: leases depend on them", "its clock is %s away from this machine's", drift.Round(time.Millisecond))
	}
	have, want, err := postgres.SchemaVersion(ctx, e.cfg.PostgresURL.Reveal())
	if err != nil {
		return one(part, Failed, "", "its schema's version can't be read: %v", err)
	}
	return schema(part, "Postgres "+version, have, want)
}

// schema compares the version that a database has with the newest known here.
func schema(part, what string, have, want int64) []Finding {
	switch {
	case have > want:
		return one(part, Failed, "use the Ambit release that migrated it, or a newer one", "%s answers, but its schema is version %d and this release knows only %d", what, have, want)
	case have < want:
		return one(part, Warning, "the next start migrates it, or run: ambit migrate", "%s answers; its schema is version %d, this release's is %d", what, have, want)
	default:
		return one(part, OK, "", "%s answers; its schema is version %d, the newest", what, have)
	}
}

func clickhouseAnswers(ctx context.Context, e *examination) []Finding {
	const part = "clickhouse"
	if !e.cfg.ClickHouseURL.IsSet() {
		return one(part, Skipped, "", "not asked: no instance runs, and none outside is configured")
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	db, err := clickhouse.Open(ctx, up.ClickHouseConfig(e.cfg))
	if err != nil {
		return one(part, Failed, "look at the ClickHouse server and its address in AMBIT_CLICKHOUSE_URL; nothing is lost meanwhile, spans wait in Postgres", "does not answer: %v", err)
	}
	defer db.Close() //nolint:errcheck // it was only asked
	version, err := db.Version()
	if err != nil {
		return one(part, Failed, "", "answers with an error: %v", err)
	}
	have, want, err := db.SchemaVersion(ctx)
	if err != nil {
		return one(part, Failed, "", "its schema's version can't be read: %v", err)
	}
	return schema(part, "ClickHouse "+version, have, want)
}

func nomadAnswers(ctx context.Context, e *examination) []Finding {
	const part = "nomad"
	if !e.cfg.NomadAddr.IsSet() {
		return one(part, Skipped, "", "not asked: no instance runs, and none outside is configured")
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	address, token := e.cfg.NomadAddr.Reveal(), e.cfg.NomadToken.Reveal()
	version, err := nomadagent.Version(ctx, address, token)
	if err != nil {
		return one(part, Failed, "look at the Nomad server, AMBIT_NOMAD_ADDR and AMBIT_NOMAD_TOKEN", "does not answer: %v", err)
	}
	if err := nomadagent.NodeReady(ctx, address, token); err != nil {
		return one(part, Failed, "sandboxes need one ready, eligible node with the raw_exec driver: nomad node status", "Nomad %s answers, but %v", version, err)
	}
	return one(part, OK, "", "Nomad %s answers; a node is ready for sandboxes", version)
}

func serverAnswers(ctx context.Context, e *examination) []Finding {
	const part = "server"
	if !e.running {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+e.cfg.Listen+"/readyz", http.NoBody)
	if err != nil {
		return one(part, Failed, "", "%v", err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return one(part, Failed, "look at "+e.cfg.DataDir+"/logs/server.log", "does not answer: %v", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		return one(part, OK, "", "ready at http://%s", e.cfg.Listen)
	}
	var answer struct {
		Checks []struct{ Name, Status, Error string }
	}
	_ = json.NewDecoder(resp.Body).Decode(&answer)
	var bad []string
	for _, c := range answer.Checks {
		if c.Status != "ok" {
			bad = append(bad, c.Name+": "+c.Error)
		}
	}
	return one(part, Failed, "look at "+e.cfg.DataDir+"/logs/server.log", "answers %s %s", resp.Status, strings.Join(bad, "; "))
}

// masterKey opens the key if there is one. It must not ask seal for a key that
// is not there: seal would make it.
func masterKey(ctx context.Context, e *examination) []Finding {
	const part = "master key"
	if !e.cfg.MasterKey.IsSet() {
		if _, err := os.Stat(e.cfg.MasterKeyFile); errors.Is(err, fs.ErrNotExist) {
			return one(part, Skipped, "", "there is none yet; the first start makes %s", e.cfg.MasterKeyFile)
		}
	}
	s, err := masterkey.Open(ctx, e.cfg)
	if err != nil {
		return one(part, Failed, "put the key back from where you keep it: what it sealed can't be opened without", "%v", err)
	}
	return one(part, OK, "", "key %s; keep a copy of it apart from the backups", s.KeyID())
}

// sandboxBoots boots a kernel under QEMU.
func sandboxBoots(ctx context.Context, e *examination) []Finding {
	const part = "sandbox"
	set, missing := engines.Find(ctx, engines.Options{CacheDir: e.cfg.CacheDir}, engines.QEMU, engines.Kernel)
	if len(missing) > 0 && (e.cfg.QEMU == "" || e.cfg.KernelImage == "") {
		return one(part, Skipped, "", "not tried: QEMU or the kernel is missing")
	}
	cfg := qemu.Config{
		Binary: e.cfg.QEMU, Kernel: e.cfg.KernelImage, GuestBinary: e.cfg.GuestBinary, Log: slog.New(slog.DiscardHandler),
		// The node service believes what is found here at its next start.
		ProbeCache: filepath.Join(e.cfg.CacheDir, "templates", qemu.ProbeFile), ProbeAnew: true,
	}
	if cfg.Binary == "" {
		cfg.Binary = set.QEMU
	}
	if cfg.Kernel == "" {
		cfg.Kernel = set.Vmlinux
	}
	ctx, cancel := context.WithTimeoutCause(ctx, bootLimit, fmt.Errorf("nothing booted within %s", bootLimit))
	defer cancel()
	d, err := qemu.New(cfg)
	if err != nil {
		return one(part, Failed, "", "%v", err)
	}
	result, err := d.Probe(ctx)
	if err != nil {
		return one(part, Failed, "look at the memory and at QEMU's package; AMBIT_KERNEL and AMBIT_GUEST must fit together", "no machine boots: %v", err)
	}
	return one(part, OK, "", "a machine boots: %s", result.Detail)
}
