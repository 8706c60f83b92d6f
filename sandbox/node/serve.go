package node

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"ambit.dev/ambit/sandbox/bridge"
	"ambit.dev/ambit/sandbox/guest"
)

// The states of a machine as a ping tells them.
const (
	stateWarm    = "warm"
	stateRunning = "running"
	statePaused  = "paused"
)

// maxConnections bounds what one sandbox serves at a time.
const maxConnections = 64

// carriage is one connection that is being carried to the guest.
type carriage struct {
	epoch  int64
	use    bridge.Use
	cancel context.CancelCauseFunc
}

var errSuperseded = errors.New("a newer lease of the session has taken over")

// serve answers workers until ctx ends.
func (a *allocation) serve(ctx context.Context, listener net.Listener) {
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	slots := make(chan struct{}, maxConnections)
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := listener.Accept()
		if err != nil {
			if ctx.Err() == nil {
				a.log.ErrorContext(ctx, "listening for workers failed", "error", err)
			}
			return
		}
		select {
		case slots <- struct{}{}:
		default:
			_ = conn.Close()
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer stop()
			a.answer(ctx, conn)
		})
	}
}

func (a *allocation) answer(ctx context.Context, conn net.Conn) {
	in, err := bridge.Receive(ctx, conn, a.verifier)
	if err != nil {
		a.log.WarnContext(ctx, "a connection was refused", "error", err)
		return
	}
	if refusal := a.admit(in.Claims); refusal != nil {
		a.log.InfoContext(ctx, "an operation was refused", "use", in.Claims.Use, "code", refusal.Code, "because", refusal.Message)
		in.Refuse(refusal.Code, refusal.Message)
		return
	}
	if in.Claims.Use.Guest() {
		a.carry(ctx, in)
		return
	}
	a.control(ctx, in)
}

// system says whether a use is the control plane's own, which acts for the
// instance and not under a session's lease.
func system(u bridge.Use) bool {
	switch u {
	case bridge.UsePing, bridge.UseSeal, bridge.UseEnd, bridge.UseSave, bridge.UseRead, bridge.UseMetrics, bridge.UsePause, bridge.UseResume:
		return true
	default:
		return false
	}
}

// admit checks a verified token against what this sandbox is: whose it is,
// which lease it has seen, whether it is sealed. A higher epoch cuts off
// whatever a lower one still has open.
func (a *allocation) admit(c bridge.Claims) *bridge.Refusal {
	a.mu.Lock()
	defer a.mu.Unlock()
	select {
	case <-a.machine.Done():
		return &bridge.Refusal{Code: bridge.CodeEnded, Message: "the machine has ended"}
	default:
	}
	unbound := c.Use == bridge.UseClaim || c.Use == bridge.UsePing || c.Use == bridge.UseEnd
	switch {
	case a.session == "" && !unbound:
		return &bridge.Refusal{Code: bridge.CodeState, Message: "no session has claimed this sandbox"}
	case a.session != "" && c.Session != a.session:
		return &bridge.Refusal{Code: bridge.CodeState, Message: "another session has this sandbox"}
	case c.Epoch == 0 && !system(c.Use):
		return &bridge.Refusal{Code: bridge.CodeToken, Message: "the token names no epoch"}
	case c.Epoch != 0 && c.Epoch < a.epoch:
		return &bridge.Refusal{Code: bridge.CodeFenced, Message: errSuperseded.Error()}
	case a.sealed && !system(c.Use):
		return &bridge.Refusal{Code: bridge.CodeSealed, Message: "the sandbox is being saved for its end"}
	}
	if c.Use.Guest() && a.paused {
		return &bridge.Refusal{Code: bridge.CodeState, Message: "the machine is paused"}
	}
	if c.Epoch > a.epoch {
		a.epoch = c.Epoch
		for open := range a.carried {
			if open.epoch != 0 && open.epoch < c.Epoch {
				open.cancel(errSuperseded)
			}
		}
	}
	return nil
}

