package tenants

import (
	"context"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/tenants/internal/tenantsdb"
)

// SignInWithPasskey signs in whoever verify finds; it is given what checks a passkey's answer. An attempt counts against the network address
// as one with a password does. Its faults: those of verify, wrong_credentials for an address that is not verified, rate_limited.
func (s *Service) SignInWithPasskey(ctx context.Context, from Origin, verify func(ctx context.Context) (id.User, error)) (out SignedIn, err error) {
	address := s.throttle.of(guardAddress, networkOf(from.Address))
	if err := s.throttle.take(ctx, address); err != nil {
		return SignedIn{}, err
	}
	who, err := verify(ctx)
	if err != nil {
		return SignedIn{}, err
	}
	user, _, waits, err := s.readForSignIn(ctx, who)
	if err != nil {
		return SignedIn{}, err
	}
	if user.ID == "" || waits {
		return SignedIn{}, s.errWrongCredentials()
	}
	err = s.as(ctx, user.ID, func(tx pgx.Tx, _ *tenantsdb.Queries) error {
		if err := s.throttle.giveBackTx(ctx, tx, address); err != nil {
			return err
		}
		out, err = s.signInTx(ctx, tx, user, from)
		return err
	})
	return out, err
}
