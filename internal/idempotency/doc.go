// Package idempotency keeps the answers to requests that carried an Idempotency-Key, so that a request which is sent twice has its
// effect once and its answer twice (IETF draft-ietf-httpapi-idempotency-key-header-07).
//
// The record is written in the transaction of the effect: either both are there or neither. While the first request runs, an advisory
// lock of its transaction makes the second one fail fast; a process that dies lets go of the lock with its connection.
//
// It owns the table idempotency_records and its sweep. It does not know routes or answers, only bytes. It imports internal/postgres,
// internal/seal, internal/fault, internal/clock and internal/id.
package idempotency
