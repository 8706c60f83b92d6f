// Package provider is a model provider outside of Ambit, for tests: OpenAI-shaped, with a log of its own.
package provider

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Provider answers chat completions, and keeps a log of which effect keys reached it, and in which order.
type Provider struct {
	*httptest.Server

	mu    sync.Mutex
	calls []string // Idempotency-Key of each request, in order
	// hold keeps answers back until it is closed.
	hold chan struct{}
	// misbehave may answer in place of the provider; it returns false to leave the answer to it.
	misbehave func(w http.ResponseWriter, r *http.Request) bool
	scripts   map[string]*script
}

// New starts a provider, and ends it with the test.
func New(t testing.TB) *Provider {
	t.Helper()
	p := &Provider{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"object":"list","data":[{"id":"parrot","object":"model"},{"id":"magpie","object":"model"}]}`)
	})
	mux.HandleFunc("POST /v1/chat/completions", p.complete)
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Server.CloseClientConnections)
	t.Cleanup(p.Server.Close)
	return p
}

func (p *Provider) complete(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.calls = append(p.calls, r.Header.Get("Idempotency-Key"))
	hold, misbehave := p.hold, p.misbehave
	p.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-r.Context().Done():
			return
		}
	}
	if misbehave != nil && misbehave(w, r) {
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || p.perform(w, r, body) {
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	for _, data := range []string{
		`{"id":"c1","object":"chat.completion.chunk","model":"parrot-1","choices":[{"index":0,"delta":{"role":"assistant","content":"Hello from "},"finish_reason":null}]}`,
		`{"id":"c1","object":"chat.completion.chunk","model":"parrot-1","choices":[{"index":0,"delta":{"content":"outside."},"finish_reason":null}]}`,
		`{"id":"c1","object":"chat.completion.chunk","model":"parrot-1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`,
		`{"id":"c1","object":"chat.completion.chunk","model":"parrot-1","choices":[],"usage":{"prompt_tokens":11,"completion_tokens":4,"total_tokens":15}}`,
		`[DONE]`,
	} {
		fmt.Fprintf(w, "data: %s\n\n", data)
	}
}

// Set changes how the provider behaves from the next request on.
func (p *Provider) Set(hold chan struct{}, misbehave func(http.ResponseWriter, *http.Request) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hold, p.misbehave = hold, misbehave
}

// Keys are the effect keys of all requests so far, in their order.
func (p *Provider) Keys() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string{}, p.calls...)
}

// WaitForCall waits until a request beyond the first n has come in.
func (p *Provider) WaitForCall(t testing.TB, n int) {
	t.Helper()
	require.Eventually(t, func() bool { return len(p.Keys()) > n }, 30*time.Second, 20*time.Millisecond, "no further model call reached the provider")
}

// Environment makes an instance use the provider, with further entries of its price table.
func (p *Provider) Environment(t testing.TB, prices ...string) []string {
	t.Helper()
	entries := append([]string{
		`{"kind":"model","ref":"openai/parrot","aliases":["openai/magpie"],"effective_from":"2026-01-01T00:00:00Z","nanos":{"input_token":100,"output_token":1000}}`,
	}, prices...)
	file := filepath.Join(t.TempDir(), "prices.json")
	require.NoError(t, os.WriteFile(file, []byte(`{"version":"test","currency":"USD","entries":[`+strings.Join(entries, ",")+`]}`), 0o600))
	return []string{"AMBIT_OPENAI_BASE_URL=" + p.URL + "/v1", "AMBIT_PRICES_FILE=" + file}
}
