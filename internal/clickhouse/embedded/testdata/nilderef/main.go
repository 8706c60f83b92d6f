// Command nilderef runs the embedded engine and, beside its queries, recovers
// from one nil dereference after the other. It ends with 0 only if Go's signal
// handlers outlive the engine's loading and each of its connections.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"ambit.dev/ambit/internal/clickhouse/embedded"
)

func main() {
	lib := flag.String("lib", "", "path of libchdb.so")
	dir := flag.String("dir", "", "directory to work in")
	flag.Parse()
	if err := run(*lib, *dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(lib, dir string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	socket := filepath.Join(dir, "s.sock")
	served := make(chan error, 1)
	go func() {
		served <- embedded.Serve(ctx, embedded.Options{Lib: lib, DataDir: filepath.Join(dir, "data"), Socket: socket})
	}()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}

	var queries, derefs atomic.Int64
	until := time.Now().Add(3 * time.Second)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for time.Now().Before(until) {
				resp, err := client.Get("http://engine/ping") //nolint:noctx // ends with the process
				if err != nil {
					continue // not up yet
				}
				_ = resp.Body.Close()
				if resp.StatusCode == http.StatusOK {
					queries.Add(1)
				}
			}
		})
	}
	for range 2 {
		wg.Go(func() {
			for time.Now().Before(until) {
				deref(nil)
				derefs.Add(1)
				time.Sleep(50 * time.Microsecond)
			}
		})
	}
	wg.Wait()
	cancel()
	if err := <-served; err != nil {
		return err
	}
	if queries.Load() == 0 {
		return fmt.Errorf("no query was answered")
	}
	fmt.Printf("%d queries, %d nil dereferences\n", queries.Load(), derefs.Load())
	return nil
}

func deref(p *int) {
	defer func() { _ = recover() }()
	*p = 1
}
