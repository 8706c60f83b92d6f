package anthropic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"ambit.dev/ambit/models"
	"ambit.dev/ambit/models/internal/reply"
	"ambit.dev/ambit/models/internal/upstream"
)

const (
	// DefaultBaseURL is Anthropic's own.
	DefaultBaseURL = "https://api.anthropic.com"
	apiVersion     = "2023-06-01"
	listTimeout    = 10 * time.Second
)

// Config of the provider.
type Config struct {
	// Name is the first part of the models' ids; empty means "anthropic".
	Name string
	// APIKey may be empty for a server that wants none.
	APIKey  string
	BaseURL string
	// Idle and Total limit a call; zero means 3 and 30 minutes.
	Idle, Total time.Duration
	// NoPromptCache leaves out the marks that have prompts cached. A session sends its whole history with each call, so caching is on.
	NoPromptCache bool
	Transport     http.RoundTripper
}

// Provider implements models.Provider.
type Provider struct {
	name   string
	cache  bool
	client *upstream.Client
}

// New checks the configuration. It connects to nothing.
func New(c Config) (*Provider, error) {
	if c.Name == "" {
		c.Name = "anthropic"
	}
	if c.BaseURL == "" {
		c.BaseURL = DefaultBaseURL
	}
	header := http.Header{"Anthropic-Version": {apiVersion}}
	if c.APIKey != "" {
		header["X-Api-Key"] = []string{c.APIKey}
	}
	client, err := upstream.New(upstream.Config{
		// People paste the base URL with and without the version; both mean the same.
		BaseURL: strings.TrimSuffix(strings.TrimRight(c.BaseURL, "/"), "/v1"),
		Header:  header, Secrets: []string{c.APIKey},
		Timeouts: upstream.Timeouts{Idle: c.Idle, Total: c.Total}, Explain: explain, Transport: c.Transport,
	})
	if err != nil {
		return nil, fmt.Errorf("provider %s: %w", c.Name, err)
	}
	return &Provider{name: c.Name, cache: !c.NoPromptCache, client: client}, nil
}

// Name implements models.Provider.
func (p *Provider) Name() string { return p.name }

// known are the models offered before, and without, asking the API. They all have a price in the shipped table.
var known = []models.Model{
	{ID: "claude-fable-5-1", DisplayName: "Claude Fable 5.1", ContextTokens: 1_000_000, MaxOutputTokens: 128_000},
	{ID: "claude-opus-5-5", DisplayName: "Claude Opus 5.5", ContextTokens: 1_000_000, MaxOutputTokens: 128_000},
	{ID: "claude-sonnet-5-5", DisplayName: "Claude Sonnet 5.5", ContextTokens: 1_000_000, MaxOutputTokens: 128_000},
	{ID: "claude-haiku-5-5", DisplayName: "Claude Haiku 5.5", ContextTokens: 1_000_000, MaxOutputTokens: 128_000},
	{ID: "claude-opus-5", DisplayName: "Claude Opus 5", ContextTokens: 1_000_000, MaxOutputTokens: 128_000},
	{ID: "claude-sonnet-5", DisplayName: "Claude Sonnet 5", ContextTokens: 1_000_000, MaxOutputTokens: 128_000},
	{ID: "claude-sonnet-4-6", DisplayName: "Claude Sonnet 4.6", ContextTokens: 1_000_000, MaxOutputTokens: 64_000},
	{ID: "claude-haiku-4-5", DisplayName: "Claude Haiku 4.5", ContextTokens: 200_000, MaxOutputTokens: 64_000},
}

// Models implements models.Provider: the known ones, and those that GET /v1/models adds. Beside an error the known ones are still good.
func (p *Provider) Models(ctx context.Context) ([]models.Model, error) {
	list := make([]models.Model, 0, len(known))
	seen := map[string]bool{}
	add := func(m models.Model) {
		if m.ID == "" || seen[m.ID] {
			return
		}
		seen[m.ID] = true
		if m.DisplayName == "" {
			m.DisplayName = m.ID
		}
		m.ID, m.Provider, m.LanguageModel = p.name+"/"+m.ID, p.name, true
		list = append(list, m)
	}
	for _, m := range known {
		add(m)
	}
	body, err := p.client.Get(ctx, "/v1/models?limit=1000", listTimeout)
	if err != nil {
		return list, fmt.Errorf("list the models of %s: %w", p.name, err)
	}
	var answer struct {
		Data []struct {
			ID          string `json:"id"`
			DisplayName string `json:"display_name"`
			MaxInput    int64  `json:"max_input_tokens"`
			MaxOutput   int64  `json:"max_tokens"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return list, fmt.Errorf("list the models of %s: %w", p.name, err)
	}
	for _, m := range answer.Data {
		add(models.Model{ID: m.ID, DisplayName: m.DisplayName, ContextTokens: m.MaxInput, MaxOutputTokens: m.MaxOutput})
	}
	return list, nil
}

// Generate implements models.Provider.
func (p *Provider) Generate(ctx context.Context, call models.Call, sink func(models.Event)) (models.Response, error) {
	out := reply.New(call, sink)
	body, err := encode(call.Request, strings.TrimPrefix(call.Request.Model, p.name+"/"), p.name, p.cache)
	if err != nil {
		return models.Response{}, models.NewError(models.BadRequest, "the request could not be written", err)
	}
	stream, failed := p.client.Stream(ctx, "/v1/messages", body, call.EffectKey)
	if failed != nil {
		return models.Response{}, failed
	}
	defer stream.Close()
	out.Named("", stream.RequestID)
	d := newDecoder(p.name, out)
	for {
		event, err := stream.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return out.Partial(), stream.Classify(err)
		}
		inStream, failed := d.event(event.Data)
		if inStream != nil {
			body, _ := json.Marshal(wireErrorBody{Error: inStream}) //nolint:errchkjson // two strings
			failed = p.client.Refusal(0, nil, body)
			failed.MayBeBilled = true
		}
		if failed != nil {
			if event.Unterminated && failed.Kind == models.MalformedReply {
				failed = models.NewError(models.TruncatedStream, "the stream ended in the middle of an event", failed)
			}
			return out.Partial(), failed
		}
		if d.done {
			break
		}
	}
	if !d.stopped || (!d.done && !out.Reported()) {
		return out.Partial(), models.NewError(models.TruncatedStream, "the stream ended before the message did", nil)
	}
	stream.Drain()
	return out.Finish(stopReason(d.stop), d.stop), nil
}
