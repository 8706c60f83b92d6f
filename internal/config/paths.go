package config

import (
	"os"
	"path/filepath"
	"strings"
)

// CacheDir is where engines and downloads are kept: AMBIT_CACHE_DIR, or the
// default. It is for code that needs nothing else of the configuration (tests,
// the engines themselves); the rest takes Config.CacheDir.
func CacheDir() string {
	if dir := os.Getenv("AMBIT_CACHE_DIR"); dir != "" {
		return dir
	}
	return defaultCacheDir()
}

// defaultCacheDir is /var/cache/ambit for root, because root's home is closed to
// the accounts that Postgres and the sandboxes run as; else it lies in the
// user's own cache folder.
func defaultCacheDir() string {
	if os.Getuid() == 0 {
		return "/var/cache/ambit"
	}
	if dir, err := os.UserCacheDir(); err == nil {
		return filepath.Join(dir, "ambit")
	}
	return filepath.Join(os.TempDir(), "ambit-cache")
}

// defaultDataDir is /var/lib/ambit for root, for the same reason.
func defaultDataDir() string {
	if os.Getuid() == 0 {
		return "/var/lib/ambit"
	}
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "ambit")
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".local", "share", "ambit")
	}
	return filepath.Join(os.TempDir(), "ambit-data")
}

// defaultNPMRegistry is npm's own.
const defaultNPMRegistry = "https://registry.npmjs.org"

// NPMRegistry is the registry that npm would use here: NPM_CONFIG_REGISTRY, the
// "registry=" line of ~/.npmrc or /etc/npmrc, or npm's own.
func NPMRegistry() string {
	for _, name := range []string{"NPM_CONFIG_REGISTRY", "npm_config_registry"} {
		if r := os.Getenv(name); r != "" {
			return strings.TrimSuffix(r, "/")
		}
	}
	files := []string{"/etc/npmrc"}
	if home, err := os.UserHomeDir(); err == nil {
		files = append([]string{filepath.Join(home, ".npmrc")}, files...)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			name, value, ok := strings.Cut(line, "=")
			value = strings.Trim(strings.TrimSpace(value), `"'`)
			if ok && strings.TrimSpace(name) == "registry" && strings.HasPrefix(value, "http") {
				return strings.TrimSuffix(value, "/")
			}
		}
	}
	return defaultNPMRegistry
}

// PlainTerminal says that the terminal wants neither colours nor moving lines
// (TERM=dumb or NO_COLOR).
func PlainTerminal() bool { return os.Getenv("TERM") == "dumb" || os.Getenv("NO_COLOR") != "" }
