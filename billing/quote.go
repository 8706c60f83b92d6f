package billing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/billing/internal/billingdb"
	"ambit.dev/ambit/billing/prices"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/principal"
)

// What a quote prices.
const (
	QuoteSession = "session"
	QuoteEffect  = "effect"
)

// QuoteFor is how long a quote's prices are offered.
const QuoteFor = 15 * time.Minute

// forgetAfter is how long a quote that nobody used is kept beyond its expiry.
const forgetAfter = 7 * 24 * time.Hour

// Quote is an offer: what something would cost, at prices that hold until it expires.
type Quote struct {
	ID      id.Quote
	Project id.Project
	Kind    string
	// Digest is of all that the price depends on. What is invoked under the quote must have the same.
	Digest [32]byte
	// Low, Likely and Ceiling are in that order. Lines are what Likely is made of, for a session; the ceiling, for an effect.
	Low     money.Nanos
	Likely  money.Nanos
	Ceiling money.Nanos
	Lines   []prices.Line
	Basis   QuoteBasis
	// PriceVersion is the table that it was made from, Prices are that table's entries for all that it may need.
	PriceVersion string
	Prices       []prices.Entry
	By           principal.Principal
	CreatedAt    time.Time
	ExpiresAt    time.Time
	UsedAt       *time.Time
	Session      id.Session // that used it, or empty
}

// QuoteBasis says what a quote counts and what it assumes.
type QuoteBasis struct {
	// From is history, assumptions or quantities.
	From string `json:"from"`
	// Sessions is how many finished sessions it was reckoned from.
	Sessions    int      `json:"sessions"`
	Assumptions []string `json:"assumptions"`
}

// Status is open, used or expired at the given time.
func (q Quote) Status(now time.Time) string {
	switch {
	case q.UsedAt != nil:
		return "used"
	case !now.Before(q.ExpiresAt):
		return "expired"
	}
	return "open"
}

// SaveQuote writes a quote, gives it its id and its times, and forgets old ones that nobody used.
func SaveQuote(ctx context.Context, tx pgx.Tx, now time.Time, org id.Org, quote Quote) (Quote, error) {
	q := billingdb.New(tx)
	if err := q.ForgetQuotes(ctx, billingdb.ForgetQuotesParams{OrgID: org, Before: now.Add(-forgetAfter)}); err != nil {
		return Quote{}, fmt.Errorf("forget old quotes: %w", err)
	}
	quote.ID, quote.By, quote.CreatedAt, quote.ExpiresAt = id.New[id.Quote](), principal.From(ctx), now, now.Add(QuoteFor)
	parts := make([]json.RawMessage, 4)
	for i, part := range []any{quote.Lines, quote.Basis, quote.Prices, quote.By} {
		var err error
		if parts[i], err = json.Marshal(part); err != nil {
			return Quote{}, fmt.Errorf("write a quote: %w", err)
		}
	}
	err := q.InsertQuote(ctx, billingdb.InsertQuoteParams{
		OrgID: org, ID: string(quote.ID), ProjectID: quote.Project, Kind: quote.Kind, Digest: quote.Digest[:],
		LowNanos: int64(quote.Low), LikelyNanos: int64(quote.Likely), CeilingNanos: int64(quote.Ceiling),
		Lines: parts[0], Basis: parts[1], PriceVersion: quote.PriceVersion, Prices: parts[2], CreatedBy: parts[3], Now: now, ExpiresAt: quote.ExpiresAt,
	})
	if err != nil {
		return Quote{}, fmt.Errorf("save a quote: %w", err)
	}
	return quote, nil
}

// GetQuote reads a quote. One that was never made, or is another project's than the given one, is not found; an empty project sees all.
func GetQuote(ctx context.Context, tx pgx.Tx, org id.Org, project id.Project, quote id.Quote) (Quote, error) {
	row, err := billingdb.New(tx).GetQuote(ctx, billingdb.GetQuoteParams{OrgID: org, ID: string(quote)})
	return foundQuote(row, err, project, quote)
}

// LockQuote is GetQuote for who is about to use it: of two at once, the second waits and sees that it is used.
func LockQuote(ctx context.Context, tx pgx.Tx, org id.Org, project id.Project, quote id.Quote) (Quote, error) {
	row, err := billingdb.New(tx).LockQuote(ctx, billingdb.LockQuoteParams{OrgID: org, ID: string(quote)})
	return foundQuote(row, err, project, quote)
}

// Usable refuses a quote that can't be used for what has the given digest: one that was used, has expired, or is for something else.
func (q Quote) Usable(now time.Time, digest [32]byte) error {
	switch {
	case q.Kind != QuoteSession:
		return fault.New(fault.Conflict, "quote_mismatch", "This quote prices a single effect and not a session. Ask for a quote with the body of the invoke.")
	case q.UsedAt != nil:
		return fault.New(fault.Conflict, "quote_used", "This quote was used before: a quote is good for one invoke. Ask for another.").With("session_id", string(q.Session))
	case !now.Before(q.ExpiresAt):
		return fault.New(fault.Conflict, "quote_expired", "This quote expired at "+q.ExpiresAt.UTC().Format(time.RFC3339)+". Ask for another.").With("expires_at", q.ExpiresAt.UTC().Format(time.RFC3339Nano))
	case q.Digest != digest:
		return fault.New(fault.Conflict, "quote_mismatch", "This quote is for something else: another agent or version of it, input, tools or limits. Ask for a quote of what you want to invoke.")
	}
	return nil
}

// UseQuote marks a quote as used by a session. It is an error when it was used before.
func UseQuote(ctx context.Context, tx pgx.Tx, now time.Time, org id.Org, quote id.Quote, session id.Session) error {
	n, err := billingdb.New(tx).UseQuote(ctx, billingdb.UseQuoteParams{Now: now, SessionID: string(session), OrgID: org, ID: string(quote)})
	if err != nil || n != 1 {
		return fmt.Errorf("use quote %s (%d rows): %w", quote, n, err)
	}
	return nil
}

func foundQuote(r billingdb.Quote, err error, project id.Project, quote id.Quote) (Quote, error) {
	if errors.Is(err, pgx.ErrNoRows) || (err == nil && project != "" && r.ProjectID != project) {
		return Quote{}, fault.NotFound()
	}
	if err != nil {
		return Quote{}, fmt.Errorf("read quote %s: %w", quote, err)
	}
	out := Quote{
		ID: id.Quote(r.ID), Project: r.ProjectID, Kind: r.Kind, Low: money.Nanos(r.LowNanos), Likely: money.Nanos(r.LikelyNanos), Ceiling: money.Nanos(r.CeilingNanos),
		PriceVersion: r.PriceVersion, CreatedAt: r.CreatedAt.UTC(), ExpiresAt: r.ExpiresAt.UTC(), UsedAt: r.UsedAt,
	}
	if r.UsedBy != nil {
		out.Session = id.Session(*r.UsedBy)
	}
	copy(out.Digest[:], r.Digest)
	for _, part := range []struct {
		raw json.RawMessage
		to  any
	}{{r.Lines, &out.Lines}, {r.Basis, &out.Basis}, {r.Prices, &out.Prices}, {r.CreatedBy, &out.By}} {
		if err := json.Unmarshal(part.raw, part.to); err != nil {
			return Quote{}, fmt.Errorf("read quote %s: %w", quote, err)
		}
	}
	return out, nil
}
