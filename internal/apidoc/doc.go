// Package apidoc holds what is written about the API as plain data: its operations with their parameters and fields, and its error
// types. The API fills it from the route table that serves; the console renders it as pages.
//
// It owns the shapes only, and imports nothing but the standard library, so that two surfaces which may not import each other can
// share them.
package apidoc