// carry lets the worker speak to the guest, within what its token admits.
func (a *allocation) carry(ctx context.Context, in *bridge.Incoming) {
	client, err := a.guest(ctx)
	if err != nil {
		a.log.ErrorContext(ctx, "the guest does not answer", "error", err)
		// Mostly because its machine has just died.
		select {
		case <-a.machine.Done():
			in.Refuse(bridge.CodeEnded, "the machine has ended")
		case <-time.After(500 * time.Millisecond):
			in.Refuse(bridge.CodeSilent, "the guest does not answer")
		}
		return
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	one := &carriage{epoch: in.Claims.Epoch, use: in.Claims.Use, cancel: cancel}
	a.mu.Lock()
	// Between admit and here a newer lease or a seal may have come.
	if (one.epoch != 0 && one.epoch < a.epoch) || (a.sealed && !system(one.use)) {
		a.mu.Unlock()
		in.Refuse(bridge.CodeFenced, errSuperseded.Error())
		return
	}
	a.carried[one] = struct{}{}
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		delete(a.carried, one)
		a.mu.Unlock()
	}()
	conn, err := in.Accept()
	if err != nil {
		return
	}
	err = client.RelayOnly(ctx, conn, func(req guest.Request) error {
		// Asked for every stream: a connection may outlive its lease.
		if cause := context.Cause(ctx); cause != nil {
			return guest.Errorf(guest.CodeStaleEpoch, "%s", cause)
		}
		return in.Claims.Allows(req)
	})
	if err != nil && ctx.Err() == nil {
		a.log.DebugContext(ctx, "a carried connection ended", "use", one.use, "error", err)
	}
}

// control answers what is for the allocation itself.
func (a *allocation) control(ctx context.Context, in *bridge.Incoming) {
	var answer any
	var err error
	switch in.Claims.Use {
	case bridge.UseClaim:
		answer, err = a.claim(ctx, in)
	case bridge.UsePing:
		answer = a.status(ctx)
	case bridge.UseSeal:
		answer, err = a.seal(ctx, in)
	case bridge.UsePause:
		err = a.setPaused(ctx, in, true)
	case bridge.UseResume:
		err = a.setPaused(ctx, in, false)
	case bridge.UseEnd:
		answer, err = a.end(ctx, in)
		defer a.letGo()
	default:
		err = &bridge.Refusal{Code: bridge.CodeToken, Message: "not a use that this sandbox knows"}
	}
	if err != nil {
		var refusal *bridge.Refusal
		if !errors.As(err, &refusal) {
			a.log.ErrorContext(ctx, "a control operation failed", "use", in.Claims.Use, "error", err)
			refusal = &bridge.Refusal{Code: bridge.CodeInternal, Message: "see the allocation's log"}
		}
		in.Refuse(refusal.Code, refusal.Message)
		return
	}
	if err := in.Answer(answer); err != nil {
		a.log.WarnContext(ctx, "an answer did not arrive", "use", in.Claims.Use, "error", err)
	}
}

// claim binds the machine to the token's session, lets it run, and configures
// its guest. A repeated claim of the same session only passes its epoch on.
func (a *allocation) claim(ctx context.Context, in *bridge.Incoming) (*bridge.ClaimAnswer, error) {
	var req bridge.ClaimRequest
	if err := in.Body(&req); err != nil {
		return nil, err
	}
	in.Unhurried()
	a.claiming.Lock()
	defer a.claiming.Unlock()
	a.mu.Lock()
	if a.session != "" && a.session != in.Claims.Session {
		a.mu.Unlock()
		return nil, &bridge.Refusal{Code: bridge.CodeState, Message: "another session has this sandbox"}
	}
	answer := &bridge.ClaimAnswer{Fresh: a.session == ""}
	a.session = in.Claims.Session
	a.mu.Unlock()

	began := time.Now()
	if err := a.machine.Resume(ctx); err != nil {
		return nil, err
	}
	a.mu.Lock()
	a.paused = false
	a.mu.Unlock()
	answer.ResumeTook = time.Since(began)
	client, err := a.guest(ctx)
	if err != nil {
		return nil, err
	}
	began = time.Now()
	info, err := client.Configure(ctx, guest.Configuration{
		SandboxID: a.cfg.SandboxID, Token: req.GatewayToken, Env: req.Env, Epoch: in.Claims.Epoch, DiskMiB: req.DiskMiB,
		Hostname: hostname,
	})
	if err != nil {
		return nil, err
	}
	answer.ConfigTook = time.Since(began)
	answer.GuestKernel = info.Kernel
	return answer, nil
}

