package httpx

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

// Check examines one part that this process cannot serve without. Its error is shown to whoever asks /readyz, so it must hold no secret.
type Check struct {
	Name string
	Run  func(ctx context.Context) error
}

// checkTimeout bounds each check: a load balancer asks every few seconds and must not be kept waiting by a part that hangs.
const checkTimeout = 2 * time.Second

// Healthz answers 200 as long as the process can answer at all: it is what decides on a restart, so it examines nothing else.
func Healthz() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeHealth(w, http.StatusOK, healthAnswer{Status: "ok"})
	})
}

// Readyz runs every check side by side and answers 200 when all pass and the process is not draining, else 503 with what failed.
func Readyz(draining <-chan struct{}, checks ...Check) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-draining:
			writeHealth(w, http.StatusServiceUnavailable, healthAnswer{Status: "draining"})
			return
		default:
		}
		ctx, cancel := context.WithTimeout(r.Context(), checkTimeout)
		defer cancel()
		results := make([]checkAnswer, len(checks))
		var wg sync.WaitGroup
		for i, c := range checks {
			wg.Go(func() {
				results[i] = checkAnswer{Name: c.Name, Status: "ok"}
				if err := c.Run(ctx); err != nil {
					results[i].Status, results[i].Error = "failed", err.Error()
				}
			})
		}
		wg.Wait()
		answer, status := healthAnswer{Status: "ok", Checks: results}, http.StatusOK
		for _, c := range results {
			if c.Status != "ok" {
				answer.Status, status = "failed", http.StatusServiceUnavailable
			}
		}
		writeHealth(w, status, answer)
	})
}

type healthAnswer struct {
	Status string        `json:"status"`
	Checks []checkAnswer `json:"checks,omitempty"`
}

type checkAnswer struct {
	Name   string `json:"name"`
	Status string `json:"status"`
	Error  string `json:"error,omitempty"`
}

func writeHealth(w http.ResponseWriter, status int, answer healthAnswer) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer) // the reader is gone; there is nobody to tell
}
