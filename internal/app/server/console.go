package server

import (
	"context"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/api"
	"ambit.dev/ambit/billing/prices"
	"ambit.dev/ambit/console"
	consoleagents "ambit.dev/ambit/console/agents"
	"ambit.dev/ambit/internal/httpx"
)

// consoleHandler makes the console. It shows what the API says of itself, as the two surfaces do not know each other.
func (s *Server) consoleHandler(metrics *httpx.Metrics, surface func() *api.API) (http.Handler, error) {
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	public := strings.TrimRight(s.Config.PublicURL.Reveal(), "/")
	err := console.Register(e, console.Deps{
		DB: s.DB, Log: s.Log, PublicURL: public, APIURL: public,
		Tenants: s.Tenants, Agents: s.Agents, Sessions: s.Sessions, Policies: s.Policies, Mandates: s.Mandates, Traces: s.Traces, Webhooks: s.Webhooks, StepUp: s.StepUp, AgentKeys: s.AgentKeys, Sandboxes: s.Sandboxes, Drain: s.drain,
		Models: s.consoleModels, Tools: s.consoleTools(),
		ErrorTypes: api.ErrorTypes(), Reference: surface().Reference,
		Banner: s.banner(), Components: true,
	})
	if err != nil {
		return nil, err
	}
	return httpx.Chain(e, httpx.RequestID, httpx.AccessLog(s.Log, metrics)), nil
}

// banner names an installation that strangers can't reach, so that nobody takes it for another.
func (s *Server) banner() string {
	if strings.HasPrefix(s.Config.Listen, "127.") || strings.HasPrefix(s.Config.Listen, "localhost:") {
		return "Local"
	}
	return ""
}

func (s *Server) consoleModels(ctx context.Context) []consoleagents.Model {
	var list []consoleagents.Model
	now := s.Clock.Now()
	for _, m := range s.Models.Models(ctx) {
		note := ""
		switch {
		case !m.LanguageModel:
			note = "no language model: it does what the blocks of a message say"
		case !s.Gate.Prices().Known(now, prices.Model, m.ID):
			continue // it can't be called: without a price there is no hold
		}
		list = append(list, consoleagents.Model{ID: m.ID, Provider: m.Provider, Note: note})
	}
	return list
}

func (s *Server) consoleTools() []consoleagents.Tool {
	var list []consoleagents.Tool
	for _, d := range s.Tools.Definitions(s.Tools.Names()) {
		list = append(list, consoleagents.Tool{Name: d.Name, Description: d.Description})
	}
	return list
}
