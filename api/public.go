package api

import (
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/httpx"
)

// mountPublic adds what anybody may ask, apart from the route table: it is not the API but what is said about it.
func (a *API) mountPublic(e *echo.Echo) {
	get := func(path string, h http.Handler) {
		answer := func(c echo.Context) error {
			httpx.NoteFrom(c.Request().Context()).Route = "GET " + path
			h.ServeHTTP(c.Response().Writer, c.Request())
			return nil
		}
		e.GET(path, answer)
		e.HEAD(path, answer) // balancers ask so; net/http leaves the body out
	}
	get("/healthz", httpx.Healthz())
	get("/readyz", httpx.Readyz(a.cfg.Drain.Done(), a.cfg.Checks...))
	if a.cfg.Prometheus != nil {
		get("/metrics", a.cfg.Prometheus)
	}
	get("/openapi.json", http.HandlerFunc(a.serveDocument))
	get("/errors", http.HandlerFunc(a.serveErrorTypes))
	get("/errors/:slug", http.HandlerFunc(a.serveErrorType))
}

func (a *API) serveDocument(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", jsonType)
	h.Set("Cache-Control", "public, max-age=60")
	h.Set("Access-Control-Allow-Origin", "*") // public, and read by tools in browsers
	_, _ = w.Write(a.document)                // the reader is gone; there is nobody to tell
}

func (a *API) serveErrorTypes(w http.ResponseWriter, r *http.Request) {
	if a.cfg.ErrorPage != nil && wantsHTML(r) {
		a.cfg.ErrorPage.ServeHTTP(w, r)
		return
	}
	a.writeJSON(w, r, map[string]any{"data": ErrorTypes()})
}

func (a *API) serveErrorType(w http.ResponseWriter, r *http.Request) {
	t, ok := errorType(strings.TrimPrefix(r.URL.Path, "/errors/"))
	if !ok {
		a.problems.write(w, r, fault.NotFound())
		return
	}
	if a.cfg.ErrorPage != nil && wantsHTML(r) {
		a.cfg.ErrorPage.ServeHTTP(w, r)
		return
	}
	a.writeJSON(w, r, t)
}

func (a *API) writeJSON(w http.ResponseWriter, r *http.Request, v any) {
	out, err := render(http.StatusOK, v)
	if err != nil {
		a.problems.write(w, r, err)
		return
	}
	w.Header().Set("Content-Type", jsonType)
	w.Header().Set("Cache-Control", "public, max-age=60")
	_, _ = w.Write(out.body) // the reader is gone; there is nobody to tell
}

// wantsHTML tells a browser from a program: only a browser names text/html, and a program's */* is JSON.
func wantsHTML(r *http.Request) bool {
	for _, accept := range r.Header.Values("Accept") {
		for part := range strings.SplitSeq(accept, ",") {
			media, _, _ := strings.Cut(part, ";")
			if strings.TrimSpace(media) == "text/html" {
				return true
			}
		}
	}
	return false
}
