package policy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
	_ "time/tzdata" // rules must be readable on a machine that has no zones

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/governance/policy/internal/policydb"
	"ambit.dev/ambit/internal/background"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
)

// Channel is where a change of rules is announced, after its commit, with Changed as the payload. A notice is a hint: an admission reads
// the version in its own transaction.
const (
	Channel = "ambit_policy"
	Changed = "changed"
)

const (
	// maxSets bounds the organisations whose rules one process has in memory.
	maxSets = 10_000
	// lookEvery is how often versions are compared even without a notice, in case one was lost.
	lookEvery = 15 * time.Second
)

// Version reads the version of an organisation's rules in the caller's transaction; 0 when it never had any.
func Version(ctx context.Context, tx pgx.Tx, org id.Org) (int64, error) {
	v, err := policydb.New(tx).GetVersion(ctx, string(org))
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the version of the rules: %w", err)
	}
	return v, nil
}

// Load reads and compiles an organisation's rules, as of one moment, in the caller's transaction. A rule that can't be read is an error:
// nothing is decided without it.
func Load(ctx context.Context, tx pgx.Tx, org id.Org) (*Set, error) {
	rows, err := policydb.New(tx).Lines(ctx, string(org))
	if err != nil {
		return nil, fmt.Errorf("load the rules: %w", err)
	}
	if len(rows) == 0 {
		return Empty, nil
	}
	var rules []*compiled
	tags := map[id.Agent][]string{}
	for _, r := range rows {
		switch {
		case r.ID != "":
			condition, err := parseCondition(r.Condition)
			if err != nil {
				return nil, fmt.Errorf("load the rule %s: %w", r.ID, err)
			}
			rules = append(rules, &compiled{id: id.Permission(r.ID), Rule: Rule{
				Subject: r.Subject, Effect: Effect(r.Effect), Kind: r.Kind, Name: r.Name, Action: r.Action, Object: r.Object, Condition: condition, Description: r.Description,
			}})
		case r.Agent != "":
			tags[id.Agent(r.Agent)] = append(tags[id.Agent(r.Agent)], TagPrefix+r.Tag)
		}
	}
	clock, err := time.LoadLocation(rows[0].TimeZone)
	if err != nil {
		return nil, fmt.Errorf("load the zone that the rules of %s are read in: %w", org, err)
	}
	var zone *time.Location
	if slices.ContainsFunc(rules, func(c *compiled) bool { return c.Condition.Hours != nil }) {
		zone = clock
	}
	s := compile(rows[0].Version, zone, rules, tags)
	s.clock = clock
	s.mandates, s.required, err = loadMandates(ctx, tx, org)
	return s, err
}

// Cache keeps compiled rules in memory by organisation and version. It is safe for concurrent use. Without Start it is as true, and only
// loads later: at the first admission after a change.
type Cache struct {
	db       *postgres.DB
	listener *postgres.Listener
	log      *slog.Logger

	mu      sync.RWMutex
	sets    map[id.Org]*Set
	loaders map[string]Loader

	looker *background.Loop
	cancel func()
	done   chan struct{}
}

// NewCache makes a cache. The listener must listen on Channel.
func NewCache(db *postgres.DB, listener *postgres.Listener, log *slog.Logger) *Cache {
	c := &Cache{db: db, listener: listener, log: log, sets: map[id.Org]*Set{}, loaders: map[string]Loader{}}
	c.looker = background.New("reload of permissions", lookEvery, log, c.RefreshOnce)
	return c
}

// Start begins to follow changes, so that what is in memory is new within a moment of a commit on any replica.
func (c *Cache) Start(ctx context.Context) {
	notices, unsubscribe := c.listener.Subscribe(Channel, Changed)
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c.done = make(chan struct{})
	c.cancel = func() {
		unsubscribe()
		cancel()
	}
	c.looker.Start(ctx)
	go func() {
		defer close(c.done)
		for {
			select {
			case <-notices:
				c.looker.Wake()
			case <-ctx.Done():
				return
			}
		}
	}()
}

// Started is closed once the first round is done.
func (c *Cache) Started() <-chan struct{} { return c.looker.Started() }

// Stop ends the following of changes.
func (c *Cache) Stop(ctx context.Context) error {
	if c.cancel == nil {
		return nil
	}
	err := c.looker.Stop(ctx)
	c.cancel()
	<-c.done
	return err
}

// At returns an organisation's rules at the version that the caller's transaction has read. When another is in memory they are loaded
// within that transaction. What is returned may be newer than asked for, if a change was committed between the two reads, and is never
// older.
func (c *Cache) At(ctx context.Context, tx pgx.Tx, org id.Org, version int64) (*Set, error) {
	if version == 0 {
		return Empty, nil
	}
	if have := c.InMemory(org); have != nil && have.version == version {
		return have, nil
	}
	s, err := c.load(ctx, tx, org)
	if err != nil {
		return nil, err
	}
	if s.version < version {
		return nil, fmt.Errorf("the rules of %s are at version %d, and were at %d before", org, s.version, version)
	}
	c.keep(org, s)
	return s, nil
}

// Now reads the version and returns the rules at it.
func (c *Cache) Now(ctx context.Context, tx pgx.Tx, org id.Org) (*Set, error) {
	version, err := Version(ctx, tx, org)
	if err != nil {
		return nil, err
	}
	return c.At(ctx, tx, org, version)
}

// InMemory returns what is in memory for an organisation, which may be nil or older than what is committed. Nothing is decided by it.
func (c *Cache) InMemory(org id.Org) *Set {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.sets[org]
}

// keep takes whatever was read last. If that is older than what was there, the next reader finds the versions unequal and loads again; to
// prefer the newer one instead would keep for ever what a transaction read of its own change and then rolled back.
func (c *Cache) keep(org id.Org, s *Set) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, have := c.sets[org]; !have && len(c.sets) >= maxSets {
		for other := range c.sets { // any of them: what is needed again is loaded again
			delete(c.sets, other)
			break
		}
	}
	c.sets[org] = s
}

// RefreshOnce compares the versions of all that is in memory with what is committed, and loads what changed.
func (c *Cache) RefreshOnce(ctx context.Context) error {
	c.mu.RLock()
	have := make(map[id.Org]int64, len(c.sets))
	orgs := make([]string, 0, len(c.sets))
	for org, s := range c.sets {
		have[org] = s.version
		orgs = append(orgs, string(org))
	}
	c.mu.RUnlock()
	if len(orgs) == 0 {
		return nil
	}
	var rows []policydb.VersionsOfRow
	err := c.db.InWorkerTx(ctx, func(tx pgx.Tx) (err error) {
		rows, err = policydb.New(tx).VersionsOf(ctx, orgs)
		return err
	})
	if err != nil {
		return fmt.Errorf("compare the versions of rules: %w", err)
	}
	var failed []error
	for _, r := range rows {
		org := id.Org(r.OrgID)
		if r.Version == have[org] {
			continue
		}
		failed = append(failed, c.db.InTx(ctx, org, func(tx pgx.Tx) error {
			_, err := c.At(ctx, tx, org, r.Version)
			return err
		}))
	}
	return errors.Join(failed...)
}
