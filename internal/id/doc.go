// Package id makes and reads the identifiers that appear in the API, the console and the database.
//
// An id is a prefix that names its kind, an underscore, and a UUIDv7 (RFC 9562, section 5.7) written as 26 lower-case Crockford
// base-32 characters: "ses_01k9yq7m8pf2x4t6v8w0y2a4c6". Ids of one kind sort by the millisecond in which they were made. Each kind is a
// Go type of its own, so that a session's id cannot be passed where a project's is wanted.
//
// It knows nothing of what the ids stand for, and imports only the standard library and a UUID source.
package id
