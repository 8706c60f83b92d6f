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

// killWait is how long a kill's answer waits for the proof that the sandboxes are gone.
const killWait = 10 * time.Second

var killReceiptType = reflect.TypeFor[KillReceipt]()

// KillReceipt says what a kill did. Its signature is over these very members but complete, which is why amounts are integer nano-dollars here.
type KillReceipt struct {
	scheduler.KillReceipt
	// Complete says that every sandbox is known to be gone and the receipt is signed.
	Complete bool `json:"complete" doc:"Whether every sandbox is known to be gone and the receipt is signed."`
}

func killReceiptFrom(r scheduler.KillReceipt) KillReceipt {
	return KillReceipt{KillReceipt: r, Complete: r.Done()}
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
	if r.Done() {
		return c.answer(http.StatusOK, killReceiptFrom(r))
	}
	return c.answer(http.StatusAccepted, killReceiptFrom(r))
}

func (a *API) getReceipt(c *call, in sessionIn) (KillReceipt, error) {
	err := c.inTx(func(ctx context.Context, tx pgx.Tx) error {
		_, err := seenSession(ctx, tx, in.Session)
		return err
	})
	if err != nil {
		return KillReceipt{}, err
	}
	r, err := a.cfg.Domains.Sessions.KillReceipt(c.r.Context(), c.who.Org, in.Session)
	return killReceiptFrom(r), err
}
