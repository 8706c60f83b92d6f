// Package money holds amounts as integer nano-dollars and reads and writes them without ever passing through floating point.
//
// One dollar is 1,000,000,000 nano-dollars, so that a fraction of a cent per token is exact. An int64 reaches $9.2 billion, above any
// amount that the API accepts. Outside the process an amount is a decimal string with a currency, never a JSON number.
//
// It knows nothing of accounts, holds or prices.
package money