func (a *allocation) status(ctx context.Context) bridge.Status {
	a.mu.Lock()
	s := bridge.Status{State: stateRunning, Epoch: a.epoch, Sealed: a.sealed, Active: a.activeLocked()}
	switch {
	case a.session == "":
		s.State = stateWarm
	case a.paused:
		s.State = statePaused
	}
	a.mu.Unlock()
	if m, err := a.machine.Metrics(ctx); err == nil {
		s.RSSBytes, s.PSSBytes, s.CPUSeconds = m.RSSBytes, m.PSSBytes, int64(m.CPU/time.Second)
	}
	return s
}

// activeLocked counts what is under way for the session; a person who looks at
// files does not keep a sandbox alive.
func (a *allocation) activeLocked() (n int) {
	for c := range a.carried {
		switch c.use {
		case bridge.UseRead, bridge.UseMetrics:
		default:
			n++
		}
	}
	return n
}

// seal closes the machine to changes. What is under way is cut off, unless the
// caller wanted it idle. Commands in the guest go on; the save freezes them.
func (a *allocation) seal(ctx context.Context, in *bridge.Incoming) (any, error) {
	var req bridge.SealRequest
	if err := in.Body(&req); err != nil {
		return nil, err
	}
	busy := func() *bridge.Refusal {
		return &bridge.Refusal{Code: bridge.CodeBusy, Message: "a command is running"}
	}
	a.mu.Lock()
	if req.Release {
		a.sealed = false
		a.mu.Unlock()
		return struct{}{}, nil
	}
	if req.IfIdle && a.activeLocked() > 0 {
		a.mu.Unlock()
		return nil, busy()
	}
	was := a.sealed
	a.sealed = true
	if !req.IfIdle {
		for open := range a.carried {
			if !system(open.use) {
				open.cancel(errors.New("the sandbox is being saved for its end"))
			}
		}
	}
	paused := a.paused
	a.mu.Unlock()
	if !req.IfIdle || paused {
		return struct{}{}, nil
	}
	// A command may run with nobody attached: its worker died, and a new one
	// will come for the result.
	if report := a.beat(ctx); report.Commands > 0 && !was {
		a.mu.Lock()
		a.sealed = false
		a.mu.Unlock()
		return nil, busy()
	}
	return struct{}{}, nil
}

func (a *allocation) setPaused(ctx context.Context, in *bridge.Incoming, pause bool) error {
	var req struct{}
	if err := in.Body(&req); err != nil {
		return err
	}
	a.claiming.Lock()
	defer a.claiming.Unlock()
	if pause {
		if err := a.machine.Pause(ctx); err != nil {
			return err
		}
	} else if err := a.machine.Resume(ctx); err != nil {
		return err
	}
	a.mu.Lock()
	a.paused = pause
	a.mu.Unlock()
	if pause {
		return nil
	}
	client, err := a.guest(ctx)
	if err != nil {
		return err
	}
	return client.SetClock(ctx)
}

// letGo lets the process end, after the one who asked for it has the answer.
func (a *allocation) letGo() {
	a.mu.Lock()
	reason := a.ending
	a.mu.Unlock()
	if reason == "" {
		return
	}
	select {
	case a.ended <- reason:
	default:
	}
}

// end kills the machine and proves it; the process follows.
func (a *allocation) end(ctx context.Context, in *bridge.Incoming) (*bridge.EndAnswer, error) {
	var req bridge.EndRequest
	if err := in.Body(&req); err != nil {
		return nil, err
	}
	in.Unhurried()
	// First the reason: the machine's end must not be taken for a crash.
	a.mu.Lock()
	a.ending = req.Reason
	a.mu.Unlock()
	if err := a.machine.Kill(ctx); err != nil {
		return nil, err
	}
	exit := a.machine.Exit()
	return &bridge.EndAnswer{PID: a.machine.PID(), GoneAt: exit.At.UTC(), Detail: exit.Detail}, nil
}
