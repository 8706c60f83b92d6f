package seal

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// masterKeyLen is the master key's length in bytes.
const masterKeyLen = 32

// Open returns a sealer under the master key that is configured, or, when configured is empty, under the one in the file. That file is
// made, readable by its owner alone, when it is missing; losing it loses every sealed value, so a backup must hold it.
//
// configured holds one or more keys, each 32 bytes in base64 or hexadecimal, parted by commas or white space. The first one seals; the
// others still open what they sealed, which is how a master key is changed. The file has the same form.
func Open(configured, file string) (*Sealer, error) {
	if strings.TrimSpace(configured) != "" {
		keys, err := parseKeys(configured)
		if err != nil {
			return nil, fmt.Errorf("read the configured master key: %w", err)
		}
		return newSealer(keys)
	}
	text, err := readKeyFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		if err := createKeyFile(file); err != nil {
			return nil, fmt.Errorf("make the master key's file: %w", err)
		}
		text, err = readKeyFile(file)
	}
	if err != nil {
		return nil, fmt.Errorf("read the master key's file: %w", err)
	}
	keys, err := parseKeys(text)
	if err != nil {
		return nil, fmt.Errorf("read the master key's file %s: %w", file, err)
	}
	return newSealer(keys)
}

// NewKey makes a master key in the form that Open reads.
func NewKey() string {
	raw := make([]byte, masterKeyLen)
	_, _ = rand.Read(raw) // crypto/rand.Read never returns an error: it ends the program when the system has no randomness
	return base64.StdEncoding.EncodeToString(raw)
}

// parseKeys never repeats its input in an error: it would end up in a log.
func parseKeys(text string) ([][]byte, error) {
	fields := strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\t' || r == '\r' })
	if len(fields) == 0 {
		return nil, errors.New("it is empty")
	}
	keys := make([][]byte, 0, len(fields))
	for i, f := range fields {
		raw, ok := decodeKey(f)
		if !ok {
			return nil, fmt.Errorf("key %d is not %d bytes in base64 or hexadecimal; make one with: openssl rand -base64 %d", i+1, masterKeyLen, masterKeyLen)
		}
		keys = append(keys, raw)
	}
	return keys, nil
}

func decodeKey(s string) ([]byte, bool) {
	if len(s) == hex.EncodedLen(masterKeyLen) {
		raw, err := hex.DecodeString(s)
		return raw, err == nil
	}
	unpadded := strings.TrimRight(s, "=")
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		if raw, err := enc.DecodeString(unpadded); err == nil && len(raw) == masterKeyLen {
			return raw, true
		}
	}
	return nil, false
}

func readKeyFile(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if open := info.Mode().Perm() & 0o077; open != 0 {
		return "", fmt.Errorf("%s may be read by others than its owner (mode %04o); run: chmod 600 %s", path, info.Mode().Perm(), path)
	}
	text, err := os.ReadFile(path)
	return string(text), err
}

// createKeyFile writes the whole file under another name and then links it, which fails when the name is taken: of two processes that
// start at once, one makes the key and both read it, and a crash in between leaves no half-written key.
func createKeyFile(path string) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(tmp.Name())) }()
	_, err = tmp.WriteString(NewKey() + "\n")
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(dir)
}

// syncDir makes the new name itself survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
