package api

import (
	"net/http"

	"ambit.dev/ambit/billing/prices"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/models"
	"ambit.dev/ambit/tenants"
)

func (a *API) modelRoutes() []Route {
	return []Route{{
		ID: "models.list", Method: http.MethodGet, Path: "/v1/models", Permission: tenants.ModelsRead, Tag: "Models",
		Summary:     "List models",
		Description: "The models of the configured providers and the built-in one, each with its price now. A model without a price can't be used: what it may cost can't be held.",
		Endpoint:    plain(a.listModels),
	}}
}

// Model is a model that can be named in an agent.
type Model struct {
	ID              string       `json:"id"`
	Type            string       `json:"type" const:"model"`
	Provider        string       `json:"provider"`
	DisplayName     string       `json:"display_name"`
	ContextTokens   *int64       `json:"context_tokens" doc:"null when it is not known."`
	MaxOutputTokens *int64       `json:"max_output_tokens" doc:"null when it is not known."`
	LanguageModel   bool         `json:"language_model" doc:"false for the built-in scripted model, which understands nothing."`
	Price           *ModelPrices `json:"price" doc:"null when the price table has none; the model is then refused."`
}

// ModelPrices are what a million tokens cost, below the first tier.
type ModelPrices struct {
	Input        *money.Nanos `json:"input_per_million"`
	CacheRead    *money.Nanos `json:"cache_read_per_million"`
	CacheWrite   *money.Nanos `json:"cache_write_per_million"`
	Output       *money.Nanos `json:"output_per_million"`
	TableVersion string       `json:"price_table_version"`
}

const million = 1_000_000

func (a *API) listModels(c *call, _ struct{}) (Page[Model], error) {
	ctx := c.r.Context()
	all := a.cfg.Domains.Models.Models(ctx)
	return pageOf(place{limit: len(all)}, all, func(m models.Model) string { return m.ID }, a.showModel), nil
}

func (a *API) showModel(m models.Model) Model {
	out := Model{
		ID: m.ID, Type: "model", Provider: m.Provider, DisplayName: m.DisplayName, LanguageModel: m.LanguageModel,
		ContextTokens: positive(m.ContextTokens), MaxOutputTokens: positive(m.MaxOutputTokens),
	}
	entry, err := a.cfg.Domains.Prices.Lookup(a.cfg.Clock.Now(), prices.Model, m.ID)
	if err != nil {
		return out
	}
	perMillion := func(u prices.Unit) *money.Nanos {
		nanos, ok := entry.Nanos[u]
		if !ok {
			return nil
		}
		sum, err := money.Nanos(nanos).Times(million)
		if err != nil {
			return nil
		}
		return &sum
	}
	out.Price = &ModelPrices{
		Input: perMillion(prices.InputToken), CacheRead: perMillion(prices.CacheReadToken), CacheWrite: perMillion(prices.CacheWriteToken),
		Output: perMillion(prices.OutputToken), TableVersion: a.cfg.Domains.Prices.Version(),
	}
	return out
}
