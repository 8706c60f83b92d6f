package config

import (
	"log/slog"
	"os"
	"path/filepath"

	"ambit.dev/ambit/internal/money"
)

// Config is everything that can be set. Each field's `env` tag is its variable,
// `doc` its meaning with its unit, `envDefault` its default; `ambit config`
// prints exactly this. A default that depends on something is written in
// applyDefaults and told in the doc.
//
// A field whose `scope` is "internal" is set by Ambit for its own children.
type Config struct {
	DataDir  string `env:"AMBIT_DATA_DIR" doc:"Folder of everything that must be kept: the own Postgres and ClickHouse, Nomad's state, stored files, the master key. Default: /var/lib/ambit for root, else ~/.local/share/ambit."`
	CacheDir string `env:"AMBIT_CACHE_DIR" doc:"Folder of what can be had again: engines, downloads, sandbox templates. Default: /var/cache/ambit for root, else ~/.cache/ambit."`

	PostgresURL   Address `env:"AMBIT_POSTGRES_URL" doc:"postgres:// address of an outside Postgres 15 or newer, as a role that may create roles and schemas. Empty: ambit up runs its own."`
	PostgresConns int     `env:"AMBIT_POSTGRES_CONNS" envDefault:"32" doc:"Most connections of one Ambit process to Postgres (4 to 1000)."`
	ClickHouseURL Address `env:"AMBIT_CLICKHOUSE_URL" doc:"Address of an outside ClickHouse (clickhouse://, http:// or https://user:password@host:port/database), or unix:///path/of.socket. Empty: ambit up runs its own."`
	NomadAddr     Address `env:"AMBIT_NOMAD_ADDR" doc:"http:// or https:// address of an outside Nomad. Empty: ambit up runs an agent."`
	NomadToken    Secret  `env:"AMBIT_NOMAD_TOKEN" doc:"ACL token for Nomad, when it asks for one."`

	Listen     string  `env:"AMBIT_LISTEN" envDefault:"127.0.0.1:8080" doc:"Address (host:port) of the API and the console. It speaks plain HTTP: put a TLS proxy before it when it is not on loopback."`
	PublicURL  Address `env:"AMBIT_PUBLIC_URL" doc:"The URL under which people and agents reach AMBIT_LISTEN; links in mails and error types are built from it. Default: http:// and AMBIT_LISTEN."`
	NodeListen string  `env:"AMBIT_NODE_LISTEN" envDefault:"127.0.0.1:8081" doc:"Address (host:port) on which a worker hears from nodes, sandboxes and other replicas. Never public."`
	NodeURL    Address `env:"AMBIT_NODE_URL" doc:"The URL under which nodes and other replicas reach this process's AMBIT_NODE_LISTEN. Default: http:// and AMBIT_NODE_LISTEN."`

	MasterKey     Secret  `env:"AMBIT_MASTER_KEY" doc:"The key that seals all other keys: 32 bytes in base64 or hexadecimal. After a comma, earlier ones that still open what they sealed. Empty: AMBIT_MASTER_KEY_FILE is used."`
	MasterKeyFile string  `env:"AMBIT_MASTER_KEY_FILE" doc:"File with the master key in the same form, readable by its owner only; made at the first start. Default: master.key in AMBIT_DATA_DIR."`
	MasterKeyURL  Address `env:"AMBIT_MASTER_KEY_URL" doc:"A key of a key management service, such as awskms:///arn:aws:kms:…?region=eu-central-1. AMBIT_MASTER_KEY_FILE then holds the master key encrypted by it, and each start asks it once. Empty: the file holds the key itself."`

	SMTPURL  Address `env:"AMBIT_SMTP_URL" doc:"smtp:// or smtps://user:password@host:port for mail. Empty: no mail is sent; ambit users reset helps who is locked out."`
	MailFrom string  `env:"AMBIT_MAIL_FROM" envDefault:"Ambit <ambit@localhost>" doc:"Sender of all mail, as a mail address."`

	AnthropicAPIKey  Secret  `env:"AMBIT_ANTHROPIC_API_KEY" doc:"API key for Anthropic's models. A key or a base URL makes them appear."`
	AnthropicBaseURL Address `env:"AMBIT_ANTHROPIC_BASE_URL" doc:"Base URL of an Anthropic-shaped API. Default, with a key: https://api.anthropic.com."`
	OpenAIAPIKey     Secret  `env:"AMBIT_OPENAI_API_KEY" doc:"API key for OpenAI-compatible models. A key or a base URL makes them appear."`
	OpenAIBaseURL    Address `env:"AMBIT_OPENAI_BASE_URL" doc:"Base URL of an OpenAI-compatible API, Ollama's or vLLM's too, up to and with /v1. Default, with a key: https://api.openai.com/v1."`

	LogLevel  slog.Level `env:"AMBIT_LOG_LEVEL" envDefault:"INFO" doc:"Least level that is logged: DEBUG, INFO, WARN or ERROR."`
	LogFormat LogFormat  `env:"AMBIT_LOG_FORMAT" envDefault:"text" doc:"Form of log lines: text for people, json for machines."`

	EgressAllowLoopback bool `env:"AMBIT_EGRESS_ALLOW_LOOPBACK" envDefault:"false" doc:"For tests and trying things out on one machine, never for production: lets agents' requests and webhooks reach this machine's loopback. Private networks stay out of reach."`

	WarmSandboxes     int           `env:"AMBIT_WARM_SANDBOXES" envDefault:"2" doc:"Sandboxes of each environment in use that wait, cloned and paused, for the next session (0 to 100; never more than AMBIT_MAX_SANDBOXES)."`
	MaxSandboxes      int           `env:"AMBIT_MAX_SANDBOXES" envDefault:"8" doc:"Most sandboxes at a time on the whole installation, warm ones included (1 to 10000)."`
	SandboxDriver     SandboxDriver `env:"AMBIT_SANDBOX_DRIVER" envDefault:"auto" doc:"What runs sandboxes: auto (the best that boots here) or qemu."`
	WorkerConcurrency int           `env:"AMBIT_WORKER_CONCURRENCY" envDefault:"64" doc:"Most sessions that one worker advances at a time (1 to 10000)."`

	RateLimit    int `env:"AMBIT_RATE_LIMIT" envDefault:"600" doc:"Most API requests a minute of one key, over all processes (1 to 1000000)."`
	OrgRateLimit int `env:"AMBIT_ORG_RATE_LIMIT" envDefault:"0" doc:"Most API requests a minute of all keys of an organisation. 0: ten times AMBIT_RATE_LIMIT."`
	// What sessions that are under way use is counted, and not cut.
	TokenLimit      int `env:"AMBIT_TOKEN_LIMIT" envDefault:"0" doc:"Most tokens of models a minute of one key's sessions; while they are used up, the key can give nothing to do. 0: no limit."`
	OrgTokenLimit   int `env:"AMBIT_ORG_TOKEN_LIMIT" envDefault:"0" doc:"Most tokens of models a minute of an organisation's sessions. 0: no limit."`
	SessionLimit    int `env:"AMBIT_SESSION_LIMIT" envDefault:"1000" doc:"Most sessions of one key that are at work at a time, over all processes. 0: no limit."`
	OrgSessionLimit int `env:"AMBIT_ORG_SESSION_LIMIT" envDefault:"5000" doc:"Most sessions of an organisation that are at work at a time. 0: no limit."`

	StarterCredit money.Nanos `env:"AMBIT_STARTER_CREDIT" envDefault:"5.00" doc:"Credit that a new organisation begins with, in US dollars with two to nine decimals."`

	PricesFile string `env:"AMBIT_PRICES_FILE" doc:"Path of a JSON file with prices beside the built-in table: for models of your own, and for what others charge you differently."`

	QEMU          string `env:"AMBIT_QEMU" doc:"Path of qemu-system-x86_64. Default: found on the PATH."`
	KernelImage   string `env:"AMBIT_KERNEL" doc:"Path of the sandboxes' kernel (vmlinux). Default: the one in AMBIT_CACHE_DIR."`
	KernelModules string `env:"AMBIT_KERNEL_MODULES" doc:"Folder of that kernel's modules (.ko files). Default: the one in AMBIT_CACHE_DIR."`
	Rootfs        string `env:"AMBIT_ROOTFS" doc:"Path of the sandboxes' root filesystem (erofs image). Default: the one in AMBIT_CACHE_DIR."`
	GuestBinary   string `env:"AMBIT_GUEST" doc:"Path of the static ambit-guest binary. Default: beside the running binary."`
	NodeBinary    string `env:"AMBIT_NODE" doc:"Path, on the nodes, of the ambit-node binary that Nomad starts. Default: beside the running binary."`

	APIURL Address `env:"AMBIT_API_URL" doc:"For the command line: the URL of the Ambit to talk to. Default: the one of the last ambit login, else AMBIT_PUBLIC_URL."`
	APIKey Secret  `env:"AMBIT_API_KEY" doc:"For the command line: the API key to use in place of the one of the last ambit login."`

	Instance string `env:"AMBIT_INSTANCE" scope:"internal" doc:"Set by ambit up for all that it starts: marks the processes of one data directory, so that what a killed run left is found."`
}

