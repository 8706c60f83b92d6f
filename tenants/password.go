package tenants

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/alexedwards/argon2id"
	passwordvalidator "github.com/wagslane/go-password-validator"
	"golang.org/x/sync/semaphore"

	"ambit.dev/ambit/internal/fault"
)

const (
	minPassword = 10
	maxPassword = 200
	// minEntropy is in bits, as go-password-validator counts them: repetitions, sequences and keyboard rows count for little.
	minEntropy = 50
	// hashWait is how long a caller waits for its turn before it is told to come back.
	hashWait = 5 * time.Second
)

// hashParams are OWASP's second choice for argon2id: 19 MiB and two passes, about 30 ms of one core.
var hashParams = argon2id.Params{Memory: 19 * 1024, Iterations: 2, Parallelism: 1, SaltLength: 16, KeyLength: 32}

// passwordHasher bounds how many hashes are computed at once: each takes memory and a core, and sign-in is open to strangers.
type passwordHasher struct {
	turns *semaphore.Weighted
	// dummy is compared against when nobody has the address, so that it takes as long as with somebody.
	dummy string
}

func newPasswordHasher() (*passwordHasher, error) {
	dummy, err := argon2id.CreateHash(newToken(), &hashParams)
	if err != nil {
		return nil, fmt.Errorf("make the dummy password hash: %w", err)
	}
	return &passwordHasher{turns: semaphore.NewWeighted(int64(max(2, runtime.GOMAXPROCS(0)))), dummy: dummy}, nil
}

func (h *passwordHasher) turn(ctx context.Context) (release func(), err error) {
	wait, cancel := context.WithTimeout(ctx, hashWait)
	defer cancel()
	if err := h.turns.Acquire(wait, 1); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fault.New(fault.Unavailable, "unavailable", "Too many people are signing in at this moment. Try again shortly.").After(hashWait).Because(err)
	}
	return func() { h.turns.Release(1) }, nil
}

func (h *passwordHasher) hash(ctx context.Context, password string) (string, error) {
	release, err := h.turn(ctx)
	if err != nil {
		return "", err
	}
	defer release()
	hash, err := argon2id.CreateHash(password, &hashParams)
	if err != nil {
		return "", fmt.Errorf("hash a password: %w", err)
	}
	return hash, nil
}

// check compares; an empty hash stands for nobody's and matches nothing, in the same time. stale says that the hash was made with other
// parameters than today's.
func (h *passwordHasher) check(ctx context.Context, password, hash string) (match, stale bool, err error) {
	release, err := h.turn(ctx)
	if err != nil {
		return false, false, err
	}
	defer release()
	nobody := hash == ""
	if nobody {
		hash = h.dummy
	}
	match, params, err := argon2id.CheckHash(password, hash)
	if err != nil {
		return false, false, fmt.Errorf("read a stored password hash: %w", err)
	}
	return match && !nobody, match && *params != hashParams, nil
}

// checkStrength says what is wrong with a new password. about are words that it must not merely repeat: the address and the name.
func checkStrength(password, pointer string, about ...string) *fault.Field {
	weak := func(code, message string) *fault.Field {
		return &fault.Field{Pointer: pointer, Code: code, Message: message}
	}
	switch n := utf8.RuneCountInString(password); {
	case !utf8.ValidString(password):
		return weak("invalid_password", "A password is text.")
	case n < minPassword:
		return weak("too_short", fmt.Sprintf("A password has at least %d characters.", minPassword))
	case n > maxPassword:
		return weak("too_long", fmt.Sprintf("A password has at most %d characters.", maxPassword))
	}
	rest := strings.ToLower(password)
	for _, word := range about {
		local, _, _ := strings.Cut(strings.ToLower(word), "@")
		for _, part := range append(strings.Fields(strings.ToLower(word)), local) {
			if len(part) >= 4 {
				rest = strings.ReplaceAll(rest, part, "")
			}
		}
	}
	// The parts of the address are taken out of the lower-case form, which must not cost a mixed-case password its worth.
	candidate := password
	if len(rest) < len(password) {
		candidate = rest
	}
	if passwordvalidator.GetEntropy(candidate) < minEntropy {
		return weak("too_weak", "This password is too easy to guess. Make it longer, or mix kinds of characters; it must not repeat your name or address.")
	}
	return nil
}
