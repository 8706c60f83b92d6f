package id

// Invitation identifies an offer to somebody to become a member of an organisation.
type Invitation string

// Prefix implements Kind.
func (Invitation) Prefix() string { return "inv" }
