package policy

import (
	"errors"
	"net/netip"
	"regexp"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// matches reports whether s fits a pattern in which * stands for any run of characters. It takes time in proportion to the two lengths'
// product at worst, and never more.
func matches(pattern, s string) bool {
	if pattern == Any {
		return true
	}
	star := strings.IndexByte(pattern, '*')
	if star < 0 {
		return pattern == s
	}
	if len(s) < star || pattern[:star] != s[:star] {
		return false
	}
	pattern, s = pattern[star:], s[star:]
	p, i, afterStar, mark := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			p++
			afterStar, mark = p, i
		case p < len(pattern) && pattern[p] == s[i]:
			p++
			i++
		default: // let the last star take one character more
			mark++
			p, i = afterStar, mark
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// simplify makes one star of several.
func simplify(pattern string) string {
	for strings.Contains(pattern, "**") {
		pattern = strings.ReplaceAll(pattern, "**", "*")
	}
	return pattern
}

var errHost = errors.New("not a host name or an IP address")

// numberHost is a host that resolvers may take for an address in another spelling: 127.1, 0x7f.0.0.1, 2130706433.
var numberHost = regexp.MustCompile(`(^|\.)(0x[0-9a-f]*|[0-9]+)$`)

// CanonicalHost returns a host in the one spelling in which rules and requests are compared: names in lower-case ASCII without a dot at
// the end, addresses as netip writes them, IPv4 in IPv6 unwrapped. Spellings of addresses that only some resolvers understand are
// refused, as is a zone, a port, and anything else.
func CanonicalHost(host string) (string, error) {
	if inside, ok := strings.CutPrefix(host, "["); ok {
		if host, ok = strings.CutSuffix(inside, "]"); !ok || !strings.Contains(host, ":") {
			return "", errHost
		}
	}
	host = strings.TrimSuffix(host, ".")
	if addr, err := netip.ParseAddr(host); err == nil {
		if addr.Zone() != "" {
			return "", errHost
		}
		return addr.Unmap().String(), nil
	}
	name, err := idna.Lookup.ToASCII(host)
	if err != nil || name == "" || len(name) > 253 || !utf8.ValidString(host) || strings.ContainsAny(name, " /:@?#%\\\"'*,;[]") {
		return "", errHost
	}
	name = strings.ToLower(name)
	if strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".") || strings.Contains(name, "..") || numberHost.MatchString(name) {
		return "", errHost
	}
	if again, err := idna.Lookup.ToASCII(name); err != nil || again != name {
		return "", errHost // what has no one spelling can't be compared
	}
	return name, nil
}

// plainName reports whether a host is canonical beyond doubt, without the cost of making it so: lower-case letters, digits and single
// hyphens and dots, with a letter at the beginning and in the last label.
func plainName(host string) bool {
	if len(host) > 253 || host[0] < 'a' || host[0] > 'z' {
		return false
	}
	var before byte
	last := byte(0) // the first character of the last label
	for i := range len(host) {
		c := host[i]
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
			if before == '.' || before == 0 {
				last = c
			}
		case (c == '-' || c == '.') && before != '.' && before != '-':
		default:
			return false
		}
		before = c
	}
	return last >= 'a' && before != '.' && before != '-'
}

// canonicalDomain is CanonicalHost for a rule's pattern: a host, "*." and a name for all names below it, or "*".
func canonicalDomain(pattern string) (string, error) {
	if pattern == Any {
		return Any, nil
	}
	below, wild := strings.CutPrefix(pattern, "*.")
	name, err := CanonicalHost(below)
	if err != nil {
		return "", err
	}
	if !wild {
		return name, nil
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return "", errHost
	}
	return "*." + name, nil
}

// inDomain compares two canonical spellings.
func inDomain(pattern, host string) bool {
	if host == "" {
		return false
	}
	if pattern == Any {
		return true
	}
	if suffix, ok := strings.CutPrefix(pattern, "*"); ok {
		return len(host) > len(suffix) && strings.HasSuffix(host, suffix)
	}
	return pattern == host
}
