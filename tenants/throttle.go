package tenants

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/tenants/internal/tenantsdb"
)

// guard is a rule of the throttle. Each attempt beyond the free ones makes the subject wait twice as long as before, from first up to
// longest; after a time without attempts all is forgotten. Nobody is locked out for ever.
type guard struct {
	name    string
	free    int32
	first   time.Duration
	longest time.Duration
	forget  time.Duration
}

var (
	// guardPair is what stops guessing: one address of the network trying one account.
	guardPair = guard{"sign-in of an account from an address", 5, 2 * time.Second, 15 * time.Minute, 24 * time.Hour}
	// guardAddress stops one address trying many accounts. It is wide, for offices behind one address.
	guardAddress = guard{"sign-in from an address", 40, 2 * time.Second, 15 * time.Minute, time.Hour}
	// guardAccount slows many addresses trying one account. Its longest wait is short: otherwise a stranger could keep its owner out.
	guardAccount = guard{"sign-in of an account", 50, time.Second, 30 * time.Second, 24 * time.Hour}
	// guardSignUp bounds accounts and hashes made from one address.
	guardSignUp = guard{"sign-up from an address", 40, 2 * time.Second, 10 * time.Minute, time.Hour}
	// guardLinks bounds how often one address of the network may ask for mailed links.
	guardLinks = guard{"mailed links from an address", 20, 5 * time.Second, 15 * time.Minute, time.Hour}
	// guardMailbox bounds the mail that strangers can cause somebody to get. Beyond it, nothing is sent and nothing is said.
	guardMailbox = guard{"mail to a mailbox", 4, 5 * time.Minute, time.Hour, 12 * time.Hour}
	// guardInvited bounds the invitations that somebody gets, whoever sends them. Who sends one too many is told.
	guardInvited = guard{"invitations to a mailbox", 6, 5 * time.Minute, 2 * time.Hour, 24 * time.Hour}
	// guardConfirm bounds guesses of the present password by somebody at an open sign-in.
	guardConfirm = guard{"confirmation of a password", 5, 5 * time.Second, 15 * time.Minute, 24 * time.Hour}
)

// attempt is one subject under one guard.
type attempt struct {
	guard   guard
	subject []byte
}

// throttle counts attempts in Postgres, so that all replicas count together and a restart forgets nothing.
type throttle struct {
	db    *postgres.DB
	clock clock.Clock
	key   []byte
}

// of names a subject. It is keyed, as the few possible addresses could otherwise be searched.
func (t *throttle) of(g guard, parts ...string) attempt {
	mac := hmac.New(sha256.New, t.key)
	mac.Write([]byte(g.name + "\x00" + strings.Join(parts, "\x00")))
	return attempt{guard: g, subject: mac.Sum(nil)}
}

// take counts one attempt under each guard, or refuses with a fault that says how long to wait, and then counts none. It commits before
// the attempt is made, so attempts made at once all count.
func (t *throttle) take(ctx context.Context, attempts ...attempt) error {
	// One order for all, so that two transactions can't wait for each other.
	slices.SortFunc(attempts, func(a, b attempt) int { return slices.Compare(a.subject, b.subject) })
	return t.db.InPlatformTx(ctx, func(tx pgx.Tx) error {
		q := tenantsdb.New(tx)
		for _, a := range attempts {
			if err := t.takeOne(ctx, q, a); err != nil {
				return err
			}
		}
		return nil
	})
}

func (t *throttle) takeOne(ctx context.Context, q *tenantsdb.Queries, a attempt) error {
	now := t.clock.Now()
	_, err := q.TakeAttempt(ctx, tenantsdb.TakeAttemptParams{
		Subject: a.subject, Now: now, ForgetBefore: now.Add(-a.guard.forget),
		FreeAttempts: a.guard.free, FirstBlockSeconds: a.guard.first.Seconds(), MaxBlockSeconds: a.guard.longest.Seconds(),
	})
	if err == nil {
		return nil
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("count an attempt: %w", err)
	}
	until, err := q.BlockedUntil(ctx, a.subject)
	if err != nil {
		return fmt.Errorf("read how long to wait: %w", err)
	}
	wait := max(until.Sub(now).Round(time.Second), time.Second)
	return fault.Newf(fault.TooMany, "rate_limited", "Too many attempts. Try again in %s.", inWords(wait)).After(wait)
}

// takeTx is take for one guard in the caller's transaction; false means refused.
func (t *throttle) takeTx(ctx context.Context, tx pgx.Tx, a attempt) (bool, error) {
	err := t.takeOne(ctx, tenantsdb.New(tx), a)
	if fault.IsCode(err, "rate_limited") {
		return false, nil
	}
	return err == nil, err
}

// forgetTx is for the guards that a success clears.
func (t *throttle) forgetTx(ctx context.Context, tx pgx.Tx, attempts ...attempt) error {
	for _, a := range attempts {
		if err := tenantsdb.New(tx).ForgetAttempts(ctx, a.subject); err != nil {
			return fmt.Errorf("clear counted attempts: %w", err)
		}
	}
	return nil
}

// giveBackTx takes one attempt off the count: a success must not clear what the same address did to others.
func (t *throttle) giveBackTx(ctx context.Context, tx pgx.Tx, a attempt) error {
	if err := tenantsdb.New(tx).GiveAttemptBack(ctx, a.subject); err != nil {
		return fmt.Errorf("take back a counted attempt: %w", err)
	}
	return nil
}

// networkOf is what counts as one address: an IPv6 customer has a /64 to itself.
func networkOf(address string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return address
	}
	ip = ip.Unmap()
	if ip.Is6() {
		if p, err := ip.WithZone("").Prefix(64); err == nil {
			return p.String()
		}
	}
	return ip.String()
}

func inWords(d time.Duration) string {
	switch {
	case d <= time.Second:
		return "a second"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d seconds", int(d.Seconds()))
	default:
		return fmt.Sprintf("%d minutes", int((d + time.Minute - 1).Minutes()))
	}
}
