package postgres

import (
	"errors"
	"net"
	"sync"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"ambit.dev/ambit/internal/fault"
)

var (
	constraintsMu sync.RWMutex
	constraints   = map[string]*fault.Error{}
)

// RegisterConstraint says which fault a violation of the named constraint or unique index means. A domain calls it from an init of the
// file that owns the table, so that an error of the database turns into words in one place.
func RegisterConstraint(name string, f *fault.Error) {
	constraintsMu.Lock()
	defer constraintsMu.Unlock()
	constraints[name] = f
}

// translate turns an error of the database into a fault where it has a meaning for a client.
func translate(err error) error {
	var already *fault.Error
	if errors.As(err, &already) {
		return err
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		constraintsMu.RLock()
		f := constraints[pg.ConstraintName]
		constraintsMu.RUnlock()
		if f != nil && pg.ConstraintName != "" {
			return f.Because(err)
		}
		switch {
		case pgerrcode.IsOperatorIntervention(pg.Code), pgerrcode.IsConnectionException(pg.Code), pgerrcode.IsInsufficientResources(pg.Code):
			return unavailable(err)
		case pg.Code == pgerrcode.SerializationFailure, pg.Code == pgerrcode.DeadlockDetected, pg.Code == pgerrcode.LockNotAvailable:
			return fault.New(fault.Conflict, "state_conflict", "Somebody else changed this at the same moment. Try again.").Because(err)
		}
		return err
	}
	var connect *pgconn.ConnectError
	var network net.Error
	if errors.As(err, &connect) || errors.As(err, &network) {
		return unavailable(err)
	}
	if errors.Is(err, pgx.ErrNoRows) {
		return fault.NotFound().Because(err)
	}
	return err
}

// Refused reports whether the database itself refused a statement, so that nothing of its transaction was written. With any other error, such
// as a connection that broke, that is not known.
func Refused(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && !pgerrcode.IsOperatorIntervention(pg.Code) && !pgerrcode.IsConnectionException(pg.Code)
}

// Translate is for code that runs statements outside InTx, such as a look-up through a definer function.
func Translate(err error) error {
	if err == nil {
		return nil
	}
	return translate(err)
}
