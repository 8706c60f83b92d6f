package api

import (
	"context"
	"net/http"
	"reflect"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/scheduler"
)

// killWait is how long a kill's answer waits for the proof that the sandbox is gone.
const killWait = 10 * time.Second

var killReceiptType = reflect.TypeFor[KillReceipt]()

// KillReceipt says what a kill did. Its signature is over these very members, which is why amounts are integer nano-dollars here.
type KillReceipt struct {
	scheduler.KillReceipt
	Type string `json:"type" const:"kill_receipt"`
	// Complete says that the sandbox is known to be gone and the receipt is signed.
	Complete bool `json:"complete" doc:"Whether the sandbox is known to be gone and the receipt is signed."`
}

type killIn struct {
	Session id.Session `path:"session_id"`
	Body    struct {
		Reason string `json:"reason" maxlen:"500" doc:"Stands in the receipt and the journal."`
	} `body:"optional"`
}

type killTicket struct {
	Session id.Session `json:"session_id"`
}

func (a *API) beginKill(ctx context.Context, tx pgx.Tx, in killIn) (killTicket, error) {
	if _, err := seenSession(ctx, tx, in.Session); err != nil {
		return killTicket{}, err
	}
	_, err := a.cfg.Domains.Sessions.Kill(ctx, tx, principal.From(ctx).Org, in.Session, in.Body.Reason)
	return killTicket{Session: in.Session}, err
}

func (a *API) replyKill(c *call, _ killIn, t killTicket) error {
	ctx, cancel := context.WithTimeout(c.r.Context(), killWait)
	defer cancel()
	r, err := a.cfg.Domains.Sessions.FinishKill(ctx, c.who.Org, t.Session)
	if err != nil {
		return err
	}
	out := KillReceipt{KillReceipt: r, Type: "kill_receipt", Complete: r.Signature != ""}
	if out.Complete {
		return c.answer(http.StatusOK, out)
	}
	return c.answer(http.StatusAccepted, out)
}
