package builtin

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sort"
	"strings"
	"time"

	"ambit.dev/ambit/connectors"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/internal/egress"
)

//go:embed http_request.md
var httpRequestDescription string

const httpRequestSchema = `{
  "type": "object",
  "properties": {
    "method": {"type": "string", "enum": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"], "description": "GET when left out."},
    "url": {"type": "string", "minLength": 8, "maxLength": 8192, "description": "The whole address, from https:// or http:// on."},
    "headers": {"type": "object", "maxProperties": 50, "additionalProperties": {"type": "string", "maxLength": 8192}, "description": "Headers by name."},
    "body": {"type": "string", "maxLength": 1000000, "description": "The body, as text; not with GET or HEAD. Name its type in the header Content-Type."},
    "timeout_seconds": {"type": "integer", "minimum": 1, "maximum": 120, "description": "How long it may take in all; 30 when left out."}
  },
  "required": ["url"],
  "additionalProperties": false
}`

const (
	defaultRequestLimit = 30 * time.Second
	maxRequestLimit     = 120 * time.Second
	// maxShownHeaders bounds what is shown of an answer's headers, and maxShownBody of its body.
	maxShownHeaders = 4 << 10
	maxShownBody    = connectors.MaxResultBytes - maxShownHeaders - 1<<10
)

// Outside is what http_request works with.
type Outside struct {
	Client *egress.Client
	// Reach is asked at each call and starts from the admission, so that no argument can widen it. An error, as when the database does not
	// answer, means that nothing is sent.
	Reach func(ctx context.Context, g gate.Grant) (Reach, error)
	// Identify makes the token that a host of Reach.Identity is shown; audience is the host's origin. Nil: none is shown, and such a request
	// is not sent.
	Identify func(ctx context.Context, g gate.Grant, audience string) (token string, err error)
	// PlainIdentity lets a token be shown without TLS to a loopback host, for development.
	PlainIdentity bool
}

// Reach is what an admitted call may do.
type Reach struct {
	Hosts egress.Rules
	// Identity are the hosts that are shown the agent's identity.
	Identity egress.Rules
	// Repeated says that an earlier worker had begun this very call, and was lost: it may have been sent before.
	Repeated bool
}

type requestArgs struct {
	Method         string            `json:"method"`
	URL            string            `json:"url"`
	Headers        map[string]string `json:"headers"`
	Body           string            `json:"body"`
	TimeoutSeconds int               `json:"timeout_seconds"`
}

func (a requestArgs) limit() time.Duration {
	if a.TimeoutSeconds <= 0 {
		return defaultRequestLimit
	}
	return min(time.Duration(a.TimeoutSeconds)*time.Second, maxRequestLimit)
}

func (a requestArgs) idempotency() connectors.Idempotency {
	switch a.Method {
	case http.MethodGet, http.MethodHead:
		return connectors.Safe
	case http.MethodPut, http.MethodDelete:
		return connectors.Idempotent
	default:
		return connectors.Neither
	}
}

func requestOf(input json.RawMessage) (requestArgs, error) {
	a, err := args[requestArgs](input)
	if a.Method == "" {
		a.Method = http.MethodGet
	}
	return a, err
}

// HTTPRequest sends requests to the hosts that the agent may reach.
func HTTPRequest(o Outside) connectors.Tool {
	return connectors.Tool{
		Name: "http_request", Mount: Mount, Description: httpRequestDescription, Schema: json.RawMessage(httpRequestSchema), Risk: connectors.HighRisk,
		Idempotency: connectors.Neither, ControlPlane: true,
		Limit: func(input json.RawMessage) time.Duration {
			a, err := requestOf(input)
			if err != nil {
				return defaultRequestLimit
			}
			return a.limit()
		},
		Classify: func(input json.RawMessage) connectors.Idempotency {
			a, err := requestOf(input)
			if err != nil {
				return connectors.Neither
			}
			return a.idempotency()
		},
		Domain: func(input json.RawMessage) string {
			a, err := requestOf(input)
			if err != nil {
				return ""
			}
			t, err := egress.ParseURL(a.URL)
			if err != nil {
				return ""
			}
			return t.Host.String()
		},
		Facets: func(input json.RawMessage) (action, object string) {
			a, err := requestOf(input)
			if err != nil {
				return "", ""
			}
			t, err := egress.ParseURL(a.URL)
			if err != nil {
				return a.Method, ""
			}
			return a.Method, t.WithoutQuery()
		},
		Check: checkRequest,
		Outside: func(ctx context.Context, g gate.Grant, input json.RawMessage) (connectors.Result, error) {
			a, err := requestOf(input)
			if err != nil {
				return connectors.Result{}, err
			}
			return o.send(ctx, g, a)
		},
	}
}

