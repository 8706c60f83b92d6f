// Package contract holds what every model provider must do, as tests: against an independent mock of the vendors' APIs, and against a server
// that fails in every way that servers fail in. A new provider joins both tables.
//
// It has no code of its own.
package contract
