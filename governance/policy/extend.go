package policy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/id"
)

// Loader reads rules of another kind that share the version of the permissions: whoever changes them raises policy_versions in the same
// transaction. What it returns must not be changed.
type Loader func(ctx context.Context, tx pgx.Tx, org id.Org) (any, error)

// loadTries bounds how often rules are read again because they were changed between the reads.
const loadTries = 8

// Extend has every set carry what the loader reads, under the name. It is called before the cache is used; a second loader of a name takes
// the place of the first.
func (c *Cache) Extend(name string, load Loader) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.loaders[name] = load
	clear(c.sets)
}

// Extension is what the loader of that name has read; nil where it has not, as in Empty.
func (s *Set) Extension(name string) any { return s.extensions[name] }

// load reads the rules with all that belongs to them, as of one version.
func (c *Cache) load(ctx context.Context, tx pgx.Tx, org id.Org) (*Set, error) {
	c.mu.RLock()
	loaders := make(map[string]Loader, len(c.loaders))
	for name, l := range c.loaders {
		loaders[name] = l
	}
	c.mu.RUnlock()
	for range loadTries {
		s, err := Load(ctx, tx, org)
		if err != nil || len(loaders) == 0 || s.version == 0 {
			return s, err
		}
		s.extensions = make(map[string]any, len(loaders))
		for name, l := range loaders {
			if s.extensions[name], err = l(ctx, tx, org); err != nil {
				return nil, fmt.Errorf("load the rules of %s: %w", name, err)
			}
		}
		// Each read sees what was committed before it: the same version before and after says that nothing was in between.
		now, err := Version(ctx, tx, org)
		if err != nil {
			return nil, err
		}
		if now == s.version {
			return s, nil
		}
	}
	return nil, errors.New("the rules change faster than they can be read")
}

// Fits reports whether a rule is about an effect, whatever its own effect is: its subject, kind, name, action, object and condition. What
// the request does not know, a rule that asks for it does not fit.
func (s *Set) Fits(rule *Rule, r Request) bool {
	if rule.Kind != Any && rule.Kind != r.Kind || !matches(rule.Name, r.Name) || !r.canonical() {
		return false
	}
	if rule.Condition.Hours != nil {
		zone := s.clock
		if zone == nil {
			zone = time.UTC
		}
		at := r.At.In(zone)
		r.minute, r.day = at.Hour()*60+at.Minute(), at.Weekday()
	}
	c := compiled{Rule: *rule}
	return s.selects(&c, &r) && c.applies(&r)
}

// Text is the one form in which a condition is kept.
func (c Condition) Text() string { return c.text() }

// ParseCondition reads what Text wrote; what it does not know is an error.
func ParseCondition(text string) (Condition, error) { return parseCondition(text) }
