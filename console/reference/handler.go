package reference

import (
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/internal/apidoc"
	"ambit.dev/ambit/internal/fault"
)

// Handler serves the pages about the API.
type Handler struct {
	ErrorTypes []apidoc.ErrorType
	Reference  func() apidoc.Reference
}

// Register adds the pages; they are open to everybody.
func (h *Handler) Register(g *echo.Group) {
	g.GET("/docs/api", h.reference)
	g.GET("/errors", h.errors)
	g.GET("/errors/:slug", h.error)
}

func (h *Handler) reference(c echo.Context) error {
	return page.Render(c, http.StatusOK, Reference(page.NewFrame(c, "", "API reference"), h.Reference()))
}

func (h *Handler) errors(c echo.Context) error {
	return page.Render(c, http.StatusOK, Errors(page.NewFrame(c, "", "Error types"), h.ErrorTypes))
}

func (h *Handler) error(c echo.Context) error {
	for _, t := range h.ErrorTypes {
		if t.Slug == c.Param("slug") {
			return page.Render(c, http.StatusOK, Error(page.NewFrame(c, "", t.Title), t))
		}
	}
	return fault.NotFound()
}

// anchor is an operation's place on the page.
func anchor(id string) string { return strings.ReplaceAll(id, ".", "-") }

func paragraphs(text string) []string {
	var out []string
	for part := range strings.SplitSeq(text, "\n\n") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}
