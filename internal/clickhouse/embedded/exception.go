package embedded

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// exception is an error that the engine itself reported.
type exception struct {
	// code is ClickHouse's error number; 0 when the text carries none.
	code int
	text string
}

func (e *exception) Error() string { return e.text }

var exceptionCode = regexp.MustCompile(`^Code: (\d+)\.`)

func newException(text string) *exception {
	text = strings.TrimSpace(text)
	if text == "" {
		text = "the ClickHouse engine gave no reason"
	}
	e := &exception{text: text}
	if m := exceptionCode.FindStringSubmatch(text); m != nil {
		e.code, _ = strconv.Atoi(m[1])
	}
	return e
}

// ClickHouse's error numbers that this package meets or answers with.
const (
	codeBadArguments      = 36
	codeCannotReadAllData = 33
	codeQueryCancelled    = 394
)

// status is the HTTP status that a ClickHouse server answers with for this
// error. Clients decide by the code in the header; the status is for people and
// proxies.
func (e *exception) status() int {
	switch e.code {
	case 6, 26, 27, 33, 36, 38, 41, 53, 62, 69, 70, 72, 115, 117, 130, 131, 376, 377, 386, 456, 457, 636:
		return http.StatusBadRequest
	case 16, 46, 47, 50, 60, 81:
		return http.StatusNotFound
	case 192, 193, 194, 497, 516:
		return http.StatusForbidden
	case 202:
		return http.StatusServiceUnavailable
	case 159:
		return http.StatusRequestTimeout
	case 48:
		return http.StatusNotImplemented
	default:
		return http.StatusInternalServerError
	}
}
