package apiclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Client talks to one Ambit with one key. It is safe for concurrent use.
type Client struct {
	base    string
	key     string
	project string
	http    *http.Client
}

// New returns a client of the Ambit at base, such as http://127.0.0.1:8080. project may be empty.
func New(base, key, project string) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("%q is not the URL of an Ambit: it must begin with http:// or https://", base)
	}
	return &Client{
		base: strings.TrimRight(base, "/"), key: key, project: project,
		// No overall time-out: streams are long. Each request has its context, and the header must come in time.
		http: &http.Client{Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, ResponseHeaderTimeout: 11 * time.Minute, TLSHandshakeTimeout: 10 * time.Second,
			IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true,
		}},
	}, nil
}

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Problem is an error that the API answered with.
type Problem struct {
	Type      string         `json:"type"`
	Title     string         `json:"title"`
	Status    int            `json:"status"`
	Detail    string         `json:"detail"`
	Code      string         `json:"code"`
	RequestID string         `json:"request_id"`
	Errors    []ProblemField `json:"errors"`
}

// ProblemField is one thing wrong with a request.
type ProblemField struct {
	Pointer string `json:"pointer"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Error is the detail, then each field on a line of its own, and where to read more.
func (p *Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.Detail)
	if len(p.Errors) > 1 || (len(p.Errors) == 1 && p.Errors[0].Message != p.Detail) {
		for _, f := range p.Errors {
			fmt.Fprintf(&b, "\n  %s: %s", f.Pointer, f.Message)
		}
	}
	fmt.Fprintf(&b, " (%d %s", p.Status, p.Code)
	if p.RequestID != "" {
		b.WriteString(", " + p.RequestID)
	}
	b.WriteString(")")
	return b.String()
}

// IsCode says whether err is a problem of this code.
func IsCode(err error, code string) bool {
	var p *Problem
	return errors.As(err, &p) && p.Code == code
}

// Call sends in as JSON, when it is not nil, and reads the answer into out, when that is not nil.
func (c *Client) Call(ctx context.Context, method, path string, query url.Values, in, out any) error {
	res, err := c.send(ctx, method, path, query, in, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close() //nolint:errcheck // read to its end
	if out == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 1<<20)) // only so that the connection can be used again
		return nil
	}
	if err := json.NewDecoder(res.Body).Decode(out); err != nil {
		return fmt.Errorf("read the answer to %s %s: %w", method, path, err)
	}
	return nil
}

func (c *Client) send(ctx context.Context, method, path string, query url.Values, in any, header http.Header) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("write the request to %s %s: %w", method, path, err)
		}
		body = bytes.NewReader(raw)
	}
	target := c.base + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, fmt.Errorf("make the request to %s: %w", path, err)
	}
	for name, values := range header {
		req.Header[name] = values
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	if c.project != "" {
		req.Header.Set("Ambit-Project", c.project)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("reach %s: %w", c.base, err)
	}
	if res.StatusCode >= 400 {
		defer res.Body.Close() //nolint:errcheck // read to its end
		return nil, problemOf(res)
	}
	return res, nil
}

func problemOf(res *http.Response) error {
	raw, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("read an answer of status %d: %w", res.StatusCode, err)
	}
	media, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	var p Problem
	if media != "application/problem+json" || json.Unmarshal(raw, &p) != nil {
		return fmt.Errorf("the answer has status %d and is not Ambit's: is there an Ambit at this URL?", res.StatusCode)
	}
	return &p
}
