package clickhousetest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"ambit.dev/ambit/internal/config"
)

// library finds libchdb in the cache folder.
func library(context.Context) (string, error) {
	path := filepath.Join(config.CacheDir(), "chdb", "26.7.3-stable.1", "libchdb.so")
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("the ClickHouse engine's library is missing: %w", err)
	}
	return path, nil
}
