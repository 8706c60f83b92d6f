package apiclient

import (
	"encoding/json"
	"time"
)

// Money is an amount as the API writes it.
type Money struct {
	Amount   string `json:"amount"`
	Currency string `json:"currency"`
}

// Page is one page of a list.
type Page[T any] struct {
	Data     []T     `json:"data"`
	NextPage *string `json:"next_page"`
}

// Me is who is asking.
type Me struct {
	OrganizationID   string  `json:"organization_id"`
	OrganizationName string  `json:"organization_name"`
	ProjectID        *string `json:"project_id"`
	Key              struct {
		ID        string     `json:"id"`
		Name      string     `json:"name"`
		Scopes    []string   `json:"scopes"`
		ExpiresAt *time.Time `json:"expires_at"`
	} `json:"api_key"`
}

// Agent is an agent, as far as a terminal shows it.
type Agent struct {
	ID         string     `json:"id"`
	Name       string     `json:"name"`
	Version    int        `json:"version"`
	Model      string     `json:"model"`
	Tools      []string   `json:"tools"`
	UpdatedAt  time.Time  `json:"updated_at"`
	ArchivedAt *time.Time `json:"archived_at"`
}

// Session is a session, as far as a terminal shows it.
type Session struct {
	ID    string `json:"id"`
	Title string `json:"title"`
	Agent struct {
		ID   *string `json:"id"`
		Name string  `json:"name"`
	} `json:"agent"`
	Status     string      `json:"status"`
	StopReason *StopReason `json:"stop_reason"`
	Cost       struct {
		Held    Money `json:"held"`
		Charged Money `json:"charged"`
	} `json:"cost"`
	LastSeq   int64     `json:"last_seq"`
	CreatedAt time.Time `json:"created_at"`
	URL       string    `json:"url"`
}

// Quote is what something would cost, as far as a terminal shows it.
type Quote struct {
	ID      string `json:"id"`
	Low     Money  `json:"low"`
	Likely  Money  `json:"likely"`
	Ceiling Money  `json:"ceiling"`
	Lines   []struct {
		Ref       string `json:"ref"`
		Unit      string `json:"unit"`
		UnitPrice Money  `json:"unit_price"`
		Per       int64  `json:"per"`
		Quantity  int64  `json:"quantity"`
		Amount    Money  `json:"amount"`
	} `json:"lines"`
	Basis struct {
		Assumptions []string `json:"assumptions"`
	} `json:"basis"`
	ExpiresAt time.Time `json:"expires_at"`
}

// StopReason says why a session is idle or terminated.
type StopReason struct {
	Type  string `json:"type"`
	Limit string `json:"limit"`
	Scope string `json:"scope"`
	// Reason says in words what was short.
	Reason string `json:"reason"`
	Error  *struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

// UnmarshalJSON implements json.Unmarshaler. A settled step has a model's own reason there, which is one word.
func (s *StopReason) UnmarshalJSON(raw []byte) error {
	type plain StopReason
	if len(raw) > 0 && raw[0] == '"' {
		return json.Unmarshal(raw, &s.Type)
	}
	return json.Unmarshal(raw, (*plain)(s))
}

// Block is a piece of content.
type Block struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

// Event is an event of a session's journal, or a preview, which has no Seq.
type Event struct {
	ID            string      `json:"id"`
	Type          string      `json:"type"`
	Seq           int64       `json:"seq"`
	SessionID     string      `json:"session_id"`
	StepID        *string     `json:"step_id"`
	CreatedAt     time.Time   `json:"created_at"`
	Content       []Block     `json:"content"`
	Name          string      `json:"name"`
	Kind          string      `json:"kind"`
	IsError       bool        `json:"is_error"`
	Outcome       string      `json:"outcome"`
	Decision      string      `json:"decision"`
	Reason        string      `json:"reason"`
	Summary       string      `json:"summary"`
	StopReason    *StopReason `json:"stop_reason"`
	InputEventIDs []string    `json:"input_event_ids"`

	// Raw is the whole event as it came.
	Raw []byte `json:"-"`
}

// Preview is an event_start or event_delta.
type Preview struct {
	Type    string `json:"type"`
	EventID string `json:"event_id"`
	Event   *struct {
		ID   string `json:"id"`
		Type string `json:"type"`
	} `json:"event"`
	Delta *struct {
		Index   int   `json:"index"`
		Content Block `json:"content"`
	} `json:"delta"`
}