// LogFormat is the form of log lines.
type LogFormat string

// The log formats.
const (
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

// SandboxDriver chooses what runs sandboxes.
type SandboxDriver string

// The sandbox drivers.
const (
	DriverAuto SandboxDriver = "auto"
	DriverQEMU SandboxDriver = "qemu"
)

// applyDefaults fills the defaults that depend on the machine or on other
// fields. What the engines package lays out in the cache is left empty here.
func (c *Config) applyDefaults() {
	if c.DataDir == "" {
		c.DataDir = defaultDataDir()
	}
	if c.CacheDir == "" {
		c.CacheDir = defaultCacheDir()
	}
	if c.PublicURL == "" {
		c.PublicURL = Address("http://" + c.Listen)
	}
	if c.NodeURL == "" {
		c.NodeURL = Address("http://" + c.NodeListen)
	}
	if c.MasterKeyFile == "" {
		c.MasterKeyFile = filepath.Join(c.DataDir, "master.key")
	}
	if self, err := os.Executable(); err == nil {
		if c.GuestBinary == "" {
			c.GuestBinary = filepath.Join(filepath.Dir(self), "ambit-guest")
		}
		if c.NodeBinary == "" {
			c.NodeBinary = filepath.Join(filepath.Dir(self), "ambit-node")
		}
	}
	if c.AnthropicAPIKey != "" && c.AnthropicBaseURL == "" {
		c.AnthropicBaseURL = "https://api.anthropic.com"
	}
	if c.OpenAIAPIKey != "" && c.OpenAIBaseURL == "" {
		c.OpenAIBaseURL = "https://api.openai.com/v1"
	}
}
