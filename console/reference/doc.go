// Package reference is the console's pages about the API: its operations, and each type of error that it answers with.
//
// It owns how they are shown; what they say is data that the API makes from the table that serves, given to it as internal/apidoc.
package reference
