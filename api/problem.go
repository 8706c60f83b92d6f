package api

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/httpx"
)

// problemType is the media type of RFC 9457.
const problemType = "application/problem+json"

// problems turns errors into answers. It is the only place that does.
type problems struct {
	baseURL string
	log     *slog.Logger
}

// kindSlugs is what a fault is shown as when its code is no slug: its kind still says what a client can do.
var kindSlugs = map[fault.Kind]string{
	fault.Invalid: slugInvalid, fault.Unauthenticated: "unauthenticated", fault.PaymentRequired: "insufficient_funds",
	fault.Forbidden: slugDenied, fault.NotFoundKind: slugNotFound, fault.Gone: "gone", fault.Conflict: "state_conflict",
	fault.PreconditionFailed: "precondition_failed", fault.TooLarge: slugTooLarge, fault.UnsupportedMedia: slugMedia,
	fault.Unprocessable: slugInvalid, fault.PreconditionRequired: "precondition_required", fault.TooMany: slugRate,
	fault.Internal: slugInternal, fault.BadGateway: "provider_failed", fault.Unavailable: slugUnavailable,
	fault.GatewayTimeout: "provider_timeout",
}

// write answers with err. When the answer has begun already it only logs: a second status can't be sent.
func (p *problems) write(w http.ResponseWriter, r *http.Request, err error) {
	f := fault.As(err)
	rid := httpx.RequestIDFrom(r.Context())
	note := httpx.NoteFrom(r.Context())
	if f.Kind == fault.Internal || f.Err != nil {
		note.Err = err
	}
	if rec, ok := w.(*httpx.Recorder); ok && rec.Started() {
		p.log.WarnContext(r.Context(), "an answer under way broke off", "request_id", string(rid), "err", err)
		return
	}
	status, body := p.render(f, string(rid))
	h := w.Header()
	h.Set("Content-Type", problemType)
	h.Set("Cache-Control", "no-store")
	for _, name := range []string{"ETag", "Location", "Content-Disposition", "Content-Length"} {
		h.Del(name)
	}
	if f.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(wholeSeconds(f.RetryAfter)))
	} else if status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	if status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="ambit"`)
	}
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // the reader is gone; there is nobody to tell
	}
}

// render makes the status and the document. A 404 has no request_id, and one detail for all: what is denied and what is missing are
// the same bytes.
func (p *problems) render(f *fault.Error, requestID string) (int, []byte) {
	slug := f.Code
	if f.Kind == fault.NotFoundKind {
		f, slug, requestID = fault.NotFound(), slugNotFound, ""
	}
	if f.Kind == fault.Invalid && slug == slugInvalid && onlyMoney(f.Fields) {
		slug = slugMoney
	}
	t, ok := errorType(slug)
	if !ok {
		t, _ = errorType(kindSlugs[f.Kind])
	}
	members := []member{
		{"type", p.baseURL + "/errors/" + t.Slug},
		{"title", t.Title},
		{"status", t.Status},
		{"detail", f.Message},
		{"code", t.Slug},
	}
	if requestID != "" {
		members = append(members, member{"request_id", requestID})
	}
	fields := f.Fields
	if fields == nil {
		fields = []fault.Field{}
	}
	members = append(members, member{"retryable", t.Retryable}, member{"errors", fields})
	reserved := len(members)
	names := make([]string, 0, len(f.Details))
	for name := range f.Details {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if !slices.ContainsFunc(members[:reserved], func(m member) bool { return m.name == name }) {
			members = append(members, member{name, f.Details[name]})
		}
	}
	body, err := object(members)
	if err != nil {
		// A detail that is no JSON is our mistake; the reader still gets everything else.
		p.log.Error("a problem's details can't be written", "code", f.Code, "err", err)
		body, _ = object(members[:reserved])
	}
	return t.Status, body
}

func onlyMoney(fields []fault.Field) bool {
	return len(fields) > 0 && !slices.ContainsFunc(fields, func(f fault.Field) bool { return f.Code != slugMoney })
}

type member struct {
	name  string
	value any
}

// object writes members in their order.
func object(members []member) ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range members {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(m.name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(m.value)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteString("}\n")
	return b.Bytes(), nil
}

// wholeSeconds rounds up: who waits as long as he was told must not come too early.
func wholeSeconds(d time.Duration) int { return int(math.Ceil(d.Seconds())) }
