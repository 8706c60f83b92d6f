package playground

import (
	"encoding/json"
	"strconv"
	"strings"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/sessions"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
)

// sampleInput is a task for the built-in model, which runs the blocks of a message.
const sampleInput = "Count the words of a note that you write.\n\n```write_file path=note.txt\nAn agent works inside its ambit,\nand no further.\n```\n\n```bash\nwc -w note.txt && uname -sr\n```\n"

type form struct {
	Agent, Version, Input, Ceiling string
}

type view struct {
	Frame      page.Frame
	Action     string
	Form       form
	Problems   ui.Problems
	Agents     []ui.Option
	Versions   []ui.Option
	Definition journal.Definition
	Model      string
	Curl       string
	Embed      sessions.Embed
	HasSession bool
	CanWrite   bool
	NewAgent   string
}

// runLabel says on the button what running may cost.
func (v view) runLabel() string {
	if n, err := page.Dollars(v.Form.Ceiling); err == nil {
		return "Run, at most " + n.Display()
	}
	return "Run"
}

// curl is the request that the form stands for, with the key in the shell's variable.
func curl(api string, f form, d journal.Definition) string {
	type amount struct {
		Amount   string `json:"amount"`
		Currency string `json:"currency"`
	}
	body := struct {
		Agent  any            `json:"agent"`
		Input  string         `json:"input"`
		Mode   string         `json:"mode"`
		Limits map[string]any `json:"limits"`
	}{Input: f.Input, Mode: "stream", Limits: map[string]any{"max_cost": amount{f.Ceiling, money.Currency}}}
	if f.Agent == sampleAgent || f.Agent == "" {
		body.Agent = map[string]any{"model": d.Model, "tools": d.Tools}
	} else if n, err := strconv.Atoi(f.Version); err == nil {
		body.Agent = map[string]any{"id": f.Agent, "version": n}
	} else {
		body.Agent = f.Agent
	}
	var raw strings.Builder
	enc := json.NewEncoder(&raw)
	enc.SetEscapeHTML(false)
	enc.SetIndent("  ", "  ")
	if err := enc.Encode(body); err != nil {
		return ""
	}
	// Within single quotes a shell takes all as it is but the quote itself.
	quoted := strings.ReplaceAll(strings.TrimSpace(raw.String()), "'", `'\''`)
	return "curl -sSN " + api + "/v1/invoke \\\n  -H \"Authorization: Bearer $AMBIT_API_KEY\" \\\n  -H 'Content-Type: application/json' \\\n  -d '" + quoted + "'"
}

// estimateFrom says where an estimate comes from.
func estimateFrom(b billing.QuoteBasis) string {
	if b.From == "history" {
		return "by " + strconv.Itoa(b.Sessions) + " finished sessions of this agent"
	}
	return "reckoned from the text"
}
