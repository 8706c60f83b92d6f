package identity

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
)

// RelyingParty is who a passkey is for: a browser gives an answer to the pages of this origin only, and an authenticator keys it to the ID.
type RelyingParty struct {
	// ID is a domain: the public URL's host.
	ID string
	// Origin is the scheme, host and port of the pages.
	Origin string
	// Usable is false where browsers refuse passkeys: pages under a bare address, and pages without TLS away from localhost.
	Usable bool
}

// RelyingPartyOf derives it from the public URL. Passkeys know domains only, so for a loopback address it is localhost, with the same
// port: the pages must then be opened under that name.
func RelyingPartyOf(publicURL string) (RelyingParty, error) {
	u, err := url.Parse(publicURL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return RelyingParty{}, fmt.Errorf("identity: the public URL %q must begin with http:// or https://", publicURL)
	}
	host := strings.ToLower(u.Hostname())
	address, isAddress := netip.ParseAddr(host)
	loopback := isAddress == nil && address.IsLoopback()
	if loopback {
		host = "localhost"
	}
	origin := u.Scheme + "://" + host
	if port := u.Port(); port != "" && !(u.Scheme == "http" && port == "80") && !(u.Scheme == "https" && port == "443") {
		origin = u.Scheme + "://" + net.JoinHostPort(host, port)
	}
	local := host == "localhost" || strings.HasSuffix(host, ".localhost")
	return RelyingParty{ID: host, Origin: origin, Usable: (isAddress != nil || loopback) && (u.Scheme == "https" || local)}, nil
}
