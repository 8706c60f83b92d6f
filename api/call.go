package api

import (
	"context"
	"net/http"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/idempotency"
	"ambit.dev/ambit/internal/principal"
)

// call is one request on its way through an endpoint.
type call struct {
	api   *API
	route *mounted
	w     http.ResponseWriter
	r     *http.Request
	param func(name string) string
	who   principal.Principal
	body  []byte
}

// inTx runs fn in a transaction of the caller's organisation.
func (c *call) inTx(fn func(ctx context.Context, tx pgx.Tx) error) error {
	ctx := c.r.Context()
	return c.api.cfg.DB.InTx(ctx, c.who.Org, func(tx pgx.Tx) error { return fn(ctx, tx) })
}

// once runs fn in a transaction of the caller's organisation. With an Idempotency-Key the answer is kept in the same transaction, and a
// repeated request gets it back (replayed) without running fn. An error of fn undoes the record too, so a refusal is never kept.
func (c *call) once(fn func(ctx context.Context, tx pgx.Tx) (*rendered, error)) (out *rendered, replayed bool, err error) {
	ctx := c.r.Context()
	scope := idempotency.Scope{Org: c.who.Org, Principal: c.who.ID, Method: c.r.Method, Path: c.r.URL.Path}
	if value := c.r.Header.Get("Idempotency-Key"); value != "" && c.r.Method == http.MethodPost {
		if scope.Key, err = idempotency.ParseKey(value); err != nil {
			return nil, false, err
		}
	}
	// An organisation's key can ask in the name of several projects; the same key for two projects is two requests.
	if c.who.Project != "" {
		scope.Principal += "/" + string(c.who.Project)
	}
	err = c.api.cfg.DB.InTx(ctx, c.who.Org, func(tx pgx.Tx) error {
		if scope.Key != "" {
			rec, err := c.api.cfg.Idempotency.BeginTx(ctx, tx, scope, c.body)
			if err != nil {
				return err
			}
			if rec != nil {
				out, replayed = &rendered{status: rec.Status, header: rec.Header, body: rec.Body}, true
				return nil
			}
		}
		out, err = fn(ctx, tx)
		if err != nil || scope.Key == "" {
			return err
		}
		rec := idempotency.Record{Status: out.status, Header: out.header, Body: out.body}
		return c.api.cfg.Idempotency.SaveTx(ctx, tx, scope, c.body, rec, idempotency.Kept)
	})
	if err != nil {
		return nil, false, err
	}
	return out, replayed, nil
}
