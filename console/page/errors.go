package page

import (
	"errors"
	"log/slog"
	"net/http"

	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/httpx"
)

// statuses gives each kind of fault its HTTP status; what is missing here is 500.
var statuses = map[fault.Kind]int{
	fault.Invalid: 400, fault.Unauthenticated: 401, fault.PaymentRequired: 402, fault.Forbidden: 403, fault.NotFoundKind: 404, fault.Gone: 410,
	fault.Conflict: 409, fault.PreconditionFailed: 412, fault.TooLarge: 413, fault.UnsupportedMedia: 415, fault.Unprocessable: 422,
	fault.PreconditionRequired: 428, fault.TooMany: 429, fault.BadGateway: 502, fault.Unavailable: 503, fault.GatewayTimeout: 504,
}

// Status is the HTTP status of a fault's page.
func Status(f *fault.Error) int {
	if s, ok := statuses[f.Kind]; ok {
		return s
	}
	return http.StatusInternalServerError
}

var errorTitles = map[int]string{
	401: "Please sign in", 402: "Not enough credit", 403: "You may not do this", 404: "Nothing here", 409: "This changed meanwhile",
	410: "This is gone", 413: "That is too large", 429: "Too many tries", 500: "Something went wrong", 502: "A provider failed",
	503: "Not available now", 504: "This took too long",
}

// AsFault turns an error of a handler, of echo's router included, into a fault.
func AsFault(err error) *fault.Error {
	var he *echo.HTTPError
	if errors.As(err, &he) {
		switch he.Code {
		case http.StatusNotFound, http.StatusMethodNotAllowed:
			return fault.NotFound()
		case http.StatusRequestEntityTooLarge:
			return fault.New(fault.TooLarge, "too_large", "What you sent is larger than this page takes.")
		case http.StatusBadRequest, http.StatusUnsupportedMediaType:
			return fault.New(fault.Invalid, "invalid_request", "The form could not be read. Go back and try again.").Because(err)
		}
	}
	return fault.As(err)
}

// Failure answers with the page of an error: inside the shell for somebody in a project, else in the public frame. A 404 is the same for
// what is missing and for what may not be seen, and carries no request id.
func Failure(c echo.Context, log *slog.Logger, err error) error {
	f := AsFault(err)
	status := Status(f)
	rid := string(httpx.RequestIDFrom(c.Request().Context()))
	if status >= 500 {
		log.ErrorContext(c.Request().Context(), "console request failed", "request_id", rid, "method", c.Request().Method, "path", c.Path(), "error", f)
	}
	e := ui.ErrorProps{Status: status, Title: errorTitles[status], Text: f.Message, RequestID: rid, Home: "/home"}
	if e.Title == "" {
		e.Title = "This did not work"
	}
	if status == http.StatusNotFound {
		e.RequestID = ""
		e.Text = "The page does not exist, or you may not see it. Check the address, or go back to where you were."
	}
	if status >= 500 {
		e.Money = "No money moved for a request that failed before it was accepted; what a session holds is shown on its page."
		if c.Request().Method == http.MethodGet {
			e.Retry = c.Request().URL.RequestURI()
		}
	}
	frame := NewFrame(c, "", e.Title, Crumb{Label: e.Title})
	if _, signedIn := ViewerOf(c); signedIn && frame.Place.Org != "" {
		return Render(c, status, ErrorShell(frame, e))
	}
	return Render(c, status, ErrorPublic(frame, e))
}
