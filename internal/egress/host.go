package egress

import (
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

// Host is a host in its one spelling: a name in lower case and punycode without a final dot, or an address. It is comparable.
type Host struct {
	name string
	addr netip.Addr
}

// String is the spelling that rules and logs show; an IPv6 address has no brackets.
func (h Host) String() string {
	if h.addr.IsValid() {
		return h.addr.String()
	}
	return h.name
}

// Addr is the address, if the host was written as one.
func (h Host) Addr() (netip.Addr, bool) { return h.addr, h.addr.IsValid() }

// inURL is the host as an authority has it.
func (h Host) inURL() string {
	if h.addr.Is6() {
		return "[" + h.addr.String() + "]"
	}
	return h.String()
}

// names maps what people write to what DNS knows, by UTS 46: case, width and the dots of other scripts fold into one spelling, while two
// names that only look alike remain two.
var names = idna.New(
	idna.MapForLookup(), idna.Transitional(false), idna.BidiRule(), idna.StrictDomainName(true), idna.CheckHyphens(false), idna.VerifyDNSLength(true),
)

// ParseHost reads a host without its port. It refuses what is an address in disguise (decimal, octal, hexadecimal, shortened, mapped into
// IPv6), what has a zone, and names of one label, which mean something else on every machine.
func ParseHost(raw string) (Host, error) {
	if raw == "" {
		return Host{}, refuse(BadURL, "The address names no host.")
	}
	if len(raw) > 512 {
		return Host{}, refuse(BadURL, "The host has more characters than a name can have.")
	}
	if inner, ok := strings.CutPrefix(raw, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		if !ok || !strings.Contains(inner, ":") {
			return Host{}, refuse(BadURL, "The brackets round the host hold no IPv6 address.")
		}
		return parseIPv6(inner)
	}
	if strings.Contains(raw, ":") {
		return parseIPv6(raw)
	}
	name, err := names.ToASCII(strings.TrimSuffix(strings.TrimSuffix(raw, "."), "\u3002"))
	if err != nil || name == "" || name[0] == '.' || strings.HasSuffix(name, ".") || strings.Contains(name, "..") {
		return Host{}, refuse(BadURL, "%q is no host name.", short(raw))
	}
	if again, err := names.ToASCII(name); err != nil || again != name {
		return Host{}, refuse(BadURL, "%q is no host name: it can be read in two ways.", short(raw))
	}
	if addr, err := netip.ParseAddr(name); err == nil && name == raw {
		return Host{addr: addr}, nil
	}
	// Many resolvers read "0x7f.1", "2130706433" or "127.1" as addresses, each in its own way. A real name never ends in a number.
	last := name[strings.LastIndexByte(name, '.')+1:]
	if numeric(last) {
		return Host{}, refuse(BadURL, "%q is an unusual spelling of an address; write it as four decimal numbers, or as a name.", short(raw))
	}
	if !strings.Contains(name, ".") && name != "localhost" {
		return Host{}, refuse(BadURL, "%q is a name of one label, which means something else on every network; write the whole name.", short(raw))
	}
	return Host{name: name}, nil
}

func parseIPv6(s string) (Host, error) {
	addr, err := netip.ParseAddr(s)
	if err != nil || !addr.Is6() || addr.Zone() != "" {
		return Host{}, refuse(BadURL, "%q is no address that can be reached from here.", short(s))
	}
	if addr.Is4In6() {
		return Host{}, refuse(BadURL, "%q is an IPv4 address in disguise; write it as four decimal numbers.", short(s))
	}
	return Host{addr: addr}, nil
}

// numeric reports whether a label is a number in any of the ways in which C's inet_aton reads one.
func numeric(label string) bool {
	if hex, ok := strings.CutPrefix(label, "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return label != "" && strings.Trim(label, "0123456789") == ""
}

// parsePort reads a port; empty is the scheme's own.
func parsePort(raw, scheme string) (uint16, error) {
	if raw == "" {
		if scheme == "http" {
			return 80, nil
		}
		return 443, nil
	}
	n, err := strconv.ParseUint(raw, 10, 16)
	if err != nil || n == 0 || raw[0] == '0' || raw[0] == '+' {
		return 0, refuse(BadURL, "%q is no port.", short(raw))
	}
	return uint16(n), nil
}

func short(s string) string {
	const most = 120
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
