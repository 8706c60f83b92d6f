package upstream

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"ambit.dev/ambit/models"
	"ambit.dev/ambit/models/internal/sse"
)

// Timeouts of a call.
type Timeouts struct {
	// Idle is how long nothing may come, the first byte included. Models that reason in silence need minutes.
	Idle time.Duration
	// Total is how long a call may take in all.
	Total time.Duration
}

// DefaultTimeouts suit hosted models.
var DefaultTimeouts = Timeouts{Idle: 3 * time.Minute, Total: 30 * time.Minute}

const (
	maxErrorBody = 64 << 10
	maxListBody  = 8 << 20
)

// Client talks to one base URL.
type Client struct {
	base     *url.URL
	http     *http.Client
	timeouts Timeouts
	header   http.Header
	secrets  []string
	explain  Explain
}

// Explain reads a provider's error body: the kind that it means ("" leaves the status to decide) and its message.
type Explain func(status int, body []byte) (kind models.ErrorKind, message string)

// Config of a Client.
type Config struct {
	BaseURL string
	// Header is sent with each request. Secrets are cut out of every message that leaves this package.
	Header   http.Header
	Secrets  []string
	Timeouts Timeouts
	Explain  Explain
	// Transport is for tests; nil makes one.
	Transport http.RoundTripper
}

// New checks the base URL. Zero time-outs become the defaults.
func New(c Config) (*Client, error) {
	base, err := url.Parse(strings.TrimRight(c.BaseURL, "/"))
	if err != nil || (base.Scheme != "http" && base.Scheme != "https") || base.Host == "" {
		return nil, fmt.Errorf("base URL %q: want http://host or https://host", models.Redact(c.BaseURL, c.Secrets...))
	}
	if base.User != nil {
		return nil, errors.New("base URL: credentials do not belong in a URL; set the key instead")
	}
	if c.Timeouts.Idle <= 0 {
		c.Timeouts.Idle = DefaultTimeouts.Idle
	}
	if c.Timeouts.Total <= 0 {
		c.Timeouts.Total = DefaultTimeouts.Total
	}
	transport := c.Transport
	if transport == nil {
		transport = &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    10 * time.Second,
			ForceAttemptHTTP2:      true,
			MaxIdleConns:           256,
			MaxIdleConnsPerHost:    128,
			IdleConnTimeout:        60 * time.Second,
			MaxResponseHeaderBytes: 256 << 10,
		}
	}
	return &Client{
		base: base, timeouts: c.Timeouts, header: c.Header, secrets: c.Secrets, explain: c.Explain,
		http: &http.Client{
			Transport: transport,
			// A redirect could carry the key to another host.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// Host is the base URL's host name, without the port.
func (c *Client) Host() string { return c.base.Hostname() }

// CloseIdle drops pooled connections.
func (c *Client) CloseIdle() { c.http.CloseIdleConnections() }

var (
	errIdle  = errors.New("nothing came in time")
	errTotal = errors.New("the call took too long in all")
)

// Stream is a reply whose body is being read.
type Stream struct {
	client *Client
	parent context.Context
	ctx    context.Context
	cancel context.CancelCauseFunc
	idle   *time.Timer
	total  *time.Timer
	body   io.ReadCloser
	events *sse.Reader
	// RequestID is what the provider calls this request, if it says.
	RequestID string
}

// Stream posts body and returns the event stream of a 200. The caller closes it.
func (c *Client) Stream(parent context.Context, path string, body []byte, effectKey string) (*Stream, *models.Error) {
	ctx, cancel := context.WithCancelCause(parent)
	s := &Stream{client: c, parent: parent, ctx: ctx, cancel: cancel}
	s.idle = time.AfterFunc(c.timeouts.Idle, func() { cancel(errIdle) })
	s.total = time.AfterFunc(c.timeouts.Total, func() { cancel(errTotal) })
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base.String()+path, bytes.NewReader(body))
	if err != nil {
		s.Close()
		return nil, models.NewError(models.BadRequest, "the request could not be made", err)
	}
	for k, v := range c.header {
		req.Header[k] = v
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "text/event-stream")
	if effectKey != "" {
		// The lower-case spelling is deliberate. net/http takes a POST with the canonical "Idempotency-Key" for one that it may send a
		// second time by itself after bytes went out, and each attempt that reaches a provider needs an admission of its own. Unknown to
		// it, it sends again only what never left.
		req.Header["idempotency-key"] = []string{effectKey}
	}
	resp, err := c.http.Do(req) //nolint:bodyclose // Stream.Close closes it
	if err != nil {
		e := s.Classify(err)
		s.Close()
		return nil, e
	}
	s.body = resp.Body
	s.RequestID = requestID(resp.Header)
	if resp.StatusCode != http.StatusOK {
		defer s.Close()
		return nil, c.refused(resp, s)
	}
	if media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || media != "text/event-stream" {
		defer s.Close()
		return nil, models.NewError(models.MalformedReply,
			fmt.Sprintf("the reply is not an event stream (content type %q)", models.Redact(resp.Header.Get("Content-Type"), c.secrets...)), err)
	}
	s.events = sse.NewReader(idleReader{s})
	return s, nil
}

func requestID(h http.Header) string {
	for _, name := range []string{"Request-Id", "X-Request-Id"} {
		if v := h.Get(name); v != "" && len(v) <= 200 {
			return v
		}
	}
	return ""
}

// Next returns the next event, or io.EOF, or what Classify can explain.
func (s *Stream) Next() (sse.Event, error) { return s.events.Next() }

// Close ends the call and frees its connection.
func (s *Stream) Close() {
	s.idle.Stop()
	s.total.Stop()
	s.cancel(nil)
	if s.body != nil {
		_ = s.body.Close() // nothing of it is wanted any more
	}
}

// Drain reads what little may follow a reply's proper end, so that the connection can be used again. It gives up after a moment.
func (s *Stream) Drain() {
	s.idle.Reset(250 * time.Millisecond)
	_, _ = io.Copy(io.Discard, io.LimitReader(s.body, 64<<10)) // whatever goes wrong here, the reply is whole
}

type idleReader struct{ s *Stream }

// Read counts the idle time from the last byte that came.
func (r idleReader) Read(p []byte) (int, error) {
	n, err := r.s.body.Read(p)
	if n > 0 {
		r.s.idle.Reset(r.s.client.timeouts.Idle)
	}
	return n, err
}

// Classify turns an error of the connection into a model error.
func (s *Stream) Classify(err error) *models.Error {
	c := s.client
	cause := context.Cause(s.ctx)
	switch {
	case s.parent.Err() != nil && !errors.Is(cause, errIdle) && !errors.Is(cause, errTotal):
		if errors.Is(s.parent.Err(), context.DeadlineExceeded) {
			return models.NewError(models.Timeout, "the caller's time was up", s.parent.Err())
		}
		return models.NewError(models.Cancelled, "the call was cancelled", s.parent.Err())
	case errors.Is(cause, errIdle):
		return models.NewError(models.Timeout, fmt.Sprintf("nothing came for %s", c.timeouts.Idle), errIdle)
	case errors.Is(cause, errTotal):
		return models.NewError(models.Timeout, fmt.Sprintf("the call took longer than %s", c.timeouts.Total), errTotal)
	case errors.Is(err, sse.ErrTooLarge):
		return models.NewError(models.MalformedReply, err.Error(), err)
	}
	var op *net.OpError
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return models.NewError(models.Unreachable, "the host name "+c.Host()+" was not found", err)
	case errors.As(err, &op) && op.Op == "dial", errors.Is(err, syscall.ECONNREFUSED):
		return models.NewError(models.Unreachable, "no connection to "+c.Host(), err)
	}
	var certificate *tls.CertificateVerificationError
	if errors.As(err, &certificate) {
		e := models.NewError(models.Unreachable, "the certificate of "+c.Host()+" is not trusted", err)
		e.Retryable = false
		return e
	}
	if errors.Is(err, io.ErrUnexpectedEOF) && s.events != nil {
		return models.NewError(models.TruncatedStream, "the connection closed in mid-stream", err)
	}
	return models.NewError(models.ConnectionReset, "the connection to "+c.Host()+" broke", err)
}

