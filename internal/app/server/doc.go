// Package server wires the parts of one Ambit process together by its role: the API, the console, the worker, or all of them.
//
// It owns the order in which parts start and stop, and nothing else: no rule, no query, no route. It is the one place that knows all
// domains and both surfaces.
package server
