package agent

import (
	"errors"
	"io"
	"syscall"

	"ambit.dev/ambit/sandbox/guest"
)

func (s *Server) exec(x *exchange, req guest.ExecRequest) (any, error) {
	if err := checkExec(&req); err != nil {
		return nil, err
	}
	if err := s.identity.fence(req.Epoch); err != nil {
		return nil, err
	}
	e, fresh, err := s.effects.claim(req)
	if err != nil {
		return nil, err
	}
	if fresh {
		if err := s.launch(e, req); err != nil {
			s.fail(e, req, err)
		}
	}
	return s.follow(x, e, !fresh, req.OutputLimit)
}

// fail settles an effect that could not be started for a reason of the guest's
// own (no memory, no file descriptors). The key is spent all the same: whoever
// waits on it, and whoever asks again, gets the same answer.
func (s *Server) fail(e *effect, req guest.ExecRequest, err error) {
	s.log.Error("a command could not be started", "effect", e.key, "error", err)
	if e.spool == nil {
		e.spool = &spool{changed: make(chan struct{}), closed: true, evicted: true}
		close(e.ready)
	}
	e.spool.add(guest.Stderr, []byte("ambit: the sandbox could not start the command\n"))
	s.conclude(e, exitStatus{status: 126 << 8}, req)
}

func (s *Server) attach(x *exchange, req guest.AttachRequest) (any, error) {
	if req.OutputLimit < 0 {
		return nil, guest.Errorf(guest.CodeInvalid, "output limit is out of range")
	}
	if err := s.identity.fence(req.Epoch); err != nil {
		return nil, err
	}
	e, err := s.effects.find(req.EffectKey)
	if err != nil {
		return nil, err
	}
	limit := req.OutputLimit
	if limit == 0 {
		limit = e.limit
	}
	return s.follow(x, e, true, limit)
}

// follow streams a command's output from its start, and returns its result. It
// ends early when the client goes away; the command does not.
func (s *Server) follow(x *exchange, e *effect, again bool, limit int64) (any, error) {
	ctx := x.ctx
	st := guest.Started{EffectKey: e.key, Reattached: again, Running: !e.ended(), StartedAt: e.started}
	if err := guest.WriteJSON(x.w, guest.FrameStarted, st); err != nil {
		return nil, err
	}
	// A second client may find an effect whose spool is being made.
	select {
	case <-e.ready:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	r, err := e.spool.reader()
	if err != nil {
		return nil, err
	}
	defer r.close()
	var streamed int64
	for streamed < limit {
		state := e.spool.state()
		stream, p, err := r.next(state)
		if errors.Is(err, errSpoolWait) {
			select {
			case <-state.changed:
				continue
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		p = p[:min(int64(len(p)), limit-streamed)]
		t := guest.FrameStdout
		if stream == guest.Stderr {
			t = guest.FrameStderr
		}
		if err := guest.WriteFrame(x.w, t, p); err != nil {
			return nil, err
		}
		streamed += int64(len(p))
	}
	select {
	case <-e.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	e.mu.Lock()
	res := *e.result
	e.mu.Unlock()
	res.Streamed = streamed
	res.Dropped = e.spool.state().dropped
	if streamed < res.StdoutBytes+res.StderrBytes {
		res.Truncated = true
		res.Tail = e.spool.last()
	}
	return res, nil
}

func (s *Server) signal(_ *exchange, req guest.SignalRequest) (any, error) {
	if req.Signal < 1 || req.Signal > 31 {
		return nil, guest.Errorf(guest.CodeInvalid, "signal must be 1 to 31")
	}
	if err := s.identity.fence(req.Epoch); err != nil {
		return nil, err
	}
	e, err := s.effects.find(req.EffectKey)
	if err != nil {
		return nil, err
	}
	if syscall.Signal(req.Signal) == syscall.SIGKILL {
		e.kill()
		return struct{}{}, nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.pid != 0 {
		_ = syscall.Kill(-e.pid, syscall.Signal(req.Signal))
	}
	return struct{}{}, nil
}

func (s *Server) readOutput(x *exchange, req guest.ReadOutputRequest) (any, error) {
	if req.Offset < 0 || req.Limit < 0 || req.Limit > guest.MaxRead {
		return nil, guest.Errorf(guest.CodeInvalid, "offset or limit is out of range")
	}
	if req.Limit == 0 {
		req.Limit = guest.MaxRead
	}
	e, err := s.effects.find(req.EffectKey)
	if err != nil {
		return nil, err
	}
	<-e.ready
	return struct{}{}, e.spool.copyText(frameWriter{x.w}, req.Offset, req.Limit)
}

// frameWriter writes data frames.
type frameWriter struct{ w io.Writer }

func (f frameWriter) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), 32<<10)
		if err := guest.WriteFrame(f.w, guest.FrameData, rest[:n]); err != nil {
			return len(p) - len(rest), err
		}
		rest = rest[n:]
	}
	return len(p), nil
}
