package anthropic

import (
	"strings"

	"ambit.dev/ambit/models"
)

// kindOf reads the API's own type of error; "" leaves the HTTP status to decide.
func kindOf(e wireError) models.ErrorKind {
	switch e.Type {
	case "rate_limit_error":
		return models.RateLimited
	case "overloaded_error":
		return models.Overloaded
	case "api_error":
		return models.ServerError
	case "timeout_error":
		return models.Timeout
	case "authentication_error", "permission_error":
		return models.Authentication
	case "billing_error":
		return models.QuotaExhausted
	case "not_found_error":
		return models.ModelNotFound
	case "request_too_large":
		return models.ContextTooLong
	case "invalid_request_error":
		m := strings.ToLower(e.Message)
		switch {
		case strings.Contains(m, "prompt is too long"), strings.Contains(m, "exceed context limit"), strings.Contains(m, "too many tokens"):
			return models.ContextTooLong
		case strings.Contains(m, "credit balance is too low"):
			return models.QuotaExhausted
		}
		return models.BadRequest
	default:
		return ""
	}
}
