package sandbox

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/sandbox/bridge"
	"ambit.dev/ambit/sandbox/internal/sandboxdb"
)

// maxReport is the largest report, in bytes.
const maxReport = 64 << 10

// Handler answers the reports of allocations and node services. It belongs on
// the listener that nodes reach, never on a public one. Each report proves itself
// by a secret of its own; there is no session and no cookie here.
func (s *Service) Handler() http.Handler { return s.handler }

func (s *Service) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+bridge.ReadyPath, report(s, s.takeReady))
	mux.HandleFunc("POST "+bridge.HeartbeatPath, report(s, s.takeHeartbeat))
	mux.HandleFunc("POST "+bridge.StoppingPath, report(s, s.takeStopping))
	mux.HandleFunc("POST "+bridge.EndedPath, report(s, s.takeEnded))
	mux.HandleFunc("POST "+bridge.NodePath, report(s, s.takeNode))
	return mux
}

// errUnwanted answers 410: the sender is to end itself.
var errUnwanted = errors.New("not wanted any more")

// report decodes a report and turns the outcome into a status, the only thing
// that a sender looks at.
func report[T any](s *Service, take func(ctx context.Context, pathID, secret string, r T) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		secret, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok || len(secret) < 16 || len(secret) > 256 {
			http.Error(w, "no secret", http.StatusUnauthorized)
			return
		}
		var body T
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxReport)).Decode(&body); err != nil {
			http.Error(w, "not a report", http.StatusBadRequest)
			return
		}
		err := take(r.Context(), r.PathValue("id"), secret, body)
		switch {
		case err == nil:
			w.WriteHeader(http.StatusNoContent)
		case errors.Is(err, errUnwanted):
			http.Error(w, "not wanted", http.StatusGone)
		case fault.IsCode(err, "not_found"):
			http.Error(w, "not known", http.StatusNotFound)
		case fault.IsCode(err, "unauthenticated"):
			http.Error(w, "not accepted", http.StatusUnauthorized)
		case r.Context().Err() != nil: // the sender has given up, and will come again
		default:
			s.log.ErrorContext(r.Context(), "a report could not be taken", "path", r.URL.Path, "error", err)
			http.Error(w, "try again", http.StatusServiceUnavailable)
		}
	}
}

// takeReady notes a machine that waits. It is safe to repeat: the answer may be
// lost, and the machine may be claimed before the sender asks again.
func (s *Service) takeReady(ctx context.Context, pathID, secret string, r bridge.ReadyReport) error {
	sandboxID, err := id.Parse[id.Sandbox](pathID)
	if err != nil {
		return fault.NotFound()
	}
	if len(r.Token) < 32 || r.AllocID == "" || r.JobID == "" || r.NodeID == "" || r.Address == "" {
		return fault.NotFound()
	}
	if got, ok := s.sandboxOf(r.JobID); !ok || got != sandboxID {
		return fault.NotFound()
	}
	err = s.db.InWorkerTx(ctx, func(tx pgx.Tx) error {
		q := sandboxdb.New(tx)
		n, err := q.MarkReady(ctx, sandboxdb.MarkReadyParams{
			JobID: r.JobID, AllocID: r.AllocID, NodeID: r.NodeID, Address: r.Address, Driver: r.Driver, Accelerator: r.Accelerator,
			TokenHash: hashOf(r.Token), ID: sandboxID, SecretHash: hashOf(secret),
		})
		if err != nil || n > 0 {
			return err
		}
		_, err = q.FindByToken(ctx, sandboxdb.FindByTokenParams{ID: sandboxID, TokenHash: hashOf(r.Token)})
		return err
	})
	if err != nil {
		return err
	}
	s.failures.Store(0)
	s.log.InfoContext(ctx, "sandbox ready", "sandbox", sandboxID, "node", r.NodeID, "took", r.Took, "accelerator", r.Accelerator)
	s.line.poke()
	return nil
}

func (s *Service) takeHeartbeat(ctx context.Context, pathID, token string, r bridge.HeartbeatReport) error {
	return s.db.InWorkerTx(ctx, func(tx pgx.Tx) error {
		q := sandboxdb.New(tx)
		n, err := q.BeatWarm(ctx, sandboxdb.BeatWarmParams{ID: id.Sandbox(pathID), TokenHash: hashOf(token)})
		if err != nil || n > 0 {
			return err
		}
		state, err := q.BeatSandbox(ctx, sandboxdb.BeatSandboxParams{
			Busy: r.Active > 0 || r.Commands > 0, ID: id.Sandbox(pathID), TokenHash: hashOf(token),
		})
		if err != nil {
			return err
		}
		if state == "ended" {
			return errUnwanted
		}
		return nil
	})
}

// takeStopping saves and ends a machine whose node is about to stop it. The
// answer comes at once; the sender waits for its end.
func (s *Service) takeStopping(ctx context.Context, pathID, token string, _ struct{}) error {
	row, err := s.byToken(ctx, pathID, token)
	if err != nil {
		return err
	}
	if row.State == "ended" {
		return nil // its end is on the way
	}
	s.errand(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		if err := s.release(ctx, row, ReasonNodeStopping, false); err != nil {
			s.log.ErrorContext(ctx, "a stopping sandbox could not be saved", "sandbox", row.ID, "error", err)
		}
	})
	return nil
}

func (s *Service) byToken(ctx context.Context, pathID, token string) (row sandboxdb.Sandbox, err error) {
	err = s.db.InWorkerTx(ctx, func(tx pgx.Tx) (err error) {
		row, err = sandboxdb.New(tx).FindByToken(ctx, sandboxdb.FindByTokenParams{ID: id.Sandbox(pathID), TokenHash: hashOf(token)})
		return err
	})
	return row, err
}

// takeEnded records the end of a machine as its own allocation tells it.
func (s *Service) takeEnded(ctx context.Context, pathID, secret string, r bridge.EndedReport) error {
	sandboxID := id.Sandbox(pathID)
	if r.Reason == "" {
		return fault.NotFound()
	}
	var warm int64
	err := s.db.InWorkerTx(ctx, func(tx pgx.Tx) (err error) {
		warm, err = sandboxdb.New(tx).EndWarm(ctx, sandboxdb.EndWarmParams{ID: sandboxID, Proof: hashOf(secret)})
		return err
	})
	if err != nil {
		return err
	}
	if warm > 0 {
		if r.Reason != "stopped" {
			s.startFailed(ctx, sandboxID, r.Reason+": "+r.Detail, nil)
		}
		s.wantMore()
		return nil
	}
	row, err := s.byToken(ctx, pathID, secret)
	if err != nil {
		return err
	}
	if _, err := s.end(ctx, row.OrgID, sandboxID, r.Reason, r.Detail, nil); err != nil {
		return err
	}
	return s.noteGone(ctx, row.OrgID, Gone{Sandbox: sandboxID, At: r.GoneAt, By: "allocation", Detail: r.Detail})
}

func (s *Service) takeNode(ctx context.Context, nodeID, token string, r bridge.NodeReport) error {
	if subtle.ConstantTimeCompare(hashOf(token), hashOf(s.cfg.NodeToken)) != 1 {
		return fault.New(fault.Unauthenticated, "unauthenticated", "The node's token is not accepted.")
	}
	return s.reportNode(ctx, nodeID, r)
}
