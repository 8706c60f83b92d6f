package egress

import (
	"strconv"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// Rule allows a host: exactly ("api.example.com"), with all that is below it ("*.example.com", which is not example.com itself), or an
// address ("203.0.113.7", "[2001:db8::7]"). Without a port it allows 80 and 443, with one ("api.example.com:8443") that alone.
type Rule struct {
	host  Host
	below bool
	port  uint16
}

// ParseRule reads a rule. Ports below 1024 other than 80 and 443 are refused: there mail servers and the like listen, which an HTTP request
// may be made to speak to.
func ParseRule(raw string) (Rule, error) {
	var r Rule
	rest, below := strings.CutPrefix(raw, "*.")
	r.below = below
	if strings.Contains(rest, "/") || strings.Contains(rest, "@") {
		return Rule{}, refuse(BadURL, "%q is no host; leave scheme, user and path out.", short(raw))
	}
	if i := portAt(rest); i >= 0 {
		port, err := parsePort(rest[i+1:], "")
		if err != nil || i+1 == len(rest) {
			return Rule{}, refuse(BadURL, "%q has no proper port.", short(raw))
		}
		if port < 1024 && port != 80 && port != 443 {
			return Rule{}, refuse(BadURL, "The port %d is not allowed: 80, 443, or one above 1023.", port)
		}
		r.port, rest = port, rest[:i]
	}
	if strings.Contains(rest, "*") {
		return Rule{}, refuse(BadURL, `%q is no rule: a star stands for whole labels at the beginning, as in "*.example.com".`, short(raw))
	}
	host, err := ParseHost(rest)
	if err != nil {
		return Rule{}, err
	}
	r.host = host
	if !below {
		return r, nil
	}
	if _, isAddr := host.Addr(); isAddr {
		return Rule{}, refuse(BadURL, "%q is no rule: there is nothing below an address.", short(raw))
	}
	if suffix, icann := publicsuffix.PublicSuffix(host.name); suffix == host.name && (icann || !strings.Contains(host.name, ".")) {
		return Rule{}, refuse(BadURL, "%q would allow every domain below %s; name one.", short(raw), host)
	}
	return r, nil
}

// portAt finds the colon before a port, which an IPv6 address without brackets has not.
func portAt(s string) int {
	if end := strings.LastIndexByte(s, ']'); end >= 0 {
		if end+1 < len(s) && s[end+1] == ':' {
			return end + 1
		}
		return -1
	}
	if strings.Count(s, ":") != 1 {
		return -1
	}
	return strings.IndexByte(s, ':')
}

// String is the rule in its one spelling.
func (r Rule) String() string {
	s := r.host.inURL()
	if r.below {
		s = "*." + s
	}
	if r.port != 0 {
		s += ":" + strconv.Itoa(int(r.port))
	}
	return s
}

// Allows reports whether the rule allows a target.
func (r Rule) Allows(t Target) bool {
	if r.port != t.Port && (r.port != 0 || (t.Port != 80 && t.Port != 443)) {
		return false
	}
	return r.matches(t.Host)
}

func (r Rule) matches(h Host) bool {
	if r.below {
		return h.name != "" && strings.HasSuffix(h.name, "."+r.host.name)
	}
	return h == r.host
}

// Rules allow what any of them allows. None allow nothing.
type Rules []Rule

// ParseRules reads a list of rules; its error is that of the first that is wrong, with its place.
func ParseRules(raw []string) (Rules, int, error) {
	out := make(Rules, 0, len(raw))
	for i, s := range raw {
		r, err := ParseRule(s)
		if err != nil {
			return nil, i, err
		}
		out = append(out, r)
	}
	return out, -1, nil
}

// Exactly is the rule for one target alone.
func Exactly(t Target) Rules { return Rules{{host: t.Host, port: t.Port}} }

// Allow reports whether any rule allows a target.
func (rs Rules) Allow(t Target) bool {
	for _, r := range rs {
		if r.Allows(t) {
			return true
		}
	}
	return false
}

// Narrow keeps of the rules what they allow of one host, on whichever port: a request that was decided on for that host stays there.
func (rs Rules) Narrow(h Host) Rules {
	var out Rules
	for _, r := range rs {
		if r.matches(h) {
			out = append(out, Rule{host: h, port: r.port})
		}
	}
	return out
}

// String lists the rules for a person.
func (rs Rules) String() string {
	if len(rs) == 0 {
		return "none"
	}
	parts := make([]string, len(rs))
	for i, r := range rs {
		parts[i] = r.String()
	}
	return strings.Join(parts, ", ")
}
