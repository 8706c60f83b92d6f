// Package principal says who acts. It travels in the context from the surface that authenticated somebody to everything done for them.
//
// It owns the type and its place in the context. It does not authenticate anybody (tenants does) and does not decide what may be done
// (governance does).
package principal

import (
	"context"
	"slices"

	"ambit.dev/ambit/internal/id"
)

// Kind tells the sorts of principal apart.
type Kind string

const (
	// User is a person, signed in at the console.
	User Kind = "user"
	// Key is an API key.
	Key Kind = "api_key"
	// Agent is a session's agent, acting on behalf of whoever invoked it.
	Agent Kind = "agent"
	// System is a named part of Ambit itself, such as the lease scan.
	System Kind = "system"
)

// Principal is who acts. The zero value is nobody.
type Principal struct {
	Kind Kind `json:"type"`
	// ID is the user's, key's or session's id, or the system actor's name.
	ID string `json:"id"`
	// Org is the organisation within which this principal acts; empty for a system actor that acts across all.
	Org id.Org `json:"-"`
	// Project is the project within which it acts; empty when a key of the whole organisation named none.
	Project id.Project `json:"-"`
	// Role is the member's role for a user, and empty otherwise.
	Role string `json:"-"`
	// Scopes are the permissions that a key was given, or those of a user's role when the organisation made that role.
	Scopes []string `json:"-"`
	// OnBehalfOf is the id of the user or key for whom an agent acts.
	OnBehalfOf string `json:"on_behalf_of,omitempty"`
	// Trace is the caller's own span, in the form of the header traceparent; empty when the request named none. What was asked for is
	// journalled with it, so that a session can be found from the caller's trace.
	Trace string `json:"traceparent,omitempty"`
}

// IsZero reports whether p is nobody.
func (p Principal) IsZero() bool { return p.Kind == "" }

// HasScope reports whether a key was given the permission, by name or by "*".
func (p Principal) HasScope(permission string) bool {
	return slices.Contains(p.Scopes, "*") || slices.Contains(p.Scopes, permission)
}

// NamedSystem is the principal of a part of Ambit that acts by itself, such as "lease_scan".
func NamedSystem(name string) Principal { return Principal{Kind: System, ID: name} }

type contextKey struct{}

// With returns a context that carries p.
func With(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, contextKey{}, p)
}

// From returns the principal that the context carries, or nobody.
func From(ctx context.Context) Principal {
	p, _ := ctx.Value(contextKey{}).(Principal)
	return p
}
