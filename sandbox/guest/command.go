package guest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// Command is an attachment to a command in the guest. It is not safe for
// concurrent use; attach twice instead.
type Command struct {
	// EffectKey is the command's.
	EffectKey string
	// Reattached: the guest knew this effect key already; nothing was started.
	Reattached bool
	// StartedAt is by the guest's clock.
	StartedAt time.Time

	k   *call
	res *ExecResult
	err error
}

// Exec starts a command, or attaches to it when its effect key is known. It
// returns once the command runs. When ctx ends, the attachment ends; the
// command goes on, and only Signal or its time limit ends it.
func (c *Client) Exec(ctx context.Context, req ExecRequest) (*Command, error) {
	return c.attach(ctx, OpExec, req)
}

// Attach attaches to a running or finished command and replays its output from
// the start. CodeEffectUnknown when the guest never ran it.
func (c *Client) Attach(ctx context.Context, req AttachRequest) (*Command, error) {
	return c.attach(ctx, OpAttach, req)
}

func (c *Client) attach(ctx context.Context, operation Op, body any) (*Command, error) {
	k, err := c.open(ctx, operation, body)
	if err != nil {
		return nil, err
	}
	t, p, err := k.next()
	if err != nil {
		k.close()
		return nil, err
	}
	var st Started
	if t != FrameStarted {
		k.close()
		return nil, fmt.Errorf("guest answer: %w: type %d where the start was due", errFrame, t)
	}
	if err := json.Unmarshal(p, &st); err != nil {
		k.close()
		return nil, fmt.Errorf("guest answer: %w: start: %w", errFrame, err)
	}
	return &Command{EffectKey: st.EffectKey, Reattached: st.Reattached, StartedAt: st.StartedAt, k: k}, nil
}

// Next returns the next piece of output, and io.EOF when the command has ended;
// Result has the rest then.
func (c *Command) Next() (Chunk, error) {
	if c.err != nil {
		return Chunk{}, c.err
	}
	chunk, err := c.read()
	if err != nil {
		c.err = err
		c.k.close()
	}
	return chunk, err
}

func (c *Command) read() (Chunk, error) {
	t, p, err := c.k.next()
	if err != nil {
		return Chunk{}, err
	}
	switch t {
	case FrameStdout:
		return Chunk{Stdout, p}, nil
	case FrameStderr:
		return Chunk{Stderr, p}, nil
	case FrameResult:
		res := &ExecResult{}
		if err := json.Unmarshal(p, res); err != nil {
			return Chunk{}, fmt.Errorf("guest answer: %w: result: %w", errFrame, err)
		}
		c.res = res
		return Chunk{}, io.EOF
	default:
		return Chunk{}, fmt.Errorf("guest answer: %w: type %d in a command's output", errFrame, t)
	}
}

// Result is how the command ended; nil until Next has returned io.EOF.
func (c *Command) Result() *ExecResult { return c.res }

// Wait copies the output to the writers (nil discards) until the command ends.
func (c *Command) Wait(stdout, stderr io.Writer) (*ExecResult, error) {
	for {
		chunk, err := c.Next()
		if err != nil {
			if c.res != nil {
				return c.res, nil
			}
			return nil, err
		}
		w := stdout
		if chunk.Stream == Stderr {
			w = stderr
		}
		if w == nil {
			continue
		}
		if _, err := w.Write(chunk.Data); err != nil {
			return nil, fmt.Errorf("pass on the command's output: %w", err)
		}
	}
}

// Close detaches. The command goes on.
func (c *Command) Close() error {
	c.k.close()
	return nil
}

// Run is Exec and Wait.
func (c *Client) Run(ctx context.Context, req ExecRequest, stdout, stderr io.Writer) (*ExecResult, error) {
	cmd, err := c.Exec(ctx, req)
	if err != nil {
		return nil, err
	}
	defer cmd.Close() //nolint:errcheck // detaching has no error
	return cmd.Wait(stdout, stderr)
}

// Signal sends a signal to a command. No error when it has ended already;
// CodeEffectUnknown when it never ran.
func (c *Client) Signal(ctx context.Context, req SignalRequest) error {
	return c.unary(ctx, OpSignal, req, nil)
}

// ReadOutput reads the kept output of a command, both streams in the order in
// which they were written, from a byte offset. limit 0 is MaxRead.
func (c *Client) ReadOutput(ctx context.Context, effectKey string, offset, limit int64) ([]byte, error) {
	k, err := c.open(ctx, OpReadOutput, ReadOutputRequest{EffectKey: effectKey, Offset: offset, Limit: limit})
	if err != nil {
		return nil, err
	}
	defer k.close()
	var data []byte
	err = k.result(nil, func(p []byte) error {
		if len(data)+len(p) > MaxRead {
			return fmt.Errorf("guest answer: %w: more data than asked for", errFrame)
		}
		data = append(data, p...)
		return nil
	})
	return data, err
}
