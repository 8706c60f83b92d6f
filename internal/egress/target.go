package egress

import (
	"net/url"
	"strconv"
	"strings"
)

const maxURLLength = 8192

// Target is an address that was read, in one spelling.
type Target struct {
	// Scheme is http or https.
	Scheme string
	Host   Host
	Port   uint16
	url    *url.URL
}

// ParseURL reads an absolute http or https address. It refuses credentials in it, and whatever other readers might read differently.
func ParseURL(raw string) (Target, error) {
	if len(raw) > maxURLLength {
		return Target{}, refuse(BadURL, "The address has more than %d characters.", maxURLLength)
	}
	if strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r == '\\' || r == 0x7f || r == 0xfffd }) {
		return Target{}, refuse(BadURL, "The address has a space, a backslash or a control character in it.")
	}
	u, err := url.Parse(raw)
	if err != nil {
		return Target{}, refuse(BadURL, "The address can't be read as a URL.")
	}
	return targetOf(u)
}

func targetOf(u *url.URL) (Target, error) {
	if u.Scheme != "http" && u.Scheme != "https" { // url.Parse has made it lower case
		return Target{}, refuse(BadURL, "The address must begin with http:// or https://.")
	}
	if u.Opaque != "" || u.Host == "" {
		return Target{}, refuse(BadURL, "The address names no host.")
	}
	if u.User != nil {
		return Target{}, refuse(BadURL, "The address has a user name or a password before its host; send credentials in a header.")
	}
	authority := u.Host
	if strings.HasPrefix(authority, "[") {
		authority = authority[:strings.LastIndexByte(authority, ']')+1]
	} else {
		authority = u.Hostname()
	}
	host, err := ParseHost(authority)
	if err != nil {
		return Target{}, err
	}
	port, err := parsePort(u.Port(), u.Scheme)
	if err != nil {
		return Target{}, err
	}
	t := Target{Scheme: u.Scheme, Host: host, Port: port}
	clean := *u
	clean.Host, clean.Fragment, clean.RawFragment = t.authority(), "", ""
	if clean.RawPath, err = onePath(u.EscapedPath()); err != nil {
		return Target{}, err
	}
	if clean.Path, err = url.PathUnescape(clean.RawPath); err != nil {
		return Target{}, refuse(BadURL, "The address's path can't be read.")
	}
	t.url = &clean
	return t, nil
}

func (t Target) authority() string {
	if (t.Scheme == "https" && t.Port == 443) || (t.Scheme == "http" && t.Port == 80) {
		return t.Host.inURL()
	}
	return t.Host.inURL() + ":" + strconv.Itoa(int(t.Port))
}

// String is the whole address in its one spelling, without a fragment.
func (t Target) String() string { return t.url.String() }

// WithoutQuery is the address up to and with the path, in the spelling that rules look at; a query may hold a secret.
func (t Target) WithoutQuery() string { return t.Origin() + forRules(t.url.EscapedPath()) }

// Origin is the address up to and with the port: what may be shown where the rest may hold a secret.
func (t Target) Origin() string { return t.Scheme + "://" + t.authority() }

// follow resolves the Location of an answer.
func (t Target) follow(location string) (Target, error) {
	if len(location) > maxURLLength || strings.ContainsFunc(location, func(r rune) bool { return r <= ' ' || r == '\\' || r == 0x7f }) {
		return Target{}, refuse(BadRedirect, "The answer redirects to what is no address.")
	}
	u, err := t.url.Parse(location)
	if err != nil {
		return Target{}, refuse(BadRedirect, "The answer redirects to what is no address.")
	}
	next, err := targetOf(u)
	if err != nil {
		return Target{}, err
	}
	if t.Scheme == "https" && next.Scheme == "http" {
		return Target{}, refuse(BadRedirect, "The answer redirects from https to http.")
	}
	return next, nil
}

func (t Target) sameOrigin(other Target) bool {
	return t.Scheme == other.Scheme && t.Host == other.Host && t.Port == other.Port
}
