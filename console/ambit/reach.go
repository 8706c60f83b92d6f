package ambit

import (
	"slices"
	"strconv"
	"strings"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/egress"
)

// part is a tool, a host or a model, and what the rules make of it.
type part struct {
	Name string
	// Note says which definitions name it.
	Note    string
	Uses    string
	Verdict policy.Verdict
	Status  ui.Status
	// By says what settles it, with the rules that bear on it.
	By    string
	Rules []ruleLink
	Href  string
	// Overridden is what only an invoke that overrides the definition gives the agent.
	Overridden bool
}

type ruleLink struct {
	Words, Href string
	Effect      ui.Status
}

// possible reports whether some use of it is.
func (p part) possible() bool { return p.Verdict != policy.Denied }

// byOverride marks what no definition names.
func (p part) byOverride(note string) part {
	p.Note, p.Overridden = note, true
	if p.By == codes[policy.ByDefault] {
		p.By = "no rule against it"
	}
	return p
}

// codes say what settles a verdict when no rule does.
var codes = map[string]string{
	policy.ByDefault: "its definition, and no rule against it",
	policy.NoRule:    "rules allow others of the kind, and not this",
	policy.ByTools:   "no definition of it names a tool",
	policy.ByModel:   "its definition names another model",
	policy.ByDomain:  "it is no host",
}

// reach is what an agent may use, of all of its versions that can be invoked.
type reach struct {
	set      *policy.Set
	agent    agents.Agent
	versions []agents.Version
	tools    []string
	// rulePath is the page of a rule; explainPath asks about an effect.
	rulePath    func(rule string) string
	explainPath func(kind, name, action, object string) string
}

// request is about an effect that some session of this agent could propose: every version can be invoked, and an invoke can override the
// tools and the model of the one that it names. So the definition's bound is the widest of all, and the rules are what is left.
func (r reach) request(kind, name string) policy.Request {
	return policy.Request{Agent: r.agent.ID, Project: r.agent.Project, Model: name, Tools: r.allTools(), Kind: kind, Name: name}
}

func (r reach) allTools() []string {
	out := slices.Clone(r.tools)
	for _, v := range r.versions {
		for _, t := range v.Definition.Tools {
			if !slices.Contains(out, t) {
				out = append(out, t)
			}
		}
	}
	return out
}

// namedBy says which versions name something: empty for none, and whether the newest does.
func (r reach) namedBy(names func(agents.Version) bool) (note string, newest bool) {
	var older []string
	for _, v := range r.versions {
		if !names(v) {
			continue
		}
		if v.Version == r.agent.Version {
			newest = true
			continue
		}
		older = append(older, strconv.Itoa(v.Version))
	}
	if newest {
		return "", true
	}
	switch len(older) {
	case 0:
		return "", false
	case 1:
		return "only in version " + older[0], false
	}
	slices.Reverse(older)
	return "only in the versions " + strings.Join(older, ", "), false
}

func (r reach) part(req policy.Request, name string) part {
	outlook := r.set.Outlook(req)
	out := part{Name: name, Verdict: outlook.Verdict, Status: ui.Verdict(string(outlook.Verdict)), By: codes[outlook.Rule]}
	for _, n := range outlook.About {
		if string(n.ID) == outlook.Rule {
			out.By = ""
			out.Rules = []ruleLink{r.link(n)}
			break
		}
		if outlook.Verdict == policy.Depends {
			out.Rules = append(out.Rules, r.link(n))
		}
	}
	return out
}

func (r reach) link(n policy.Named) ruleLink {
	return ruleLink{Words: n.What(), Href: r.rulePath(string(n.ID)), Effect: ui.Effect(string(n.Effect))}
}

