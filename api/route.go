package api

import (
	"context"
	"net/http"
	"reflect"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/tenants"
)

// Route is one row of the table from which the router, the OpenAPI document and the reference page are made.
type Route struct {
	// ID is unique and stable: "agents.create". It is the operationId, and names the list to which a page cursor belongs.
	ID     string
	Method string
	// Path is in OpenAPI's form: "/v1/agents/{agent_id}".
	Path string
	// Permission is what a key must have been given; empty only for a route that anybody may ask.
	Permission tenants.Permission
	Tag        string
	Summary    string
	// Description is plain text, and may be empty.
	Description string
	// MaxBody is the largest body in bytes; 0 means defaultMaxBody.
	MaxBody int64
	// Errors are the slugs that are peculiar to this route, besides those that any may give.
	Errors   []string
	Endpoint Endpoint
	// GivesWork says that the route gives an agent something to do: it is refused while a quota of tokens is used up.
	GivesWork bool
}

const (
	defaultMaxBody = 1 << 20
	// inputMaxBody is for what goes into a journal: a prompt of this size is several times what any model reads.
	inputMaxBody = 4 << 20
)

// Endpoint is a typed function behind a route. Make one with read, write, admit or serve.
type Endpoint struct {
	in, out reflect.Type
	status  int
	media   string
	// keyed says that the route takes an Idempotency-Key.
	keyed bool
	run   func(c *call) error
}

// read is an endpoint that changes nothing. In is bound from the path, the query, the headers and the body; Out becomes the answer. The
// transaction is the caller's organisation's: whatever is read in it, row-level security has looked at too.
func read[In, Out any](fn func(ctx context.Context, tx pgx.Tx, in In) (Out, error)) Endpoint {
	return plain(func(c *call, in In) (out Out, err error) {
		err = c.inTx(func(ctx context.Context, tx pgx.Tx) (err error) {
			out, err = fn(ctx, tx, in)
			return err
		})
		return out, err
	})
}

// plain is read without a transaction: for what is not in the database, and for what takes more than one transaction.
func plain[In, Out any](fn func(c *call, in In) (Out, error)) Endpoint {
	return Endpoint{
		in: reflect.TypeFor[In](), out: reflect.TypeFor[Out](), status: http.StatusOK, media: jsonType,
		run: func(c *call) error {
			var in In
			if err := c.bind(&in); err != nil {
				return err
			}
			out, err := fn(c, in)
			if err != nil {
				return err
			}
			return c.answer(http.StatusOK, out)
		},
	}
}

// write is an endpoint whose whole effect happens in one transaction of the caller's organisation, together with the record of its
// Idempotency-Key.
func write[In, Out any](status int, fn func(ctx context.Context, tx pgx.Tx, in In) (Out, error)) Endpoint {
	return Endpoint{
		in: reflect.TypeFor[In](), out: reflect.TypeFor[Out](), status: status, media: jsonType, keyed: true,
		run: func(c *call) error {
			var in In
			if err := c.bind(&in); err != nil {
				return err
			}
			rec, replayed, err := c.once(func(ctx context.Context, tx pgx.Tx) (*rendered, error) {
				out, err := fn(ctx, tx, in)
				if err != nil {
					return nil, err
				}
				return render(status, out)
			})
			if err != nil {
				return err
			}
			if replayed {
				c.w.Header().Set(replayedHeader, "true")
			}
			return c.send(rec)
		},
	}
}

// admit is an endpoint in two parts: begin has the effect, in one transaction with the record of its Idempotency-Key, and leaves a
// ticket; reply answers from the ticket, after the commit, for as long as it takes. A repeated request skips begin and replies anew
// from the first one's ticket.
func admit[In, Ticket any](out reflect.Type, begin func(ctx context.Context, tx pgx.Tx, in In) (Ticket, error), reply func(c *call, in In, t Ticket) error) Endpoint {
	return Endpoint{
		in: reflect.TypeFor[In](), out: out, status: http.StatusOK, media: jsonType, keyed: true,
		run: func(c *call) error {
			var in In
			if err := c.bind(&in); err != nil {
				return err
			}
			rec, replayed, err := c.once(func(ctx context.Context, tx pgx.Tx) (*rendered, error) {
				t, err := begin(ctx, tx, in)
				if err != nil {
					return nil, err
				}
				return render(http.StatusOK, t)
			})
			if err != nil {
				return err
			}
			var t Ticket
			if err := rec.decode(&t); err != nil {
				return err
			}
			if replayed {
				c.w.Header().Set(replayedHeader, "true")
			}
			return reply(c, in, t)
		},
	}
}

// serve is an endpoint that writes its answer itself: a stream, or a file.
func serve[In any](media string, fn func(c *call, in In) error) Endpoint {
	return Endpoint{
		in: reflect.TypeFor[In](), status: http.StatusOK, media: media,
		run: func(c *call) error {
			var in In
			if err := c.bind(&in); err != nil {
				return err
			}
			return fn(c, in)
		},
	}
}
