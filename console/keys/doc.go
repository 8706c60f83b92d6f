// Package keys is the console's pages about API keys: the list, and making one, whose secret is shown once.
//
// It owns how keys are shown. What a key may do and how it is kept is tenants'.
package keys
