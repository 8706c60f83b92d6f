package models

import "encoding/json"

// malformedKey marks the input of a tool_use whose arguments were no JSON object. Small models do that. The call is kept, so that the
// model can be shown its mistake as an ordinary tool error; it must have the form of an object, or no provider would take it back.
const malformedKey = "__malformed_arguments"

// MalformedInput wraps arguments that are no JSON object, as the model wrote them.
func MalformedInput(text string) json.RawMessage {
	b, err := json.Marshal(map[string]string{malformedKey: CleanText(clip(text, maxMalformed))})
	if err != nil { // a map of strings always marshals
		return json.RawMessage(`{"` + malformedKey + `":""}`)
	}
	return b
}

// Malformed returns the text that MalformedInput wrapped, if input is such a wrapping.
func Malformed(input json.RawMessage) (string, bool) {
	var m map[string]json.RawMessage
	if json.Unmarshal(input, &m) != nil || len(m) != 1 {
		return "", false
	}
	var text string
	raw, ok := m[malformedKey]
	if !ok || json.Unmarshal(raw, &text) != nil {
		return "", false
	}
	return text, true
}

// ToolInput turns a provider's arguments into a tool_use's input: nothing is the empty object, an object stays as it is (but for what can't
// be stored: see Storable), anything else is wrapped as malformed.
func ToolInput(arguments string) json.RawMessage {
	switch {
	case isObject(json.RawMessage(arguments)):
		fit, err := Storable(json.RawMessage(arguments))
		if err != nil {
			return MalformedInput(arguments)
		}
		return fit
	case blank(arguments), arguments == "null":
		return json.RawMessage(`{}`)
	default:
		return MalformedInput(arguments)
	}
}

func blank(s string) bool {
	for _, c := range s {
		if c != ' ' && c != '\t' && c != '\n' && c != '\r' {
			return false
		}
	}
	return true
}
