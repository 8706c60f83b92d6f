// Package apiclient is a small typed client of Ambit's /v1, as the command line uses it: requests, problem documents, pages, and event
// streams that resume by themselves.
//
// It owns the client's side of the wire and nothing else: it imports only the standard library, so that what it can do is what any
// program can do with the API.
package apiclient
