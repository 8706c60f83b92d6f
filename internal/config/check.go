package config

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net"
	"net/mail"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// check returns one line for each field that can't be right.
func (c *Config) check() []string {
	var out []string
	wrong := func(name, format string, args ...any) {
		out = append(out, name+" "+fmt.Sprintf(format, args...))
	}
	address := func(name string, a Address, schemes ...string) {
		if a == "" {
			return
		}
		// The parser's own error would show the URL, password and all.
		u, err := url.Parse(string(a))
		if err != nil || !slices.Contains(schemes, u.Scheme) {
			wrong(name, "must be a URL that begins with %s", orList(schemes))
			return
		}
		if u.Scheme == "unix" {
			if !filepath.IsAbs(u.Path) || u.Host != "" {
				wrong(name, "must name the socket by its whole path: unix:///path/of.socket")
			}
			return
		}
		if u.Hostname() == "" {
			wrong(name, "names no host")
		}
	}
	listen := func(name, hostport string) {
		_, port, err := net.SplitHostPort(hostport)
		if n, convErr := strconv.Atoi(port); err != nil || convErr != nil || n < 0 || n > 65535 {
			wrong(name, "must be host:port, such as 127.0.0.1:8080")
		}
	}
	within := func(name string, n, least, most int) {
		if n < least || n > most {
			wrong(name, "must be from %d to %d", least, most)
		}
	}
	absolute := func(name, path string) {
		if path != "" && !filepath.IsAbs(path) {
			wrong(name, "must be a whole path, from / on")
		}
	}

	absolute("AMBIT_DATA_DIR", c.DataDir)
	absolute("AMBIT_CACHE_DIR", c.CacheDir)
	if filepath.IsAbs(c.DataDir) { // its default lies there
		absolute("AMBIT_MASTER_KEY_FILE", c.MasterKeyFile)
	}
	absolute("AMBIT_PRICES_FILE", c.PricesFile)
	absolute("AMBIT_QEMU", c.QEMU)
	absolute("AMBIT_KERNEL", c.KernelImage)
	absolute("AMBIT_KERNEL_MODULES", c.KernelModules)
	absolute("AMBIT_ROOTFS", c.Rootfs)
	absolute("AMBIT_GUEST", c.GuestBinary)
	absolute("AMBIT_NODE", c.NodeBinary)

	address("AMBIT_POSTGRES_URL", c.PostgresURL, "postgres", "postgresql")
	address("AMBIT_CLICKHOUSE_URL", c.ClickHouseURL, "clickhouse", "http", "https", "unix")
	address("AMBIT_NOMAD_ADDR", c.NomadAddr, "http", "https")
	address("AMBIT_PUBLIC_URL", c.PublicURL, "http", "https")
	address("AMBIT_NODE_URL", c.NodeURL, "http", "https")
	if key, ok := strings.CutPrefix(c.MasterKeyURL.Reveal(), "awskms://"); c.MasterKeyURL != "" && (!ok || key == "") {
		wrong("AMBIT_MASTER_KEY_URL", "must name a key: awskms://ID, or awskms:///ARN, with ?region=…")
	}
	address("AMBIT_SMTP_URL", c.SMTPURL, "smtp", "smtps")
	address("AMBIT_ANTHROPIC_BASE_URL", c.AnthropicBaseURL, "http", "https")
	address("AMBIT_OPENAI_BASE_URL", c.OpenAIBaseURL, "http", "https")
	address("AMBIT_API_URL", c.APIURL, "http", "https")

	listen("AMBIT_LISTEN", c.Listen)
	listen("AMBIT_NODE_LISTEN", c.NodeListen)
	if c.Listen == c.NodeListen && !strings.HasSuffix(c.Listen, ":0") {
		wrong("AMBIT_NODE_LISTEN", "must differ from AMBIT_LISTEN: nodes' traffic is never public")
	}

	if c.EgressAllowLoopback && !onLoopback(c.Listen) {
		wrong("AMBIT_EGRESS_ALLOW_LOOPBACK", "is for tests: it can't be true while AMBIT_LISTEN is open to others")
	}
	if c.MasterKey != "" && !masterKeys(c.MasterKey.Reveal()) {
		wrong("AMBIT_MASTER_KEY", "must be 32 bytes in base64 or hexadecimal (openssl rand -base64 32 makes one)")
	}
	if _, err := mail.ParseAddress(c.MailFrom); err != nil {
		wrong("AMBIT_MAIL_FROM", "must be a mail address, such as Ambit <ambit@example.com>")
	}
	if c.LogFormat != LogText && c.LogFormat != LogJSON {
		wrong("AMBIT_LOG_FORMAT", "must be text or json")
	}
	if c.SandboxDriver != DriverAuto && c.SandboxDriver != DriverQEMU {
		wrong("AMBIT_SANDBOX_DRIVER", "must be auto or qemu")
	}
	within("AMBIT_POSTGRES_CONNS", c.PostgresConns, 4, 1000)
	within("AMBIT_WARM_SANDBOXES", c.WarmSandboxes, 0, 100)
	within("AMBIT_MAX_SANDBOXES", c.MaxSandboxes, 1, 10000)
	within("AMBIT_WORKER_CONCURRENCY", c.WorkerConcurrency, 1, 10000)
	within("AMBIT_RATE_LIMIT", c.RateLimit, 1, 1_000_000)
	within("AMBIT_ORG_RATE_LIMIT", c.OrgRateLimit, 0, 10_000_000)
	within("AMBIT_TOKEN_LIMIT", c.TokenLimit, 0, 1_000_000_000)
	within("AMBIT_ORG_TOKEN_LIMIT", c.OrgTokenLimit, 0, 1_000_000_000)
	within("AMBIT_SESSION_LIMIT", c.SessionLimit, 0, 1_000_000)
	within("AMBIT_ORG_SESSION_LIMIT", c.OrgSessionLimit, 0, 1_000_000)
	if c.StarterCredit < 0 {
		wrong("AMBIT_STARTER_CREDIT", "must not be negative")
	}
	return out
}

// onLoopback reports whether a listening address is reachable from this machine alone.
func onLoopback(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

// masterKeys checks the form that internal/seal reads: keys of 32 bytes in base64
// or hexadecimal, parted by commas or white space.
func masterKeys(text string) bool {
	keys := strings.FieldsFunc(text, func(r rune) bool { return r == ',' || unicode.IsSpace(r) })
	for _, k := range keys {
		raw, err := hex.DecodeString(k)
		if err != nil {
			raw, err = base64.StdEncoding.DecodeString(k)
		}
		if err != nil || len(raw) != 32 {
			return false
		}
	}
	return len(keys) > 0
}

func orList(schemes []string) string {
	parts := make([]string, len(schemes))
	for i, s := range schemes {
		parts[i] = s + "://"
	}
	if len(parts) == 1 {
		return parts[0]
	}
	return strings.Join(parts[:len(parts)-1], ", ") + " or " + parts[len(parts)-1]
}
