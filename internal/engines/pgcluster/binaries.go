package pgcluster

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
)

// MinMajor is the oldest Postgres that Ambit's schema is written for.
const MinMajor = 15

// ErrNoBinaries is returned when no usable Postgres server is installed.
var ErrNoBinaries = errors.New("no Postgres 15 or newer found in /usr/lib/postgresql or by pg_config; on Debian: apt-get install postgresql")

// FindBinDir returns the folder with initdb and postgres of the oldest
// installed server of at least MinMajor (the one that Ambit is tested with,
// when several are there).
func FindBinDir(ctx context.Context) (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil {
		return "", err
	}
	type candidate struct {
		major int
		dir   string
	}
	var usable []candidate
	for _, p := range found {
		dir := filepath.Dir(p)
		major, err := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
		if err == nil && major >= MinMajor && hasServer(dir) {
			usable = append(usable, candidate{major, dir})
		}
	}
	sort.Slice(usable, func(i, j int) bool { return usable[i].major < usable[j].major })
	if len(usable) > 0 {
		return usable[0].dir, nil
	}
	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		dir := strings.TrimSpace(string(out))
		if major, err := serverMajor(ctx, dir); err == nil && major >= MinMajor && hasServer(dir) {
			return dir, nil
		}
	}
	return "", ErrNoBinaries
}

func hasServer(dir string) bool {
	for _, name := range []string{"postgres", "initdb", "pg_dump", "pg_restore"} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.IsDir() {
			return false
		}
	}
	return true
}

func serverMajor(ctx context.Context, dir string) (int, error) {
	// "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(out))
	if len(fields) < 3 {
		return 0, errors.New("unexpected answer to postgres --version")
	}
	major, _, _ := strings.Cut(fields[2], ".")
	return strconv.Atoi(major)
}
