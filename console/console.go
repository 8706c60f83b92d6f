package console

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/console/account"
	consoleagents "ambit.dev/ambit/console/agents"
	"ambit.dev/ambit/console/ambit"
	"ambit.dev/ambit/console/approvals"
	"ambit.dev/ambit/console/budgets"
	"ambit.dev/ambit/console/gallery"
	consoleidentity "ambit.dev/ambit/console/identity"
	"ambit.dev/ambit/console/keys"
	"ambit.dev/ambit/console/ledger"
	"ambit.dev/ambit/console/mandates"
	"ambit.dev/ambit/console/members"
	"ambit.dev/ambit/console/overview"
	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/permissions"
	"ambit.dev/ambit/console/playground"
	"ambit.dev/ambit/console/reference"
	"ambit.dev/ambit/console/sessions"
	"ambit.dev/ambit/console/settings"
	"ambit.dev/ambit/console/static"
	"ambit.dev/ambit/console/stops"
	"ambit.dev/ambit/console/traces"
	"ambit.dev/ambit/console/usage"
	"ambit.dev/ambit/console/webhooks"
	"ambit.dev/ambit/governance/mandate/register"
	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/apidoc"
	"ambit.dev/ambit/internal/httpx"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/notifications"
	"ambit.dev/ambit/observability"
	"ambit.dev/ambit/sandbox"
	"ambit.dev/ambit/scheduler"
	"ambit.dev/ambit/tenants"
	"ambit.dev/ambit/tenants/identity"
)

// Deps are what the console stands on. All are needed but those that say otherwise.
type Deps struct {
	DB  *postgres.DB
	Log *slog.Logger
	// PublicURL is where people reach the console, APIURL where clients reach the API; neither has a slash at its end.
	PublicURL, APIURL string

	Tenants  *tenants.Service
	Agents   *agents.Service
	Sessions *scheduler.Service
	Policies *policy.Service
	Mandates *register.Service
	Traces   *observability.Reader
	Webhooks *notifications.Webhooks
	// StepUp has people confirm dangerous acts; AgentKeys are what agents sign with.
	StepUp    *identity.StepUp
	AgentKeys *identity.AgentKeys
	// Sandboxes shows the files of sessions; without it they are said to be out of reach.
	Sandboxes *sandbox.Service
	// Drain ends the streams of pages when the process stops; nil makes one that nobody drains.
	Drain *httpx.Drain

	// Models lists the models that agents can be given now, Tools the built-in tools.
	Models func(ctx context.Context) []consoleagents.Model
	Tools  []consoleagents.Tool

	// ErrorTypes and Reference are what the API says of itself; without Reference there are no pages about it.
	ErrorTypes []apidoc.ErrorType
	Reference  func() apidoc.Reference

	// Banner is a word over every page, such as "Local"; empty shows none.
	Banner string
	// Components adds the page of all components, for development.
	Components bool
}

// bodyLimit bounds what a form may send: the largest is a task for an agent.
const bodyLimit = "6M"

// Register adds the console to e, which is the console's own: it also decides there what an error and an unknown address look like.
func Register(e *echo.Echo, d Deps) error {
	if d.DB == nil || d.Log == nil || d.Tenants == nil || d.Agents == nil || d.Sessions == nil || d.Policies == nil || d.Mandates == nil || d.Traces == nil || d.Webhooks == nil || d.Models == nil || d.StepUp == nil || d.AgentKeys == nil {
		return errors.New("console: the database, a log, tenants, agents, sessions, policies, traces, webhooks, models, step-up and agents' keys are needed")
	}
	public, err := url.Parse(d.PublicURL)
	if err != nil || public.Host == "" {
		return fmt.Errorf("console: the public URL %q must begin with http:// or https://", d.PublicURL)
	}
	if d.Drain == nil {
		d.Drain = httpx.NewDrain()
	}
	sameOrigin, err := page.SameOrigin(public.Scheme + "://" + public.Host)
	if err != nil {
		return fmt.Errorf("console: %w", err)
	}
	cookies := account.Cookies{Secure: public.Scheme == "https"}
	who := &viewers{tenants: d.Tenants, cookies: cookies, banner: d.Banner}

	e.HTTPErrorHandler = func(err error, c echo.Context) {
		if c.Response().Committed {
			return
		}
		if failed := page.Failure(c, d.Log, err); failed != nil {
			d.Log.ErrorContext(c.Request().Context(), "could not draw an error's page", "error", failed)
			http.Error(c.Response(), "Something went wrong.", http.StatusInternalServerError)
		}
	}
	e.GET(static.Prefix+"*", echo.WrapHandler(static.Handler()))
	e.GET("/favicon.ico", func(c echo.Context) error { return c.Redirect(http.StatusFound, static.URL("icons/favicon.svg")) })
	e.GET("/robots.txt", func(c echo.Context) error {
		return c.String(http.StatusOK, "User-agent: *\nDisallow: /o/\nDisallow: /x/\n")
	})
	e.Use(page.Secure, middleware.GzipWithConfig(middleware.GzipConfig{Skipper: unpressed, MinLength: 1400}), middleware.BodyLimit(bodyLimit), sameOrigin, who.load)

	open := e.Group("")
	(&account.Handler{Tenants: d.Tenants, Cookies: cookies, StepUp: d.StepUp}).Register(open)
	if d.Reference != nil {
		(&reference.Handler{ErrorTypes: d.ErrorTypes, Reference: d.Reference}).Register(open)
	}
	if d.Components {
		open.GET("/components", func(c echo.Context) error {
			return page.Render(c, http.StatusOK, gallery.Page(page.NewFrame(c, "", "Components")))
		})
	}
	e.GET("/home", who.home, signedIn)
	(&finder{tenants: d.Tenants, mandates: d.Mandates, agents: d.Agents, sessions: d.Sessions, webhooks: d.Webhooks, db: d.DB}).register(e.Group("/x", signedIn))
	registerProject(e.Group("/o/:org/p/:project", signedIn, who.place), d)
	return nil
}

