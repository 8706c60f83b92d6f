package config

import (
	"os"
	"path/filepath"
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
