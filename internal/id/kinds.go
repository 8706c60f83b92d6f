package id

// Org identifies an organisation.
type Org string

// Prefix implements Kind.
func (Org) Prefix() string { return "org" }

// Project identifies a project.
type Project string

// Prefix implements Kind.
func (Project) Prefix() string { return "prj" }

// User identifies a user: a person, in any number of organisations.
type User string

// Prefix implements Kind.
func (User) Prefix() string { return "usr" }

// Member identifies a user's membership of an organisation.
type Member string

// Prefix implements Kind.
func (Member) Prefix() string { return "mem" }

// Key identifies an API key.
type Key string

// Prefix implements Kind.
func (Key) Prefix() string { return "key" }

// Agent identifies an agent.
type Agent string

// Prefix implements Kind.
func (Agent) Prefix() string { return "agt" }

// Environment identifies an environment.
type Environment string

// Prefix implements Kind.
func (Environment) Prefix() string { return "env" }

// Session identifies a session.
type Session string

// Prefix implements Kind.
func (Session) Prefix() string { return "ses" }

// Event identifies an event of a session's journal.
type Event string

// Prefix implements Kind.
func (Event) Prefix() string { return "evt" }

// Step identifies a step of a session.
type Step string

// Prefix implements Kind.
func (Step) Prefix() string { return "stp" }

// Checkpoint identifies a checkpoint.
type Checkpoint string

// Prefix implements Kind.
func (Checkpoint) Prefix() string { return "ckp" }

// Sandbox identifies a sandbox.
type Sandbox string

// Prefix implements Kind.
func (Sandbox) Prefix() string { return "sbx" }

// Hold identifies a hold.
type Hold string

// Prefix implements Kind.
func (Hold) Prefix() string { return "hld" }

// Entry identifies a ledger entry.
type Entry string

// Prefix implements Kind.
func (Entry) Prefix() string { return "led" }

// SignIn identifies a person's sign-in.
type SignIn string

// Prefix implements Kind.
func (SignIn) Prefix() string { return "sgn" }

// Receipt identifies a receipt.
type Receipt string

// Prefix implements Kind.
func (Receipt) Prefix() string { return "rcp" }

// Request identifies one HTTP request.
type Request string

// Prefix implements Kind.
func (Request) Prefix() string { return "req" }

// Quote identifies a quote.
type Quote string

// Prefix implements Kind.
func (Quote) Prefix() string { return "quo" }

// Mail identifies an outgoing mail.
type Mail string

// Prefix implements Kind.
func (Mail) Prefix() string { return "mal" }

// ToolUse identifies a model's call of a tool where the provider gave none.
type ToolUse string

// Prefix implements Kind.
func (ToolUse) Prefix() string { return "tlu" }

// Archive identifies a saved working directory.
type Archive string

// Prefix implements Kind.
func (Archive) Prefix() string { return "arc" }

// Batch identifies a batch of the outbox.
type Batch string

// Prefix implements Kind.
func (Batch) Prefix() string { return "bat" }

// SigningKey identifies a signing key of the instance.
type SigningKey string

// Prefix implements Kind.
func (SigningKey) Prefix() string { return "sik" }

// Permission identifies a rule about what agents may do.
type Permission string

// Prefix implements Kind.
func (Permission) Prefix() string { return "prm" }

// Role identifies a role that an organisation made of its own.
type Role string

// Prefix implements Kind.
func (Role) Prefix() string { return "rol" }

// Budget identifies a budget.
type Budget string

// Prefix implements Kind.
func (Budget) Prefix() string { return "bud" }

// Mandate identifies a mandate, also one that narrows another.
type Mandate string

// Prefix implements Kind.
func (Mandate) Prefix() string { return "mnd" }

// MandateBatch identifies a batch of receipts under one signed root.
type MandateBatch string

// Prefix implements Kind.
func (MandateBatch) Prefix() string { return "mrb" }

// Settlement identifies a closed mandate: what one payee was paid under a mandate.
type Settlement string

// Prefix implements Kind.
func (Settlement) Prefix() string { return "mst" }

// Passkey identifies a person's passkey.
type Passkey string

// Prefix implements Kind.
func (Passkey) Prefix() string { return "psk" }

// Approval identifies an approval: a question to people about one exact effect.
type Approval string

// Prefix implements Kind.
func (Approval) Prefix() string { return "apr" }

// ApprovalRule identifies a rule that says which effects people are asked about.
type ApprovalRule string

// Prefix implements Kind.
func (ApprovalRule) Prefix() string { return "arl" }

// Token identifies a token that an agent showed to somebody: its jti.
type Token string

// Prefix implements Kind.
func (Token) Prefix() string { return "tok" }
