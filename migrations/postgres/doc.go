// Package postgres holds the migrations of the Postgres database, embedded, in the order of their numbers.
//
// It owns the tables' shape, their policies and their indexes. Ranges: 1–9 roles and the job queue, 10–19 tenants, 20–29 journal, money
// and agents, 30–39 sandboxes, 40–49 the outbox, 50–59 the API. It imports goose and River's own migrations, nothing of Ambit.
package postgres
