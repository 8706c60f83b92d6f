// Package observability carries finished spans from Postgres to ClickHouse and
// answers questions about them.
//
// It owns the outbox's reader (Exporter), the shape in which a span is written,
// and the queries on spans and usage (Reader), one file each. It does not own
// what a span says: that is journal.Span, made in the transaction of the events
// that it tells of. It decides nothing about money: a cost here is a copy of a
// ledger entry's amount, for people to look at.
//
// The guarantee: a span whose transaction has committed is in ClickHouse some
// time later, and every query shows it once. It holds while ClickHouse is away,
// when a process dies between any two steps, and with several replicas at work.
// It rests on three things: rows are stamped with a batch in a transaction that
// commits before the batch is sent; a batch is always sent whole, in one order,
// under its id as deduplication token; and rows that come twice all the same
// share their sorting key, by which reads collapse them.
//
// It may import journal and the plumbing under internal. Only internal/app, api
// and console may import it.
package observability
