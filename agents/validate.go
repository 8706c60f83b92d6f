package agents

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"ambit.dev/ambit/internal/egress"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/journal"
)

// Limits of what a definition may hold.
const (
	MaxNameLength   = 120
	MaxSystemBytes  = 256 << 10
	MaxTools        = 64
	MaxOutputTokens = 128_000
	MaxAllowedHosts = 64
	// DefaultMaxTokens bounds the output of a model call where the definition says nothing.
	DefaultMaxTokens = 4096
)

var (
	aliasShape    = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)
	metadataLimit = struct{ pairs, key, value int }{16, 64, 512}
)

// Catalogue says which models and tools exist.
type Catalogue struct {
	// KnowsModel reports whether a model can be called now.
	KnowsModel func(model string) bool
	// KnowsTool reports whether there is a tool of this name.
	KnowsTool func(tool string) bool
}

// Check validates a definition and fills in its defaults. pointer is where the definition stands in the request, such as "" or "/agent".
func (c Catalogue) Check(pointer string, d journal.Definition) (journal.Definition, error) {
	var wrong []fault.Field
	refuse := func(field, code, format string, args ...any) {
		wrong = append(wrong, fault.Field{Pointer: pointer + field, Code: code, Message: fmt.Sprintf(format, args...)})
	}
	d.Model = strings.TrimSpace(d.Model)
	switch {
	case d.Model == "":
		refuse("/model", "required", "Name a model, such as ambit/scripted. GET /v1/models lists those that there are.")
	case !c.KnowsModel(d.Model):
		refuse("/model", "unknown_model", "There is no model %q here. GET /v1/models lists those that there are.", d.Model)
	}
	if len(d.System) > MaxSystemBytes {
		refuse("/system", "too_large", "The system prompt has %d bytes; at most %d are allowed.", len(d.System), MaxSystemBytes)
	}
	if !utf8.ValidString(d.System) || strings.ContainsRune(d.System, 0) {
		refuse("/system", "invalid_text", "The system prompt must be UTF-8 text without the null character.")
	}
	if len(d.Tools) > MaxTools {
		refuse("/tools", "too_many", "An agent may have at most %d tools.", MaxTools)
	}
	seen := map[string]bool{}
	for i, tool := range d.Tools {
		at := fmt.Sprintf("/tools/%d", i)
		switch {
		case seen[tool]:
			refuse(at, "duplicate", "The tool %q is listed twice.", tool)
		case !c.KnowsTool(tool):
			refuse(at, "unknown_tool", "There is no tool %q here.", tool)
		}
		seen[tool] = true
	}
	switch {
	case d.MaxTokens < 0 || d.MaxTokens > MaxOutputTokens:
		refuse("/max_tokens", "out_of_range", "max_tokens must be between 1 and %d.", MaxOutputTokens)
	case d.MaxTokens == 0:
		d.MaxTokens = DefaultMaxTokens
	}
	switch d.IfRunning {
	case "":
		d.IfRunning = "queue"
	case "queue", "interrupt", "reject":
	default:
		refuse("/if_running", "unknown_value", `if_running must be "queue", "interrupt" or "reject".`)
	}
	if d.Tools == nil {
		d.Tools = []string{}
	}
	wrong = append(wrong, checkLimits(pointer+"/limits", d.Limits)...)
	var bad []fault.Field
	d.Network, bad = checkNetwork(pointer+"/network/allowed_hosts", d.Network)
	wrong = append(wrong, bad...)
	if len(wrong) > 0 {
		return d, fault.InvalidFields(wrong...)
	}
	return d, nil
}

// CheckLimits validates limits on their own, as an invoke or a change of a session gives them.
func CheckLimits(pointer string, l journal.Limits) error {
	if wrong := checkLimits(pointer, l); len(wrong) > 0 {
		return fault.InvalidFields(wrong...)
	}
	return nil
}

func checkLimits(pointer string, l journal.Limits) []fault.Field {
	var wrong []fault.Field
	if l.MaxCost != nil && *l.MaxCost <= 0 {
		wrong = append(wrong, fault.Field{Pointer: pointer + "/max_cost", Code: "out_of_range", Message: "A price ceiling must be more than zero."})
	}
	for _, f := range []struct {
		name  string
		value int64
		most  int64
	}{{"max_tokens", l.MaxTokens, 1_000_000_000}, {"max_steps", l.MaxSteps, 1_000_000}, {"max_wall_seconds", l.MaxWallSeconds, 366 * 24 * 3600}, {"max_depth", l.MaxDepth, 64}} {
		if f.value < 0 || f.value > f.most {
			wrong = append(wrong, fault.Field{Pointer: pointer + "/" + f.name, Code: "out_of_range", Message: fmt.Sprintf("%s must be between 0 (no limit) and %d.", f.name, f.most)})
		}
	}
	return wrong
}

