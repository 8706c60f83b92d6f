package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/internal/canonical"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/sandbox/bridge"
	"ambit.dev/ambit/sandbox/guest"
	"ambit.dev/ambit/sandbox/internal/sandboxdb"
)

// ExecSpec is one command. Either Argv or Script is set; see guest.ExecRequest
// for each field's meaning, default and limit.
type ExecSpec struct {
	Argv        []string          `json:"argv,omitempty"`
	Script      string            `json:"script,omitempty"`
	Cwd         string            `json:"cwd,omitempty"`
	Env         map[string]string `json:"env,omitempty"`
	Stdin       []byte            `json:"stdin,omitempty"`
	TimeLimit   time.Duration     `json:"time_limit_ns,omitempty"`
	OutputLimit int64             `json:"output_limit,omitempty"`
	KeepLimit   int64             `json:"keep_limit,omitempty"`
}

// Digest is what an admission of this command by itself (gate.Exec) is bound to.
func (e ExecSpec) Digest() (gate.Digest, error) {
	d, err := canonical.Digest(e)
	if err != nil {
		return gate.Digest{}, fmt.Errorf("digest a command: %w", err)
	}
	return d, nil
}

// ExecResult is how a command ended.
type ExecResult = guest.ExecResult

// Output receives a command's output as it comes. The chunk's data is only valid
// during the call. After a reattachment nothing is passed twice.
type Output func(guest.Chunk) error

// Effect is an admitted effect in a sandbox. What is done through it carries its
// effect key and epoch, so that the guest runs a command at most once for it and
// refuses a superseded worker.
type Effect struct {
	b     *Sandbox
	grant gate.Grant
}

// Begin consumes an admission. kind and digest are those of the proposal: a
// built-in tool passes the digest of its own arguments and then does what they
// say. The admission must be of this sandbox's session and epoch.
func (b *Sandbox) Begin(adm *gate.Admission, kind gate.Kind, digest gate.Digest) (*Effect, error) {
	grant, err := adm.Consume(kind, digest)
	if err != nil {
		return nil, err
	}
	if grant.Org != b.Org || grant.Session != b.Session {
		return nil, errors.New("the admission is of another session than the sandbox")
	}
	if grant.Epoch != b.Epoch {
		return nil, ErrFenced
	}
	return &Effect{b: b, grant: grant}, nil
}

// Exec runs one command under an admission of kind gate.Exec that is bound to
// the command's own digest, and waits for its end.
func (b *Sandbox) Exec(ctx context.Context, adm *gate.Admission, spec ExecSpec, out Output) (*ExecResult, error) {
	digest, err := spec.Digest()
	if err != nil {
		return nil, err
	}
	effect, err := b.Begin(adm, gate.Exec, digest)
	if err != nil {
		return nil, err
	}
	return effect.Exec(ctx, spec, out)
}

// EffectKey is the key under which the guest keeps the result.
func (e *Effect) EffectKey() string { return e.grant.EffectKey }

// Exec runs one command and waits for its end. Of one effect there is one
// command: a second, different one is refused by the guest. When ctx ends, the
// command goes on: end it with Signal, or attach to it again. ErrLost means that
// the machine is gone and the outcome unknown; a *guest.Error is the guest's own
// refusal, and then nothing was run.
func (e *Effect) Exec(ctx context.Context, spec ExecSpec, out Output) (*ExecResult, error) {
	b := e.b
	done := b.using(ctx)
	defer done()
	req := guest.ExecRequest{
		EffectKey: e.grant.EffectKey, Epoch: e.grant.Epoch, Argv: spec.Argv, Script: spec.Script, Cwd: spec.Cwd, Env: spec.Env,
		Stdin: spec.Stdin, TimeLimit: spec.TimeLimit, OutputLimit: spec.OutputLimit, KeepLimit: spec.KeepLimit,
	}
	// Asking again under the same key attaches to what the first request began,
	// if it arrived.
	return b.persist(ctx, bridge.UseExec, e.grant.EffectKey, out, func(c *guest.Client) (*guest.Command, error) {
		return c.Exec(ctx, req)
	})
}

// Attach attaches to a command that this session started before, possibly by a
// worker that is gone, passes its output from the start, and waits for its end.
// It starts nothing and so needs no admission. guest.CodeEffectUnknown when this
// machine never ran it.
func (b *Sandbox) Attach(ctx context.Context, effectKey string, out Output) (*ExecResult, error) {
	done := b.using(ctx)
	defer done()
	return b.persist(ctx, bridge.UseAttach, effectKey, out, func(c *guest.Client) (*guest.Command, error) {
		return c.Attach(ctx, guest.AttachRequest{EffectKey: effectKey, Epoch: b.Epoch})
	})
}

// persist watches a command to its end, and comes back to it when the connection
// breaks. ErrLost when it cannot.
func (b *Sandbox) persist(
	ctx context.Context, use bridge.Use, effectKey string, out Output, begin func(*guest.Client) (*guest.Command, error),
) (*ExecResult, error) {
	const attempts = 5
	var seen int64
	var broke error
	for i := range attempts {
		if err := b.s.clock.Sleep(ctx, time.Duration(i*i)*50*time.Millisecond); err != nil {
			return nil, err
		}
		res, err := b.watch(ctx, use, effectKey, &seen, out, begin)
		if errors.Is(err, ErrLost) && b.refused(ctx) {
			return nil, ErrEnding.Because(err)
		}
		if !errors.Is(err, guest.ErrDisconnected) {
			return res, err
		}
		broke = err
	}
	return nil, ErrLost.Because(broke)
}

