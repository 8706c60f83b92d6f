package api

import (
	"net/http"
	"strings"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/tracecontext"
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

// speaks refuses an Ambit-Version that this release does not speak. There is one so far.
func speaks(values []string) error {
	if len(values) == 0 || (len(values) == 1 && values[0] == Version) {
		return nil
	}
	return fault.InvalidField("header/Ambit-Version", "invalid_value", "This instance speaks the version "+Version+". Leave Ambit-Version out, or send that.")
}

// anyKey is the permission of a route that asks for a key and for no scope.
const anyKey tenants.Permission = "any key"

// permit looks the route's permission up. What the caller may not read at all is missing, so a denied read of one thing is the 404 that
// an unknown id gets; a list and a change have no id to hide, and are told what they lack.
func (a *API) permit(c *call) error {
	if c.route.Permission == anyKey || tenants.Allowed(c.who, c.route.Permission) {
		return nil
	}
	if c.r.Method == http.MethodGet && strings.Contains(c.route.Path, "{") {
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

// authenticate finds out who asks. The header Ambit-Project binds the request of an organisation's key to one project; for a project's
// key it may only name its own. A project that is missing and one that is another organisation's are the same 404.
func (a *API) authenticate(c *call) error {
	secret, err := bearer(c.r.Header.Values("Authorization"))
	if err != nil {
		return err
	}
	key, err := a.cfg.Domains.Tenants.AuthenticateKey(c.r.Context(), secret)
	if err != nil {
		return err
	}
	c.who = key.Principal()
	if parent, ok := tracecontext.Parse(c.r.Header.Values(tracecontext.Header)); ok {
		c.who.Trace = parent.String()
	}
	named, err := projectHeader(c.r.Header.Values("Ambit-Project"))
	if err != nil || named == "" || named == c.who.Project {
		return err
	}
	if c.who.Project != "" {
		return fault.NotFound()
	}
	if _, err := a.cfg.Domains.Tenants.GetProject(c.r.Context(), c.who.Org, named); err != nil {
		return err
	}
	c.who.Project = named
	return nil
}
