package api

import (
	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/journal"
)

// Agent is an agent with its newest version.
type Agent struct {
	ID          id.Agent   `json:"id"`
	Type        string     `json:"type" const:"agent"`
	ProjectID   id.Project `json:"project_id"`
	Name        string     `json:"name"`
	Description string     `json:"description"`
	Version     int        `json:"version" doc:"The newest version; what follows is what it says."`
	definition
	Metadata   Metadata `json:"metadata"`
	CreatedBy  string   `json:"created_by"`
	CreatedAt  Time     `json:"created_at"`
	UpdatedAt  Time     `json:"updated_at"`
	ArchivedAt *Time    `json:"archived_at"`
}

// definition is what a version of an agent says.
type definition struct {
	Model     string   `json:"model"`
	System    string   `json:"system" doc:"The system prompt."`
	Tools     []string `json:"tools" doc:"The names of its built-in tools."`
	MaxTokens int64    `json:"max_tokens" doc:"The most output tokens of one model call."`
	Limits    Limits   `json:"limits"`
	IfRunning string   `json:"if_running" enum:"queue,interrupt,reject"`
	Network   Network  `json:"network"`
}

// Network is what an agent's requests may reach.
type Network struct {
	AllowedHosts  []string `json:"allowed_hosts" maxitems:"64" maxlen:"300" example:"[\"api.example.com\",\"*.example.org\"]" doc:"Hosts that http_request may reach: exact, or *.example.org for all below it; with a port other than 80 and 443, that one alone. Empty: none."`
	IdentityHosts []string `json:"identity_hosts" maxitems:"64" maxlen:"300" doc:"Those of the allowed hosts that a request shows the agent's identity to: it then carries Authorization: Bearer with a token of three minutes, signed with the agent's key, for that host alone. Over https only."`
}

func (n *Network) domain() journal.Network {
	if n == nil {
		return journal.Network{}
	}
	return journal.Network{AllowedHosts: n.AllowedHosts, IdentityHosts: n.IdentityHosts}
}

func networkFrom(n journal.Network) Network {
	return Network{AllowedHosts: append([]string{}, n.AllowedHosts...), IdentityHosts: append([]string{}, n.IdentityHosts...)}
}

func definitionFrom(d journal.Definition) definition {
	out := definition{Model: d.Model, System: d.System, Tools: d.Tools, MaxTokens: d.MaxTokens, Limits: limitsFrom(d.Limits), IfRunning: d.IfRunning, Network: networkFrom(d.Network)}
	if out.Tools == nil {
		out.Tools = []string{}
	}
	return out
}

func (a Agent) entityTag() string { return quoteTag(int64(a.Version)) }
func (a Agent) location() string  { return "/v1/agents/" + string(a.ID) }

func agentFrom(a agents.Agent) Agent {
	out := Agent{
		ID: a.ID, Type: "agent", ProjectID: a.Project, Name: a.Name, Description: a.Description, Version: a.Version,
		definition: definitionFrom(a.Definition), Metadata: a.Metadata, CreatedBy: a.CreatedBy,
		CreatedAt: Time(a.CreatedAt), UpdatedAt: Time(a.UpdatedAt), ArchivedAt: timePtr(a.ArchivedAt),
	}
	if out.Metadata == nil {
		out.Metadata = Metadata{}
	}
	return out
}

// AgentVersion is one immutable version.
type AgentVersion struct {
	Type    string   `json:"type" const:"agent_version"`
	AgentID id.Agent `json:"agent_id"`
	Version int      `json:"version"`
	definition
	CreatedBy string `json:"created_by"`
	CreatedAt Time   `json:"created_at"`
}

func (v AgentVersion) entityTag() string { return quoteTag(int64(v.Version)) }
func (AgentVersion) exactTag()           {}

func agentVersionFrom(v agents.Version) AgentVersion {
	return AgentVersion{
		Type: "agent_version", AgentID: v.Agent, Version: v.Version, definition: definitionFrom(v.Definition),
		CreatedBy: v.CreatedBy, CreatedAt: Time(v.CreatedAt),
	}
}

// Alias is a name for a version.
type Alias struct {
	Type      string   `json:"type" const:"agent_alias"`
	AgentID   id.Agent `json:"agent_id"`
	Name      string   `json:"name"`
	Version   int      `json:"version"`
	Revision  int64    `json:"revision" doc:"Counts its moves: the ETag."`
	UpdatedAt Time     `json:"updated_at"`
}

func (a Alias) entityTag() string { return quoteTag(a.Revision) }
func (Alias) exactTag()           {}

func aliasFrom(a agents.Alias) Alias {
	return Alias{Type: "agent_alias", AgentID: a.Agent, Name: a.Name, Version: a.Version, Revision: a.Revision, UpdatedAt: Time(a.UpdatedAt)}
}

// Deleted is what is left of something that was deleted.
type Deleted struct {
	ID   string `json:"id"`
	Type string `json:"type"`
}
