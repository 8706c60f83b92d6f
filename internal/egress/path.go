package egress

import (
	"net/url"
	"strings"
)

// onePath brings an escaped path into one spelling: escapes of characters that need none are undone, others have capital digits, and segments "."
// and ".." are resolved, also where they are escaped, as browsers do. It refuses a path that leads elsewhere for a server that takes an escaped
// slash for a slash: what a rule says of one reading would not hold for the other.
func onePath(escaped string) (string, error) {
	var out []string
	segments := strings.Split(unescapeNeedless(escaped), "/")
	for i, s := range segments {
		last := i == len(segments)-1
		switch s {
		case ".", "..":
			if s == ".." && len(out) > 1 {
				out = out[:len(out)-1]
			}
			if last {
				out = append(out, "") // what is left is a directory
			}
			continue
		}
		plain, err := url.PathUnescape(s)
		if err != nil {
			return "", refuse(BadURL, "The address's path can't be read.")
		}
		for inner := range strings.FieldsFuncSeq(plain, func(r rune) bool { return r == '/' || r == '\\' }) {
			if inner == ".." || (inner == "." && inner != plain) {
				return "", refuse(BadURL, "The address's path can be read in two ways: it has an escaped slash beside a dot segment.")
			}
		}
		out = append(out, s)
	}
	return strings.Join(out, "/"), nil
}

// unescapeNeedless undoes the escapes of letters, digits and "-._~", which mean the same either way (RFC 3986, 6.2.2.2).
func unescapeNeedless(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' || i+2 >= len(s) {
			b.WriteByte(s[i])
			continue
		}
		c, err := url.PathUnescape(s[i : i+3])
		switch {
		case err != nil: // no escape; whoever unescapes the whole refuses it
			b.WriteByte(s[i])
			continue
		case unreserved(c[0]):
			b.WriteString(c)
		default:
			b.WriteString(strings.ToUpper(s[i : i+3]))
		}
		i += 2
	}
	return b.String()
}

func unreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}

// forRules is a path as rules see it. Many servers take "//" and "/%2F" for "/": a rule about a path is about those, too.
func forRules(path string) string {
	path = strings.ReplaceAll(path, "%2F", "/")
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return path
}
