package id

// Stop identifies an order to stop all that works in a scope.
type Stop string

// Prefix implements Kind.
func (Stop) Prefix() string { return "sto" }
