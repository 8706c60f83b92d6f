package egress

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

// Limits that a request can narrow and not widen.
const (
	MaxRedirects     = 5
	MaxHeaderBytes   = 64 << 10
	MaxBodyBytes     = 32 << 20
	MaxRequestBytes  = 8 << 20
	MaxTimeout       = 10 * time.Minute
	defaultBodyBytes = 1 << 20
	defaultTimeout   = 30 * time.Second
	defaultUserAgent = "Ambit"
	handshakeTimeout = 10 * time.Second
)

// Config says how a client reaches the world. The zero value is for production.
type Config struct {
	// AllowLoopback lets a request reach this machine's loopback, for tests and for trying things out. Never in production: everything that
	// listens there would be open to tenants.
	AllowLoopback bool
	// Resolver finds addresses; nil is the machine's.
	Resolver Resolver
	// RootCAs are trusted in place of the machine's, for tests.
	RootCAs *x509.CertPool
	// UserAgent is sent where the request names none.
	UserAgent string
}

// Client makes requests. It is safe for concurrent use and keeps nothing between two requests.
type Client struct {
	cfg       Config
	transport *http.Transport
}

// New makes a client.
func New(cfg Config) *Client {
	if cfg.Resolver == nil {
		cfg.Resolver = net.DefaultResolver
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = defaultUserAgent
	}
	c := &Client{cfg: cfg}
	c.transport = &http.Transport{
		Proxy:       nil, // not from the environment: a proxy would dial where nobody checks
		DialContext: c.dial, TLSHandshakeTimeout: handshakeTimeout, MaxResponseHeaderBytes: MaxHeaderBytes,
		// A kept connection would be one that another request had checked.
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: cfg.RootCAs},
	}
	return c
}

// AllowsLoopback reports whether this client reaches loopback.
func (c *Client) AllowsLoopback() bool { return c.cfg.AllowLoopback }

// methods are those that can be sent: not CONNECT, which makes a tunnel, and not TRACE, which gives headers back.
var methods = map[string]bool{
	http.MethodGet: true, http.MethodHead: true, http.MethodPost: true, http.MethodPut: true, http.MethodPatch: true, http.MethodDelete: true, http.MethodOptions: true,
}

// Request is what is to be sent.
type Request struct {
	Method string
	URL    string
	// Header has the caller's headers; see CheckHeader for those that it may not set.
	Header http.Header
	Body   []byte
	// Rules say which hosts may be reached, by this request and by its redirects. None allow nothing.
	Rules Rules
	// Redirects is how many are followed, at most MaxRedirects.
	Redirects int
	// Timeout bounds all of it, from the look-up to the body's last byte; 0 is 30 s.
	Timeout time.Duration
	// MaxBody bounds what is kept of the answer's body, unpacked; 0 is 1 MiB.
	MaxBody int64
}

// Response is an answer, read to its end or to the bound.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
	// Truncated says that the body was longer.
	Truncated bool
	// URL is where the answer came from, after redirects.
	URL string
	// Redirects are the addresses in between.
	Redirects []string
	// NotFollowed says why a redirect that this answer is was not followed; nil otherwise.
	NotFollowed *Refusal
}

// Check refuses what Do would refuse before it sends anything: the address, the rules, and where the name points now. It makes no promise
// about later: Do checks again, at the dial.
func (c *Client) Check(ctx context.Context, rawURL string, rules Rules) (Target, error) {
	t, err := ParseURL(rawURL)
	if err != nil {
		return t, err
	}
	if err := allowed(t, rules); err != nil {
		return t, err
	}
	_, err = c.resolve(ctx, t.Host)
	return t, err
}

func allowed(t Target, rules Rules) error {
	if rules.Allow(t) {
		return nil
	}
	return refuse(NotAllowed, "No rule allows %s on port %d. Allowed hosts: %s.", t.Host, t.Port, rules)
}