func (c *Client) refused(resp *http.Response, s *Stream) *models.Error {
	body, err := io.ReadAll(io.LimitReader(idleReader{s}, maxErrorBody))
	if err != nil && len(body) == 0 && context.Cause(s.ctx) != nil {
		return s.Classify(err)
	}
	return c.Refusal(resp.StatusCode, resp.Header, body)
}

// Refusal turns a status and an error body into a model error. Status 0 is an error inside a stream.
func (c *Client) Refusal(status int, header http.Header, body []byte) *models.Error {
	var kind models.ErrorKind
	message := ""
	if c.explain != nil {
		kind, message = c.explain(status, body)
	}
	if kind == "" {
		kind = kindOfStatus(status)
	}
	if message == "" {
		message = http.StatusText(status)
	}
	e := models.NewError(kind, models.Redact(message, c.secrets...), nil)
	e.Status = status
	e.RetryAfter = RetryAfter(header, time.Now())
	return e
}

func kindOfStatus(status int) models.ErrorKind {
	switch {
	case status == http.StatusTooManyRequests:
		return models.RateLimited
	case status == 529, status == http.StatusServiceUnavailable:
		return models.Overloaded
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return models.Authentication
	case status == http.StatusPaymentRequired:
		return models.QuotaExhausted
	case status == http.StatusRequestTimeout, status == http.StatusGatewayTimeout, status == http.StatusConflict, status == http.StatusTooEarly:
		return models.ServerError // each may succeed when sent again
	case status == http.StatusRequestEntityTooLarge:
		return models.ContextTooLong
	case status >= 500, status == 0:
		return models.ServerError
	default: // redirects too: the base URL is wrong
		return models.BadRequest
	}
}

// Get fetches a small JSON document, such as a list of models, within the given time.
func (c *Client) Get(ctx context.Context, path string, limit time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base.String()+path, nil)
	if err != nil {
		return nil, fmt.Errorf("make a request to %s: %w", c.Host(), err)
	}
	for k, v := range c.header {
		req.Header[k] = v
	}
	req.Header.Set("Accept", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", c.Host(), err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxListBody))
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", c.Host(), err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, c.Refusal(resp.StatusCode, resp.Header, body)
	}
	return body, nil
}