// unpressed are the answers that are not compressed: assets are already, a stream must leave at once, and a file of a session is sent as
// it is. Pages may be: none repeats what a stranger sent beside something secret.
func unpressed(c echo.Context) bool {
	path := c.Request().URL.Path
	return strings.HasPrefix(path, static.Prefix) || strings.HasSuffix(path, "/stream") || strings.HasSuffix(path, "/files/content")
}

// registerProject adds the pages about one project.
func registerProject(g *echo.Group, d Deps) {
	shown := &sessions.Handler{DB: d.DB, Sessions: d.Sessions, Agents: d.Agents, Sandboxes: d.Sandboxes, Drain: d.Drain, Log: d.Log}
	shown.Register(g)
	(&overview.Handler{DB: d.DB, Agents: d.Agents, Tenants: d.Tenants}).Register(g)
	(&consoleagents.Handler{DB: d.DB, Agents: d.Agents, Policies: d.Policies, Models: d.Models, Tools: d.Tools}).Register(g)
	(&playground.Handler{DB: d.DB, Agents: d.Agents, Sessions: d.Sessions, Shown: shown, Tools: d.Tools, APIURL: d.APIURL}).Register(g)
	(&traces.Handler{DB: d.DB, Agents: d.Agents, Traces: d.Traces, Log: d.Log}).Register(g)
	(&approvals.Handler{DB: d.DB, Tenants: d.Tenants, Sessions: d.Sessions, StepUp: d.StepUp, Tools: d.toolNames()}).Register(g)
	(&budgets.Handler{DB: d.DB, Tenants: d.Tenants, Agents: d.Agents}).Register(g)
	(&usage.Handler{DB: d.DB, Agents: d.Agents}).Register(g)
	(&ledger.Handler{DB: d.DB}).Register(g)
	tools, models := d.toolNames(), d.modelNames
	(&ambit.Handler{DB: d.DB, Agents: d.Agents, Policies: d.Policies, Tools: tools, Models: models}).Register(g)
	(&permissions.Handler{DB: d.DB, Tenants: d.Tenants, Agents: d.Agents, Policies: d.Policies, Sessions: d.Sessions, Tools: tools, Models: models}).Register(g)
	(&mandates.Handler{DB: d.DB, Agents: d.Agents, Mandates: d.Mandates, Sessions: d.Sessions, StepUp: d.StepUp, Issuer: d.PublicURL, Tools: tools}).Register(g)
	(&consoleidentity.Handler{DB: d.DB, Agents: d.Agents, Tenants: d.Tenants, Keys: d.AgentKeys, StepUp: d.StepUp}).Register(g)
	(&members.Handler{DB: d.DB, Tenants: d.Tenants}).Register(g)
	(&webhooks.Handler{DB: d.DB, Webhooks: d.Webhooks}).Register(g)
	(&keys.Handler{DB: d.DB, Tenants: d.Tenants, APIURL: d.APIURL}).Register(g)
	(&stops.Handler{DB: d.DB, Agents: d.Agents, Tenants: d.Tenants, Sessions: d.Sessions, Mandates: d.Mandates}).Register(g)
	(&settings.Handler{DB: d.DB, Tenants: d.Tenants, StepUp: d.StepUp}).Register(g)
}

func (d Deps) toolNames() []string {
	out := make([]string, len(d.Tools))
	for i, t := range d.Tools {
		out[i] = t.Name
	}
	return out
}

func (d Deps) modelNames(ctx context.Context) []string {
	list := d.Models(ctx)
	out := make([]string, len(list))
	for i, m := range list {
		out[i] = m.ID
	}
	return out
}

// signedIn sends somebody who is not signed in to the sign-in, and back afterwards. A request that changes something or is a part of a
// page is not repeated: it comes back to the start.
func signedIn(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if _, ok := page.ViewerOf(c); ok {
			return next(c)
		}
		to := "/sign-in"
		r := c.Request()
		if r.Method == http.MethodGet && r.Header.Get("HX-Request") == "" && !strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
			to += "?next=" + url.QueryEscape(r.URL.RequestURI())
		}
		return page.Redirect(c, to)
	}
}
