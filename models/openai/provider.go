package openai

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
	// DefaultBaseURL is OpenAI's own.
	DefaultBaseURL = "https://api.openai.com/v1"
	listTimeout    = 10 * time.Second
)

// MaxTokensField says how a server wants to be told the limit of output.
type MaxTokensField string

// The fields. OpenAI's reasoning models take only the second; many other servers know only the first.
const (
	// Auto is max_completion_tokens for OpenAI and Azure, max_tokens for others.
	Auto                MaxTokensField = ""
	MaxTokens           MaxTokensField = "max_tokens"
	MaxCompletionTokens MaxTokensField = "max_completion_tokens"
)

// Config of the provider.
type Config struct {
	// Name is the first part of the models' ids; empty means "openai". A second server gets a name of its own, such as "ollama".
	Name string
	// APIKey may be empty for a server that wants none.
	APIKey string
	// BaseURL ends before "/chat/completions"; a bare http://host:port gets "/v1".
	BaseURL string
	// Idle and Total limit a call; zero means 3 and 30 minutes.
	Idle, Total    time.Duration
	MaxTokensField MaxTokensField
	Transport      http.RoundTripper
}

// Provider implements models.Provider.
type Provider struct {
	name   string
	field  MaxTokensField
	client *upstream.Client
}

// New checks the configuration. It connects to nothing.
func New(c Config) (*Provider, error) {
	if c.Name == "" {
		c.Name = "openai"
	}
	if c.BaseURL == "" {
		c.BaseURL = DefaultBaseURL
	}
	header := http.Header{}
	if c.APIKey != "" {
		header["Authorization"] = []string{"Bearer " + c.APIKey}
	}
	client, err := upstream.New(upstream.Config{
		BaseURL: withVersion(c.BaseURL), Header: header, Secrets: []string{c.APIKey},
		Timeouts: upstream.Timeouts{Idle: c.Idle, Total: c.Total}, Explain: explain, Transport: c.Transport,
	})
	if err != nil {
		return nil, fmt.Errorf("provider %s: %w", c.Name, err)
	}
	field := c.MaxTokensField
	if field == Auto {
		field = MaxTokens
		if host := client.Host(); host == "api.openai.com" || strings.HasSuffix(host, ".openai.com") || strings.HasSuffix(host, ".openai.azure.com") {
			field = MaxCompletionTokens
		}
	}
	return &Provider{name: c.Name, field: field, client: client}, nil
}

func withVersion(base string) string {
	base = strings.TrimSuffix(strings.TrimRight(base, "/"), "/chat/completions")
	if _, rest, ok := strings.Cut(base, "://"); ok && !strings.Contains(rest, "/") {
		return base + "/v1"
	}
	return base
}

// Name implements models.Provider.
func (p *Provider) Name() string { return p.name }

// Models implements models.Provider: what GET /models answers. OpenAI lists embeddings and speech among them; what has no price can't be
// called, so that they do no harm.
func (p *Provider) Models(ctx context.Context) ([]models.Model, error) {
	body, err := p.client.Get(ctx, "/models", listTimeout)
	if err != nil {
		return nil, fmt.Errorf("list the models of %s: %w", p.name, err)
	}
	var answer struct {
		Data []struct {
			ID string `json:"id"`
			// MaxModelLen is vLLM's.
			MaxModelLen int64 `json:"max_model_len"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("list the models of %s: %w", p.name, err)
	}
	list := make([]models.Model, 0, len(answer.Data))
	for _, m := range answer.Data {
		if m.ID != "" {
			list = append(list, models.Model{ID: p.name + "/" + m.ID, Provider: p.name, DisplayName: m.ID, ContextTokens: m.MaxModelLen, LanguageModel: true})
		}
	}
	return list, nil
}

// Generate implements models.Provider.
func (p *Provider) Generate(ctx context.Context, call models.Call, sink func(models.Event)) (models.Response, error) {
	out := reply.New(call, sink)
	body, err := encode(call.Request, strings.TrimPrefix(call.Request.Model, p.name+"/"), p.field)
	if err != nil {
		return models.Response{}, models.NewError(models.BadRequest, "the request could not be written", err)
	}
	stream, failed := p.client.Stream(ctx, "/chat/completions", body, call.EffectKey)
	if failed != nil {
		return models.Response{}, failed
	}
	defer stream.Close()
	out.Named("", stream.RequestID)
	d := newDecoder(p.name, out)
	for !d.done {
		event, err := stream.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return out.Partial(), stream.Classify(err)
		}
		errorBody, failed := d.chunk(event.Data)
		if errorBody != nil {
			failed = p.client.Refusal(0, nil, errorBody)
			failed.MayBeBilled = true
		}
		if failed != nil {
			if event.Unterminated && failed.Kind == models.MalformedReply {
				failed = models.NewError(models.TruncatedStream, "the stream ended in the middle of a chunk", failed)
			}
			return out.Partial(), failed
		}
	}
	// Some servers never send [DONE]. Then only a finish reason with the usage after it shows that nothing is missing.
	if d.finish == "" || (!d.done && !out.Reported()) {
		return out.Partial(), models.NewError(models.TruncatedStream, "the stream ended before the answer did", nil)
	}
	stream.Drain()
	reason := d.reason()
	d.finishCalls(reason)
	return out.Finish(reason, d.finish), nil
}
