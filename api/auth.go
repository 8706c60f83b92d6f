package api

import (
	"strings"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/tenants"
)

// bearer reads the Authorization header.
func bearer(header []string) (string, error) {
	if len(header) == 0 {
		return "", fault.New(fault.Unauthenticated, "unauthenticated", "Send Authorization: Bearer amb_… with an API key.")
	}
	scheme, secret, ok := strings.Cut(header[0], " ")
	if len(header) > 1 || !ok || !strings.EqualFold(scheme, "Bearer") || secret == "" {
		return "", fault.New(fault.Unauthenticated, "unauthenticated", "The Authorization header must be Bearer, a space, and an API key.")
	}
	return strings.TrimSpace(secret), nil
}

// permit looks the route's permission up. What the caller may not read at all is missing, so a denied read of one thing is the 404 that
// an unknown id gets; a list and a change have no id to hide, and are told what they lack.
func (a *API) permit(c *call) error {
	if tenants.Allowed(c.who, c.route.Permission) {
		return nil
	}
	if c.r.Method == "GET" && strings.Contains(c.route.Path, "{") {
		return fault.NotFound()
	}
	return fault.Newf(fault.Forbidden, slugDenied, "This key was not given the permission %s.", c.route.Permission).With("rule", c.route.Permission)
}

// projectHeader reads Ambit-Project. One that is no id names a project that nobody has.
func projectHeader(values []string) (id.Project, error) {
	if len(values) == 0 {
		return "", nil
	}
	p, err := id.Parse[id.Project](values[0])
	if err != nil || len(values) > 1 {
		return "", fault.InvalidField("header/Ambit-Project", "invalid_value", "Ambit-Project must be one project's id: prj_….")
	}
	return p, nil
}

func (a *API) authenticate(c *call) error {
	return fault.New(fault.Unavailable, slugUnavailable, "not yet")
}
