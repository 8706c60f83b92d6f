package identity

import (
	"time"

	domain "ambit.dev/ambit/agents"
	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/tenants"
	"ambit.dev/ambit/tenants/identity"
)

type agentRow struct {
	Name, ID, Href string
	// Kid is the key that signs; empty for an agent that has signed nothing yet.
	Kid    string
	Since  time.Time
	Status ui.Status
	// Count is how many keys are published.
	Count int
}

type listView struct {
	Frame       page.Frame
	Tabs        []ui.Segment
	Rows        []agentRow
	Pager       ui.PagerProps
	InstanceDID string
	New         string
	CanWrite    bool
}

type keyRow struct {
	Kid          string
	Status       ui.Status
	By           string
	Created      time.Time
	From         time.Time
	Until        *time.Time
	Retires      *time.Time
	JWK          string
	Retire       string
	CanRetire    bool
	Waits, Signs bool
}

type agentView struct {
	Frame                                     page.Frame
	Name, ID, DID, Document, JWKS, Controller string
	Agent, Rotate                             string
	Keys                                      []keyRow
	// Waits says that a successor is published and does not sign yet.
	Waits    bool
	CanWrite bool
}

type memberRow struct {
	Name, Email, Role, Href string
	You                     bool
	Passkeys, Barred        int
	LastUsed                *time.Time
}

func (r memberRow) label() string {
	if r.Name != "" {
		return r.Name
	}
	return r.Email
}

// confirms is how the member confirms what matters here.
func (r memberRow) confirms() ui.Status {
	if r.Passkeys > r.Barred {
		return ui.Status{Tone: ui.ToneCompleted, Icon: "fingerprint", Word: "Passkey"}
	}
	return ui.Status{Tone: ui.ToneStopped, Icon: "key", Word: "Password"}
}

type membersView struct {
	Frame page.Frame
	Tabs  []ui.Segment
	Rows  []memberRow
	Pager ui.PagerProps
	Own   string
}

type passkeyRow struct {
	Name, Bar      string
	Created        time.Time
	LastUsed       *time.Time
	Barred, CanBar bool
}

type memberView struct {
	memberRow
	Frame    page.Frame
	Keys     []passkeyRow
	Org, Own string
}

var (
	statusNone     = ui.Status{Tone: ui.ToneQueued, Icon: "ring-dotted", Word: "No key yet"}
	statusActive   = ui.Status{Tone: ui.ToneCompleted, Icon: "tick-disc", Word: "Active"}
	statusWaiting  = ui.Status{Tone: ui.ToneQueued, Icon: "clock", Word: "Signs soon"}
	statusRetiring = ui.Status{Tone: ui.ToneAsleep, Icon: "clock", Word: "Retiring"}
	statusRetired  = ui.Status{Tone: ui.ToneStopped, Icon: "square", Word: "Retired"}
	statusStolen   = ui.Status{Tone: ui.ToneFailed, Icon: "barred", Word: "Retired", Reason: "compromised"}
)

func statusOf(k identity.AgentKeyInfo, now time.Time) ui.Status {
	switch {
	case k.Compromised:
		return statusStolen
	case k.State == identity.KeyRetired:
		return statusRetired
	case k.State == identity.KeyRetiring:
		return statusRetiring
	case k.SignsFrom.After(now):
		return statusWaiting
	}
	return statusActive
}

func signs(k identity.AgentKeyInfo, now time.Time) bool {
	return !k.Compromised && !k.SignsFrom.After(now) && (k.SignsUntil == nil || k.SignsUntil.After(now))
}

func agentRowOf(p page.Place, a domain.Agent, keys []identity.AgentKeyInfo) agentRow {
	r := agentRow{Name: a.Name, ID: string(a.ID), Href: p.Path("identity", "agents", string(a.ID)), Status: statusNone}
	now := time.Now()
	for _, k := range keys {
		if k.State != identity.KeyRetired {
			r.Count++
		}
		if r.Kid == "" && signs(k, now) {
			r.Kid, r.Since, r.Status = k.KeyID, k.SignsFrom, statusOf(k, now)
		}
	}
	return r
}

func keyRowOf(p page.Place, agent id.Agent, k identity.AgentKeyInfo) keyRow {
	now := time.Now()
	document, err := k.JWK.MarshalJSON()
	if err != nil {
		document = nil // it was read from JSON a moment ago
	}
	return keyRow{
		Kid: k.KeyID, Status: statusOf(k, now), By: k.CreatedBy, Created: k.CreatedAt, From: k.SignsFrom, Until: k.SignsUntil, Retires: k.RetiresAt, JWK: string(document),
		Retire: p.Path("identity", "agents", string(agent), "keys", k.KeyID, "retire"), CanRetire: p.Can(tenants.AgentsWrite) && k.State != identity.KeyRetired,
		Waits: k.State == identity.KeyActive && k.SignsFrom.After(now), Signs: signs(k, now),
	}
}

func memberRowOf(p page.Place, m tenants.Member, keys []identity.Passkey, you bool) memberRow {
	r := memberRow{Name: m.Name, Email: m.Email, Role: m.RoleName, Href: p.Path("identity", "members", string(m.ID)), You: you, Passkeys: len(keys)}
	for _, k := range keys {
		if k.Barred {
			r.Barred++
		}
		if k.LastUsedAt != nil && (r.LastUsed == nil || k.LastUsedAt.After(*r.LastUsed)) {
			r.LastUsed = k.LastUsedAt
		}
	}
	return r
}
