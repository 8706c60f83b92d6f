// Package prices is the versioned price table: what a token, a tool call or a second of a sandbox costs, in integer nano-dollars, from
// when on.
//
// It owns the table's format, the table that Ambit ships (table.json, checked by hand), the merge with an operator's own file, the
// arithmetic from quantities to money, and importers for the price lists of LiteLLM and models.dev. Nothing in it is a float.
//
// A thing without a price has no cost: Cost and Bound answer price_unknown, and then there is no hold and no call. Models of a local server
// must therefore be named in the operator's file (AMBIT_PRICES_FILE), where a ref may end in "*".
//
// Rounding: token and call prices are whole nano-dollars, so that their products are exact. A price per second is applied to milliseconds
// and rounded up to a whole nano-dollar, once for each line.
//
// It does not own balances, holds or quotes (billing), and does not fetch anything. It imports internal/money and internal/fault only.
package prices
