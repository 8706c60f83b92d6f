package egress

import (
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// hopByHop are headers about one connection, or about the message's own frame: who may set them can make two readers see two messages.
var hopByHop = map[string]bool{
	"Connection": true, "Keep-Alive": true, "Proxy-Authenticate": true, "Proxy-Authorization": true, "Proxy-Connection": true, "Te": true,
	"Trailer": true, "Transfer-Encoding": true, "Upgrade": true, "Host": true, "Content-Length": true, "Expect": true,
	"Accept-Encoding": true, // an answer is unpacked here, under the bound of its unpacked size
}

// CheckHeader refuses headers that belong to the connection and not to the message, and values that would begin another header.
func CheckHeader(h http.Header) error {
	size := 0
	for name, values := range h {
		if !httpguts.ValidHeaderFieldName(name) {
			return refuse(BadHeader, "%q is no name of a header.", short(name))
		}
		if hopByHop[http.CanonicalHeaderKey(name)] || strings.HasPrefix(strings.ToLower(name), "proxy-") {
			return refuse(BadHeader, "The header %s can't be set: it belongs to the connection.", http.CanonicalHeaderKey(name))
		}
		for _, v := range values {
			if !httpguts.ValidHeaderFieldValue(v) {
				return refuse(BadHeader, "The value of the header %s has a line break or a control character in it.", http.CanonicalHeaderKey(name))
			}
			size += len(name) + len(v) + 4
		}
	}
	if size > MaxHeaderBytes {
		return refuse(BadHeader, "The headers have more than %d bytes.", MaxHeaderBytes)
	}
	return nil
}

// elsewhere are the headers that go along when a redirect leads to another origin. All others may be credentials, whatever they are called.
var elsewhere = map[string]bool{
	"Accept": true, "Accept-Language": true, "Content-Type": true, "Content-Language": true, "User-Agent": true, "Idempotency-Key": true,
}

// hop is one request of a chain.
type hop struct {
	method  string
	target  Target
	header  http.Header
	body    []byte
	rules   Rules
	maxBody int64
}

func redirects(res *Response) bool {
	switch res.Status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return res.Header.Get("Location") != ""
	default:
		return false
	}
}

// after is the request that a redirect asks for, by the rules of RFC 9110.
func (h hop) after(res *Response) (hop, error) {
	target, err := h.target.follow(res.Header.Get("Location"))
	if err != nil {
		return hop{}, err
	}
	next := hop{method: h.method, target: target, header: http.Header{}, body: h.body, rules: h.rules, maxBody: h.maxBody}
	kept := res.Status == http.StatusTemporaryRedirect || res.Status == http.StatusPermanentRedirect
	if !kept && h.method != http.MethodGet && h.method != http.MethodHead && (h.method == http.MethodPost || res.Status == http.StatusSeeOther) {
		next.method, next.body = http.MethodGet, nil
	}
	away := !h.target.sameOrigin(target)
	for name, values := range h.header {
		canonical := http.CanonicalHeaderKey(name)
		if (away && !elsewhere[canonical]) || (next.body == nil && strings.HasPrefix(canonical, "Content-")) {
			continue
		}
		next.header[canonical] = values
	}
	return next, nil
}
