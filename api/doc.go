// Package api is the HTTP surface for programs: the resources of /v1, one route table from which both the router and the OpenAPI
// document are made, authentication by key, permissions, rate limits, idempotency, problem documents and event streams.
//
// It owns the wire: names, shapes, limits and statuses. It owns no rule of a domain and writes no SQL: an endpoint decodes a request,
// calls a domain's service and shows what came back. It imports the domain packages, internal/httpx and the rest of internal; never
// console, and never a vendor's SDK.
//
// How a request goes: request id → access log → panic guard → security headers → deadlines → route → key → rate limit → permission →
// strict decoding → [one database transaction: idempotency record, domain call, record] → answer. An error from any of them meets one
// mapper, in problem.go.
package api
