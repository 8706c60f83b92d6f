// Package enginescmd is the command "ambit engines": it obtains what an instance,
// or its tests, stand on, and shows where it is.
//
// It may import internal/config and internal/engines.
package enginescmd
