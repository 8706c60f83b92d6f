package server

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/go-jose/go-jose/v4"

	"ambit.dev/ambit/internal/blob"
	"ambit.dev/ambit/internal/config"
	"ambit.dev/ambit/internal/engines"
	"ambit.dev/ambit/nomad"
	"ambit.dev/ambit/sandbox"
)

// openSandboxes makes the sandbox service; a client only shows and ends what workers keep, and needs none of what runs on the nodes.
func (d *Domains) openSandboxes(client bool) error {
	cluster, err := nomad.New(nomad.Config{Address: string(d.Config.NomadAddr), Token: string(d.Config.NomadToken)}, d.Log)
	if err != nil {
		return err
	}
	blobs, err := blob.OpenDir(filepath.Join(d.Config.DataDir, "blobs"))
	if err != nil {
		return err
	}
	var node sandbox.NodeSetup
	if !client {
		if node, err = nodeSetup(d.Config); err != nil {
			return err
		}
	}
	d.Sandboxes, err = sandbox.New(sandbox.Options{
		Config: sandbox.Config{
			Warm: d.Config.WarmSandboxes, Max: d.Config.MaxSandboxes, ControlURL: string(d.Config.NodeURL),
			NodeToken: hex.EncodeToString(d.Sealer.Derive("sandbox/node_token")), Node: node,
		},
		Client: client, DB: d.DB, Gate: d.Gate, Nomad: cluster, Blobs: blobs, Signer: d.Identity, Clock: d.Clock, Log: d.Log,
		Keys: func(context.Context) (jose.JSONWebKeySet, error) { return d.Identity.Keys(), nil },
	})
	return err
}

// nodeSetup names what runs on the nodes. What the configuration leaves out is taken from the cache and from beside this program.
func nodeSetup(cfg config.Config) (sandbox.NodeSetup, error) {
	set, missing := engines.Find(context.Background(), engines.Options{CacheDir: cfg.CacheDir}, engines.QEMU, engines.Kernel, engines.Rootfs)
	pick := func(configured, found string) string {
		if configured != "" {
			return configured
		}
		return found
	}
	self, err := os.Executable()
	if err != nil {
		return sandbox.NodeSetup{}, fmt.Errorf("find this program's folder: %w", err)
	}
	beside := filepath.Dir(self)
	run := filepath.Join(os.TempDir(), "ambit-"+instanceName(cfg)) // short: unix sockets lie below it
	n := sandbox.NodeSetup{
		Binary: pick(cfg.NodeBinary, filepath.Join(beside, "ambit-node")), Guest: pick(cfg.GuestBinary, filepath.Join(beside, "ambit-guest")),
		QEMU: pick(cfg.QEMU, set.QEMU), Kernel: pick(cfg.KernelImage, set.Vmlinux), Modules: pick(cfg.KernelModules, set.KernelModules), Rootfs: pick(cfg.Rootfs, set.RootfsErofs),
		TemplatesDir: filepath.Join(cfg.CacheDir, "templates"), RunRoot: run, Socket: filepath.Join(run, "node.sock"),
	}
	if n.QEMU == "" || n.Kernel == "" || n.Modules == "" || n.Rootfs == "" {
		return n, fmt.Errorf("the sandboxes need %v; 'ambit engines' obtains them, or set AMBIT_QEMU, AMBIT_KERNEL, AMBIT_KERNEL_MODULES and AMBIT_ROOTFS", missing)
	}
	return n, nil
}

// instanceName tells the run folders of two installations on one machine apart.
func instanceName(cfg config.Config) string { return shortHash(cfg.DataDir) }

// sandboxReady is the check that a machine has been waiting, warm, at least once since the start: from then on a session can have one.
func (d *Domains) sandboxReady() func(context.Context) error {
	var once atomic.Bool
	return func(ctx context.Context) error {
		if once.Load() || d.Config.WarmSandboxes == 0 {
			return nil
		}
		warm, err := d.Sandboxes.Warm(ctx)
		if err != nil {
			return errors.New("the pool of sandboxes can't be read")
		}
		if warm == 0 {
			return errors.New("no sandbox is warm yet")
		}
		once.Store(true)
		return nil
	}
}

// nodeHandler is what nodes, sandboxes and other replicas reach on the internal listener.
func (d *Domains) nodeHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/internal/", d.Sandboxes.Handler())
	mux.Handle("GET /internal/previews/{session}", d.Previews.PreviewsHandler(d.previewsToken()))
	mux.HandleFunc("GET /.well-known/jwks.json", d.serveKeys)
	return mux
}

func (d *Domains) serveKeys(w http.ResponseWriter, _ *http.Request) {
	keys, err := d.Identity.JWKS()
	if err != nil {
		http.Error(w, "the keys can't be read", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.Header().Set("Cache-Control", "public, max-age=300")
	_, _ = w.Write(keys)
}