func checkRequest(input json.RawMessage) error {
	a, err := requestOf(input)
	if err != nil {
		return err
	}
	if _, err := egress.ParseURL(a.URL); err != nil {
		return sentence(err)
	}
	if a.Body != "" && (a.Method == http.MethodGet || a.Method == http.MethodHead) {
		return fmt.Errorf("a %s has no body", a.Method)
	}
	h, err := a.header()
	if err != nil {
		return err
	}
	return sentence(egress.CheckHeader(h))
}

// header refuses what is written twice in two spellings: which of them counts would be a matter of luck.
func (a requestArgs) header() (http.Header, error) {
	h := http.Header{}
	for name, value := range a.Headers {
		canonical := http.CanonicalHeaderKey(name)
		if canonical == "Idempotency-Key" {
			return nil, errors.New("the header Idempotency-Key is the platform's: each call has one of its own")
		}
		if h[canonical] != nil {
			return nil, fmt.Errorf("the header %s is given twice", canonical)
		}
		h[canonical] = []string{value}
	}
	return h, nil
}

// sentence fits an error into the list of what is wrong with the arguments, which has its own full stop.
func sentence(err error) error {
	if err == nil {
		return nil
	}
	return errors.New(strings.TrimSuffix(err.Error(), "."))
}

func (o Outside) send(ctx context.Context, g gate.Grant, a requestArgs) (connectors.Result, error) {
	if g.EffectKey == "" {
		return connectors.Result{}, errors.New("a request without an effect key")
	}
	reach, err := o.Reach(ctx, g)
	if err != nil {
		return connectors.Result{}, fmt.Errorf("read which hosts may be reached: %w", err)
	}
	if reach.Repeated && a.idempotency() == connectors.Neither {
		r := connectors.Failed("The worker was lost while this was under way. Whether the %s was sent, and whether the other side acted on it, is not known; it was not sent again. "+
			"Its Idempotency-Key was %s. Find out before you send another.", a.Method, g.EffectKey)
		r.Unknown = true
		return r, nil
	}
	rules := reach.Hosts
	h, err := a.header()
	if err != nil {
		return connectors.Result{}, err
	}
	h.Set("Idempotency-Key", g.EffectKey)
	target, err := egress.ParseURL(a.URL)
	if err != nil {
		return connectors.Failed("Nothing was sent. %s", err), nil
	}
	if !rules.Allow(target) {
		return connectors.Failed("Nothing was sent. This agent may not reach %s. Hosts that it may reach: %s.", target.Origin(), rules), nil
	}
	token := ""
	if reach.Identity.Allow(target) {
		if refused := o.mayIdentify(target, h); refused != "" {
			return connectors.Failed("Nothing was sent. %s", refused), nil
		}
		if token, err = o.Identify(ctx, g, target.Origin()); err != nil {
			return connectors.Result{}, fmt.Errorf("make the agent's token for %s: %w", target.Origin(), err)
		}
		h.Set("Authorization", "Bearer "+token)
	}
	res, err := o.Client.Do(ctx, egress.Request{
		// The decision was about this address. Where a redirect leads is another request, with a decision of its own: rules tell paths apart, not
		// only hosts.
		Method: a.Method, URL: a.URL, Header: h, Body: []byte(a.Body), Rules: rules.Narrow(target.Host), Redirects: 0, Timeout: a.limit(), MaxBody: maxShownBody,
	})
	var refusal *egress.Refusal
	var failure *egress.Failure
	switch {
	case err == nil:
		return without(token, shapeResponse(a, res)), nil
	case errors.As(err, &refusal):
		return connectors.Failed("Nothing was sent. %s", refusal.Message), nil
	case ctx.Err() != nil:
		return connectors.Result{}, ctx.Err() // interrupted from outside
	case !errors.As(err, &failure):
		return connectors.Result{}, err
	}
	return unanswered(a, failure, g.EffectKey), nil
}