// refused says that the machine was ended because its time was refused: then its files were saved.
func (b *Sandbox) refused(ctx context.Context) bool {
	var row sandboxdb.Sandbox
	err := b.s.db.InTx(context.WithoutCancel(ctx), b.Org, func(tx pgx.Tx) (err error) {
		row, err = sandboxdb.New(tx).GetSandbox(ctx, sandboxdb.GetSandboxParams{OrgID: b.Org, ID: b.ID})
		return err
	})
	if err != nil || row.EndReason == nil || row.LastSavedAt == nil {
		return false
	}
	return *row.EndReason == ReasonBudget || *row.EndReason == ReasonNotPermitted
}

// watch opens a connection, starts or attaches to a command, and passes on its
// output beyond the seen bytes until its end.
func (b *Sandbox) watch(
	ctx context.Context, use bridge.Use, effectKey string, seen *int64, out Output, begin func(*guest.Client) (*guest.Command, error),
) (*ExecResult, error) {
	client, err := b.dial(ctx, use, b.Epoch, effectKey)
	if err != nil {
		return nil, err
	}
	defer client.Close() //nolint:errcheck // detaching has no error
	cmd, err := begin(client)
	if err != nil {
		return nil, staleToFenced(err)
	}
	defer cmd.Close() //nolint:errcheck // detaching has no error
	var at int64
	for {
		chunk, err := cmd.Next()
		if errors.Is(err, io.EOF) && cmd.Result() != nil {
			return cmd.Result(), nil
		}
		if err != nil {
			return nil, staleToFenced(err)
		}
		// A new attachment replays the output from its start, in the same order.
		at += int64(len(chunk.Data))
		fresh := at - *seen
		if fresh <= 0 || out == nil {
			*seen = max(*seen, at)
			continue
		}
		if fresh < int64(len(chunk.Data)) {
			chunk.Data = chunk.Data[int64(len(chunk.Data))-fresh:]
		}
		*seen = at
		if err := out(chunk); err != nil {
			return nil, fmt.Errorf("pass on a command's output: %w", err)
		}
	}
}

// Signal sends a signal to a command of this session's, as an interrupt does.
func (b *Sandbox) Signal(ctx context.Context, effectKey string, signal int) error {
	return b.withGuest(ctx, bridge.UseAttach, b.Epoch, effectKey, func(c *guest.Client) error {
		return c.Signal(ctx, guest.SignalRequest{EffectKey: effectKey, Epoch: b.Epoch, Signal: signal})
	})
}

// ReadOutput reads what the guest keeps of a command's output, from an offset.
func (b *Sandbox) ReadOutput(ctx context.Context, effectKey string, offset, limit int64) (data []byte, err error) {
	err = b.withGuest(ctx, bridge.UseAttach, b.Epoch, effectKey, func(c *guest.Client) error {
		data, err = c.ReadOutput(ctx, effectKey, offset, limit)
		return err
	})
	return data, err
}

// dial opens a connection to the guest for one use. ErrLost when there is no
// machine any more.
func (b *Sandbox) dial(ctx context.Context, use bridge.Use, epoch int64, effectKey string) (*guest.Client, error) {
	token, err := b.token(ctx, use, epoch, effectKey)
	if err != nil {
		return nil, err
	}
	client, err := bridge.DialGuest(ctx, b.address, token)
	if err = meaning(ctx, err); errors.Is(err, errGone) {
		return nil, ErrLost.Because(err)
	}
	return client, err
}

// withGuest is for operations that answer once. A connection that breaks is
// ErrLost: the caller cannot know whether it was done.
func (b *Sandbox) withGuest(ctx context.Context, use bridge.Use, epoch int64, effectKey string, do func(*guest.Client) error) error {
	client, err := b.dial(ctx, use, epoch, effectKey)
	if err == nil {
		err = do(client)
		_ = client.Close() // nothing is under way any more
	}
	if errors.Is(err, guest.ErrDisconnected) {
		return ErrLost.Because(err)
	}
	return staleToFenced(err)
}

func staleToFenced(err error) error {
	if guest.IsCode(err, guest.CodeStaleEpoch) {
		return ErrFenced.Because(err)
	}
	return err
}

// using notes, beside the operation and not before it, that the machine is in
// use, and again at its end when it took a while. The times decide when a machine
// is idle and whether its loss cost anything.
func (b *Sandbox) using(ctx context.Context) (done func()) {
	began := time.Now()
	ctx = context.WithoutCancel(ctx)
	note := func() { b.s.touch(ctx, b.Org, b.ID) }
	b.s.errand(note)
	return func() {
		if time.Since(began) > time.Second {
			b.s.errand(note)
		}
	}
}

func (s *Service) touch(ctx context.Context, org id.Org, sandboxID id.Sandbox) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	err := s.db.InTx(ctx, org, func(tx pgx.Tx) error {
		return sandboxdb.New(tx).TouchUsed(ctx, sandboxdb.TouchUsedParams{OrgID: org, ID: sandboxID})
	})
	if err != nil {
		s.log.WarnContext(ctx, "the use of a sandbox could not be noted", "sandbox", sandboxID, "error", err)
	}
}
