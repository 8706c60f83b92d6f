package apidoc

// ErrorType is one value of a problem document's type: a slug with its own page.
type ErrorType struct {
	// Slug ends the type's URL and is the document's code.
	Slug string `json:"code"`
	// Title is the same for every occurrence.
	Title string `json:"title"`
	// Status is the HTTP status that it comes with.
	Status int `json:"status"`
	// Retryable says whether the same request may succeed later without a change.
	Retryable bool `json:"retryable"`
	// Meaning says what happened, Action what to do about it. Both are plain sentences.
	Meaning string `json:"meaning"`
	Action  string `json:"action"`
	// Members are what the document has beyond the usual members.
	Members []Member `json:"members"`
}

// Member is a further member of a problem document.
type Member struct {
	Name    string `json:"name"`
	Meaning string `json:"meaning"`
}

// Reference is the whole of the API, for its reference page.
type Reference struct {
	// Version is the API's date version, BaseURL where this instance serves it.
	Version string
	BaseURL string
	Groups  []Group
}

// Group is the operations of one tag.
type Group struct {
	Tag        string
	Summary    string
	Operations []Operation
}

// Operation is one route.
type Operation struct {
	// ID is unique: "agents.create". It is the OpenAPI operationId and serves as an anchor.
	ID      string
	Method  string
	Path    string
	Summary string
	// Description is plain text in paragraphs, and may be empty.
	Description string
	// Permission is what the key must have been given; empty for a public route.
	Permission string
	// Idempotent says that the route takes an Idempotency-Key.
	Idempotent bool
	Parameters []Parameter
	// Request and Response are the members of the bodies, nested ones with their dotted path; nil when there is no body.
	Request  []Field
	Response []Field
	// Status is the usual success.
	Status int
	// MediaType of the usual success: "application/json", "text/event-stream", "application/octet-stream".
	MediaType string
	// Errors are slugs.
	Errors []string
	// Curl is a command line that works once AMBIT_KEY is set and ids are put in.
	Curl string
}

// Parameter is one of a route's path, query or header parameters.
type Parameter struct {
	Name        string
	In          string
	Type        string
	Required    bool
	Description string
}

// Field is one member of a body.
type Field struct {
	// Path is the member's name, with dots for nested members and [] for items: "tools[].name".
	Path        string
	Type        string
	Required    bool
	Description string
}