// mayIdentify says why the agent's identity can't be shown, if it can't.
func (o Outside) mayIdentify(t egress.Target, h http.Header) string {
	switch addr, isAddr := t.Host.Addr(); {
	case o.Identify == nil:
		return "This agent's identity is to be shown to " + t.Origin() + ", and this Ambit makes no tokens."
	case h.Get("Authorization") != "":
		return "The header Authorization is the platform's for " + t.Origin() + ": it shows this agent's identity there. Leave it out."
	case t.Scheme != "https" && !(o.PlainIdentity && (t.Host.String() == "localhost" || (isAddr && addr.IsLoopback()))):
		return "This agent's identity is shown over https only, and " + t.Origin() + " is not."
	}
	return ""
}

// without keeps the token from the model, should the other side repeat it: it has no use for it, and a journal is kept longer.
func without(token string, r connectors.Result) connectors.Result {
	if token != "" {
		r.Text = strings.ReplaceAll(r.Text, token, "[the agent's token]")
	}
	return r
}

// unanswered says what is known of a request that got no answer.
func unanswered(a requestArgs, f *egress.Failure, key string) connectors.Result {
	why := f.Error()
	if f.TimedOut {
		why = fmt.Sprintf("there was no whole answer within %s", a.limit())
	}
	if !f.Sent {
		return connectors.Failed("Nothing was sent: %s.", strings.TrimSuffix(why, "."))
	}
	if a.idempotency() == connectors.Safe {
		return connectors.Failed("No answer: %s. A %s changes nothing, so it may be sent again.", strings.TrimSuffix(why, "."), a.Method)
	}
	r := connectors.Failed("The request was sent, and %s. Whether the other side acted on it is not known; its Idempotency-Key was %s. Find out before you send it again.",
		strings.TrimSuffix(why, "."), key)
	r.Unknown = true
	return r
}

// shapeResponse is what the model is told: status, headers, body, and in brackets whatever was not as usual.
func shapeResponse(a requestArgs, res *egress.Response) connectors.Result {
	var b strings.Builder
	fmt.Fprintf(&b, "HTTP %d %s\n", res.Status, http.StatusText(res.Status))
	writeHeaders(&b, res.Header)
	b.WriteByte('\n')
	switch {
	case len(res.Body) == 0 && a.Method != http.MethodHead:
		b.WriteString("[no body]")
	case binary(res.Body):
		fmt.Fprintf(&b, "[The body is binary, %s bytes; it is not shown.]", size(res))
	default:
		b.Write(wholeCharacters(res.Body))
		if res.Truncated {
			fmt.Fprintf(&b, "\n[The body is longer: only its first %d bytes are shown, and the rest was not kept. Ask for a part of it.]", len(res.Body))
		}
	}
	elsewhere := res.Status >= 300 && res.Status < 400 && res.Header.Get("Location") != ""
	if elsewhere {
		b.WriteString("\n[This redirect was not followed: where it leads is another request, and is decided on as one. If you may reach it, send a request to the location above.]")
	}
	return connectors.Result{Text: connectors.Clean([]byte(b.String())), IsError: res.Status >= 400 || elsewhere}
}

func size(res *egress.Response) string {
	if res.Truncated {
		return fmt.Sprintf("more than %d", len(res.Body))
	}
	return fmt.Sprint(len(res.Body))
}

func writeHeaders(b *strings.Builder, h http.Header) {
	names := make([]string, 0, len(h))
	for name := range h {
		names = append(names, name)
	}
	sort.Strings(names)
	began := b.Len()
	for _, name := range names {
		line := strings.ToLower(name) + ": " + strings.Join(h[name], ", ") + "\n"
		if b.Len()-began+len(line) > maxShownHeaders {
			b.WriteString("[more headers are left out]\n")
			return
		}
		b.WriteString(line)
	}
}
