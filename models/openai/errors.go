package openai

import (
	"encoding/json"
	"strings"

	"ambit.dev/ambit/models"
)

// explain reads an error body: {"error": {message, type, code}} as OpenAI has it, {"error": "text"} as Ollama, {"message"} or {"detail"}
// as various proxies.
func explain(_ int, body []byte) (models.ErrorKind, string) {
	var b struct {
		Error   json.RawMessage `json:"error"`
		Message string          `json:"message"`
		Detail  json.RawMessage `json:"detail"`
	}
	if json.Unmarshal(body, &b) != nil {
		return "", ""
	}
	var e wireError
	if json.Unmarshal(b.Error, &e) != nil && json.Unmarshal(b.Error, &e.Message) != nil && b.Message != "" {
		e.Message = b.Message
	}
	if e.Message == "" && json.Unmarshal(b.Detail, &e.Message) != nil {
		e.Message = ""
	}
	return kindOf(e), e.Message
}

func kindOf(e wireError) models.ErrorKind {
	var code string
	_ = json.Unmarshal(e.Code, &code) // a code that is no string says nothing
	message := strings.ToLower(e.Message)
	switch {
	case code == "context_length_exceeded", strings.Contains(message, "maximum context length"), strings.Contains(message, "exceeds the available context"):
		return models.ContextTooLong
	case code == "insufficient_quota", e.Type == "insufficient_quota":
		return models.QuotaExhausted
	case code == "invalid_api_key":
		return models.Authentication
	case code == "model_not_found", strings.Contains(message, "model") && strings.Contains(message, "not found"):
		return models.ModelNotFound
	case code == "rate_limit_exceeded", e.Type == "rate_limit_error", e.Type == "rate_limit_exceeded":
		return models.RateLimited
	case e.Type == "server_error", e.Type == "api_error", e.Type == "internal_server_error":
		return models.ServerError
	case e.Type == "overloaded_error", e.Type == "service_unavailable", code == "server_overloaded":
		return models.Overloaded
	default:
		return ""
	}
}