// checkNetwork brings each host into its one spelling, so that a rule and a request mean the same by it.
func checkNetwork(pointer string, n journal.Network) (journal.Network, []fault.Field) {
	if len(n.AllowedHosts) == 0 {
		_, wrong := checkIdentityHosts(strings.TrimSuffix(pointer, "allowed_hosts")+"identity_hosts", n.IdentityHosts, nil)
		return journal.Network{}, wrong
	}
	if len(n.AllowedHosts) > MaxAllowedHosts {
		return n, []fault.Field{{Pointer: pointer, Code: "too_many", Message: fmt.Sprintf("An agent may have at most %d allowed hosts.", MaxAllowedHosts)}}
	}
	var wrong []fault.Field
	hosts := make([]string, 0, len(n.AllowedHosts))
	for i, raw := range n.AllowedHosts {
		at := fmt.Sprintf("%s/%d", pointer, i)
		rule, err := egress.ParseRule(strings.TrimSpace(raw))
		if err != nil {
			wrong = append(wrong, fault.Field{Pointer: at, Code: "invalid_host", Message: err.Error()})
			continue
		}
		if slices.Contains(hosts, rule.String()) {
			wrong = append(wrong, fault.Field{Pointer: at, Code: "duplicate", Message: fmt.Sprintf("The host %s is listed twice.", rule)})
			continue
		}
		hosts = append(hosts, rule.String())
	}
	known, bad := checkIdentityHosts(strings.TrimSuffix(pointer, "allowed_hosts")+"identity_hosts", n.IdentityHosts, hosts)
	return journal.Network{AllowedHosts: hosts, IdentityHosts: known}, append(wrong, bad...)
}

// checkIdentityHosts wants each to be one of the allowed hosts, in the same words: who gets the agent's token is named, not derived.
func checkIdentityHosts(pointer string, named, allowed []string) (hosts []string, wrong []fault.Field) {
	for i, raw := range named {
		at := fmt.Sprintf("%s/%d", pointer, i)
		rule, err := egress.ParseRule(strings.TrimSpace(raw))
		switch {
		case err != nil:
			wrong = append(wrong, fault.Field{Pointer: at, Code: "invalid_host", Message: err.Error()})
		case !slices.Contains(allowed, rule.String()):
			wrong = append(wrong, fault.Field{Pointer: at, Code: "unknown_value", Message: fmt.Sprintf("%s is none of the allowed hosts.", rule)})
		case slices.Contains(hosts, rule.String()):
			wrong = append(wrong, fault.Field{Pointer: at, Code: "duplicate", Message: fmt.Sprintf("The host %s is listed twice.", rule)})
		default:
			hosts = append(hosts, rule.String())
		}
	}
	return hosts, wrong
}

// CheckMetadata validates metadata: at most 16 pairs, keys of at most 64 and values of at most 512 characters.
func CheckMetadata(pointer string, metadata map[string]string) error {
	if len(metadata) > metadataLimit.pairs {
		return fault.InvalidField(pointer, "too_many", fmt.Sprintf("Metadata may have at most %d pairs.", metadataLimit.pairs))
	}
	for k, v := range metadata {
		if k == "" || utf8.RuneCountInString(k) > metadataLimit.key || utf8.RuneCountInString(v) > metadataLimit.value || strings.ContainsRune(k+v, 0) {
			return fault.InvalidField(pointer, "out_of_range", fmt.Sprintf("A metadata key has 1 to %d characters, a value at most %d, and neither the null character.", metadataLimit.key, metadataLimit.value))
		}
	}
	return nil
}

func checkName(name string) (string, error) {
	name = strings.TrimSpace(name)
	if n := utf8.RuneCountInString(name); n == 0 || n > MaxNameLength || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' }) {
		return "", fault.InvalidField("/name", "out_of_range", fmt.Sprintf("A name has 1 to %d characters on one line.", MaxNameLength))
	}
	return name, nil
}
