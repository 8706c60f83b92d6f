// Package schema makes one JSON Schema (draft 2020-12, a subset) from each Go type of the API, and checks requests against it. The same
// schema stands in the OpenAPI document, so that what is written down and what is enforced cannot differ.
//
// It owns the reflection, the subset's meaning and the strict JSON reader. It knows no route and no resource, and imports only
// internal/fault, internal/money and the standard library.
package schema
