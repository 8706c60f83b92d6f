package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-jose/go-jose/v4"

	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/internal/blob"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/nomad"
)

// DefaultEnvironment is the environment that every installation has.
const DefaultEnvironment = "default"

// DefaultIdleAfter is how long a machine is kept in which nothing runs, unless a configuration says otherwise.
const DefaultIdleAfter = 5 * time.Minute

// TokenSigner signs the tokens that admit one operation to one sandbox. It
// returns a compact JWS (EdDSA) by an instance signing key, whose public half is
// among Keys and at the instance's /.well-known/jwks.json.
type TokenSigner interface {
	Sign(ctx context.Context, claims any) (string, error)
}

// Config is what can be set.
type Config struct {
	// Warm is how many machines wait; Max how many there may be in all.
	Warm int
	Max  int
	// Environment is what Acquire takes when it is not told. Default "default".
	Environment string
	// IdleAfter is how long a machine is kept in which nothing runs. Default DefaultIdleAfter.
	IdleAfter time.Duration
	// Tick is for how long a machine's time is held at once, at most a minute. Default a minute.
	Tick time.Duration
	// ClaimWait is how long a session waits for a machine while all are in use,
	// MaxWaiting how many may wait in this process. Default 90 s and 256.
	ClaimWait  time.Duration
	MaxWaiting int
	// MaxArchiveBytes bounds one saved working directory, compressed. Default 1 GiB.
	MaxArchiveBytes int64
	// DiskMiB bounds a machine's working directory; 0 keeps the template's.
	DiskMiB int
	// ControlURL is the base URL under which nodes reach this instance's
	// internal endpoints (Handler) and its published keys.
	ControlURL string
	// NodeToken is what node services report with: one secret an installation,
	// the same after a restart, or Nomad would replace every node service.
	NodeToken string
	// Node tells what runs on the nodes, and where.
	Node NodeSetup
}

func (c Config) withDefaults() Config {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&c.IdleAfter, DefaultIdleAfter)
	def(&c.ClaimWait, 90*time.Second)
	def(&c.Tick, MaxTick)
	if c.Environment == "" {
		c.Environment = DefaultEnvironment
	}
	if c.MaxWaiting <= 0 {
		c.MaxWaiting = 256
	}
	if c.MaxArchiveBytes <= 0 {
		c.MaxArchiveBytes = 1 << 30
	}
	return c
}

// Validate says what is wrong with a configuration.
func (c Config) Validate() error {
	if err := c.validateOwn(); err != nil {
		return err
	}
	return c.Node.validate()
}

func (c Config) validateOwn() error {
	switch {
	case c.Max < 1:
		return fmt.Errorf("sandbox: at most %d sandboxes is too few", c.Max)
	case c.Warm < 0 || c.Warm > c.Max:
		return fmt.Errorf("sandbox: %d warm sandboxes is not between 0 and the most there may be, %d", c.Warm, c.Max)
	case c.Tick > MaxTick:
		return fmt.Errorf("sandbox: a tick of %s is longer than %s", c.Tick, MaxTick)
	case c.ControlURL == "":
		return errors.New("sandbox: no URL for the nodes to report to")
	case c.NodeToken == "":
		return errors.New("sandbox: no token for the node services")
	}
	return nil
}

// Options are the parts that a Service stands on.
type Options struct {
	Config Config
	DB     *postgres.DB
	Nomad  *nomad.Client
	Blobs  *blob.Store
	Signer TokenSigner
	// Gate admits the time of machines, and settles it.
	Gate *gate.Gate
	// Client says that this process only shows and ends machines that workers keep: it needs none of what runs on the nodes, and Start
	// must not be called.
	Client bool
	// Keys are the instance's published keys, handed to each allocation so that
	// its first token needs no request. May be nil.
	Keys  func(ctx context.Context) (jose.JSONWebKeySet, error)
	Clock clock.Clock
	Log   *slog.Logger
	// OnEnded is called after the end of a session's machine was committed. The
	// journal has the event by then; this is for what is kept in memory. May be nil.
	OnEnded func(Ended)
}
