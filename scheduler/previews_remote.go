package scheduler

import (
	"bufio"
	"context"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/journal"
)

// previewsPath is where a worker serves the previews of its sessions, below its internal address.
const previewsPath = "/internal/previews/"

// previewsPing keeps an idle connection from being taken for a dead one.
const previewsPing = 15 * time.Second

// PreviewsHandler serves the previews of this process's sessions to other replicas, one JSON object a line. token is what they show.
func (p *Previews) PreviewsHandler(token string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte("Bearer "+token)) != 1 {
			http.Error(w, "not one of ours", http.StatusUnauthorized)
			return
		}
		session, err := id.Parse[id.Session](r.URL.Path[len(previewsPath):])
		if err != nil {
			http.Error(w, "no such session", http.StatusNotFound)
			return
		}
		pieces := p.Watch(r.Context(), session)
		out := http.NewResponseController(w)
		enc := json.NewEncoder(w)
		ping := time.NewTicker(previewsPing)
		defer ping.Stop()
		_ = out.Flush()
		for {
			select {
			case piece, open := <-pieces:
				if !open || enc.Encode(piece) != nil {
					return
				}
			case <-ping.C:
				if _, err := w.Write([]byte("\n")); err != nil {
					return
				}
			case <-r.Context().Done():
				return
			}
			if out.Flush() != nil {
				return
			}
		}
	})
}

// FetchPreviews reads previews from the worker at a lease's address, as PreviewsHandler serves them.
func FetchPreviews(client *http.Client, token string) RemotePreviews {
	return func(ctx context.Context, address string, session id.Session, to func(Preview)) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address+previewsPath+string(session), http.NoBody)
		if err != nil {
			return fmt.Errorf("ask for previews: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := client.Do(req)
		if err != nil {
			return fmt.Errorf("ask for previews: %w", err)
		}
		defer resp.Body.Close() //nolint:errcheck // read until it ends
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("ask for previews: %s", resp.Status)
		}
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			if len(lines.Bytes()) == 0 {
				continue
			}
			var piece Preview
			if err := json.Unmarshal(lines.Bytes(), &piece); err != nil {
				return fmt.Errorf("read a preview: %w", err)
			}
			to(piece)
		}
		return lines.Err()
	}
}

// follow reads the session's previews from whichever other process has its lease, for as long as ctx lives. While somebody of this
// process has it, or nobody, it waits for the next commit to the journal.
func (s *Service) follow(ctx context.Context, session journal.Session, to func(Preview)) {
	hints, done := s.Watch(session.ID)
	defer done()
	for ctx.Err() == nil {
		if got, err := s.Get(ctx, session.Org, session.ID); err == nil && got.LeaseAddress != "" && got.LeaseAddress != s.previews.self {
			if err := s.previews.remote(ctx, got.LeaseAddress, session.ID, to); err != nil && ctx.Err() == nil {
				s.log.DebugContext(ctx, "previews of a session are out of reach; its events are not", "session", session.ID, "error", err)
			}
		}
		select {
		case <-ctx.Done():
		case <-hints:
		}
	}
}
