package tenants

import (
	"context"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/tenants/internal/tenantsdb"
)

// ConfirmPassword checks the present password of somebody who is signed in, before a dangerous act. Its faults: wrong_credentials,
// rate_limited. A right one clears no count: whoever confirms does, once all else was right too.
func (s *Service) ConfirmPassword(ctx context.Context, user id.User, password string) error {
	if len(password) > 4*maxPassword {
		return errWrongPassword()
	}
	_, hash, _, err := s.readForSignIn(ctx, user)
	if err != nil {
		return err
	}
	if err := s.CountGuess(ctx, user); err != nil {
		return err
	}
	match, _, err := s.passwords.check(ctx, password, hash)
	if err != nil {
		return err
	}
	if !match {
		return errWrongPassword()
	}
	return nil
}

func errWrongPassword() error {
	return fault.New(fault.Forbidden, "wrong_credentials", "The present password is wrong.")
}

// CountGuess counts an attempt to confirm something, together with guesses of the present password. Its fault is rate_limited.
func (s *Service) CountGuess(ctx context.Context, user id.User) error {
	return s.throttle.take(ctx, s.throttle.of(guardConfirm, string(user)))
}

// ForgetGuesses is for after a success.
func (s *Service) ForgetGuesses(ctx context.Context, user id.User) error {
	return s.as(ctx, user, func(tx pgx.Tx, _ *tenantsdb.Queries) error {
		return s.throttle.forgetTx(ctx, tx, s.throttle.of(guardConfirm, string(user)))
	})
}