// Do sends a request and reads the answer. Any answer is a Response, whatever its status. The error is a *Refusal when nothing was sent
// because of what was asked for, and a *Failure when there was no answer.
func (c *Client) Do(ctx context.Context, r Request) (*Response, error) {
	target, err := ParseURL(r.URL)
	if err != nil {
		return nil, err
	}
	if !methods[r.Method] {
		return nil, refuse(BadURL, "The method %q is not known.", short(r.Method))
	}
	if err := CheckHeader(r.Header); err != nil {
		return nil, err
	}
	if len(r.Body) > MaxRequestBytes {
		return nil, refuse(TooManyData, "The request's body has more than %d bytes.", MaxRequestBytes)
	}
	timeout := r.Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, min(timeout, MaxTimeout))
	defer cancel()
	hop := hop{method: r.Method, target: target, header: r.Header.Clone(), body: r.Body, rules: r.Rules, maxBody: r.MaxBody}
	if hop.maxBody <= 0 {
		hop.maxBody = defaultBodyBytes
	}
	hop.maxBody = min(hop.maxBody, MaxBodyBytes)
	var passed []string
	for {
		res, err := c.one(ctx, hop)
		if err != nil {
			return nil, err
		}
		res.Redirects = passed
		if !redirects(res) || r.Redirects <= 0 {
			return res, nil
		}
		next, err := hop.after(res)
		if err == nil && len(passed) >= min(r.Redirects, MaxRedirects) {
			err = refuse(BadRedirect, "There were more than %d redirects.", len(passed))
		}
		if err == nil {
			// Before anything is sent there, so that the answer at hand is not lost to a refusal; the dial checks once more.
			if err = allowed(next.target, r.Rules); err == nil {
				_, err = c.resolve(ctx, next.target.Host)
			}
		}
		if err != nil {
			var refusal *Refusal
			if !errors.As(err, &refusal) {
				refusal = refuse(BadRedirect, "The redirect could not be followed: %v.", err)
			}
			res.NotFollowed = refusal
			return res, nil
		}
		passed = append(passed, hop.target.String())
		hop = next
	}
}

// one sends one request, without following anything.
func (c *Client) one(ctx context.Context, h hop) (*Response, error) {
	if err := allowed(h.target, h.rules); err != nil {
		return nil, err
	}
	var sent atomic.Bool
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { sent.Store(true) }})
	var body io.Reader
	if len(h.body) > 0 {
		body = bytes.NewReader(h.body)
	}
	req, err := http.NewRequestWithContext(traced, h.method, h.target.String(), body)
	if err != nil {
		return nil, refuse(BadURL, "The request can't be made: its method or its address is not valid.")
	}
	for name, values := range h.header {
		req.Header[http.CanonicalHeaderKey(name)] = values
	}
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", c.cfg.UserAgent)
	}
	req.GetBody = nil // the transport must not send anything a second time by itself
	answer, err := c.transport.RoundTrip(req)
	if err != nil {
		return nil, failed(ctx, err, sent.Load())
	}
	defer answer.Body.Close() //nolint:errcheck // read as far as it is wanted
	kept, err := io.ReadAll(io.LimitReader(answer.Body, h.maxBody+1))
	if err != nil {
		return nil, failed(ctx, err, true)
	}
	res := &Response{Status: answer.StatusCode, Header: answer.Header, Body: kept, URL: h.target.String()}
	if int64(len(kept)) > h.maxBody {
		res.Body, res.Truncated = kept[:h.maxBody], true
	}
	return res, nil
}

func failed(ctx context.Context, err error, sent bool) error {
	var refusal *Refusal
	if errors.As(err, &refusal) {
		return refusal
	}
	late := errors.Is(ctx.Err(), context.DeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
	return &Failure{Sent: sent, TimedOut: late, Err: err}
}

// Vet refuses an address that could never be reached, without asking anybody: how it is written, and what it is if it is no name. Where a
// name points is found out at the dial.
func (c *Client) Vet(rawURL string) (Target, error) {
	t, err := ParseURL(rawURL)
	if err != nil {
		return t, err
	}
	if t.Port < 1024 && t.Port != 80 && t.Port != 443 {
		return t, refuse(BadURL, "The port %d is not allowed: 80, 443, or one above 1023.", t.Port)
	}
	if t.Host.name == "localhost" && !c.cfg.AllowLoopback {
		return t, refuse(Forbidden, "localhost is this machine, which is never reached from here.")
	}
	if a, ok := t.Host.Addr(); ok {
		return t, c.reachable(a)
	}
	return t, nil
}