// toolParts are all tools that there are: those that the newest definition names, then those of older ones, then the rest.
func (r reach) toolParts() []part {
	var newest, older, rest []part
	for _, tool := range r.allTools() {
		p := r.part(r.request(policy.ToolCall, tool), tool)
		p.Href = r.explainPath(policy.ToolCall, tool, "", "")
		var uses []string
		for _, u := range policy.UsesOf(tool) {
			uses = append(uses, string(u))
		}
		p.Uses = strings.Join(uses, ", ")
		note, now := r.namedBy(func(v agents.Version) bool { return slices.Contains(v.Definition.Tools, tool) })
		switch p.Note = note; {
		case now:
			newest = append(newest, p)
		case note != "":
			older = append(older, p)
		default:
			rest = append(rest, p.byOverride("only if an invoke overrides its tools"))
		}
	}
	return slices.Concat(newest, older, rest)
}

// modelParts are the models of all versions, and those that an invoke could name instead.
func (r reach) modelParts(models []string) []part {
	var newest, older, rest []part
	seen := map[string]bool{}
	add := func(model string) {
		if seen[model] {
			return
		}
		seen[model] = true
		p := r.part(r.request(policy.ModelCall, model), model)
		p.Href = r.explainPath(policy.ModelCall, model, "", "")
		note, now := r.namedBy(func(v agents.Version) bool { return v.Definition.Model == model })
		switch p.Note = note; {
		case now:
			newest = append(newest, p)
		case note != "":
			older = append(older, p)
		default:
			rest = append(rest, p.byOverride("only if an invoke overrides its model"))
		}
	}
	for _, v := range r.versions {
		add(v.Definition.Model)
	}
	for _, m := range models {
		add(m)
	}
	return slices.Concat(newest, older, rest)
}

const toolForWeb = "http_request"

// hostParts are the hosts that some version names: no invoke can add one.
func (r reach) hostParts() []part {
	var out []part
	seen := map[string]bool{}
	for _, v := range r.versions {
		for _, raw := range v.Definition.Network.AllowedHosts {
			rule, err := egress.ParseRule(raw)
			if err != nil || seen[rule.String()] {
				continue
			}
			host := rule.String()
			seen[host] = true
			req := r.request(policy.ToolCall, toolForWeb)
			req.Domain = withoutPort(host)
			p := r.part(req, host)
			p.Note, _ = r.namedBy(func(v agents.Version) bool {
				return slices.ContainsFunc(v.Definition.Network.AllowedHosts, func(other string) bool {
					parsed, err := egress.ParseRule(other)
					return err == nil && parsed.String() == host
				})
			})
			if !strings.HasPrefix(host, "*") {
				p.Href = r.explainPath(policy.ToolCall, toolForWeb, "GET", "https://"+host+"/")
			}
			out = append(out, p)
		}
	}
	return out
}

func withoutPort(host string) string {
	if strings.HasPrefix(host, "[") {
		if end := strings.IndexByte(host, ']'); end > 0 {
			return host[1:end]
		}
	}
	if name, _, found := strings.Cut(host, ":"); found && strings.Count(host, ":") == 1 {
		return name
	}
	return host
}

// fileUse is something that can be done to files, by which tools.
type fileUse struct {
	What   string
	Tools  []string
	Status ui.Status
}

// fileUses says what the tools that are possible let it do in its sandbox.
func fileUses(tools []part, sandbox part) []fileUse {
	var out []fileUse
	for _, use := range []struct {
		of   policy.Use
		what string
	}{{policy.UseReads, "Read files"}, {policy.UseWrites, "Write files"}, {policy.UseRuns, "Run commands"}} {
		one := fileUse{What: use.what}
		// The least bound of all tools that can do it.
		verdict := policy.Denied
		for _, t := range tools {
			if !t.possible() || !sandbox.possible() || !slices.Contains(policy.UsesOf(t.Name), use.of) {
				continue
			}
			one.Tools = append(one.Tools, t.Name)
			if rank(t.Verdict) > rank(verdict) {
				verdict = t.Verdict
			}
		}
		one.Status = ui.Verdict(string(verdict))
		out = append(out, one)
	}
	return out
}

func rank(v policy.Verdict) int {
	return slices.Index([]policy.Verdict{policy.Denied, policy.Asks, policy.Depends, policy.Allowed}, v)
}
