package masterkey

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"gocloud.dev/secrets"
	_ "gocloud.dev/secrets/awskms" // awskms://

	"ambit.dev/ambit/internal/config"
	"ambit.dev/ambit/internal/seal"
)

const (
	// preamble begins an encrypted file, so that a key in clear is never taken for one.
	preamble = "ambit master key, encrypted by a key management service\n"
	// askFor is how long the service may take.
	askFor = 30 * time.Second
)

// Open opens the sealer of the configuration. Without AMBIT_MASTER_KEY_URL it is seal.Open. With it, AMBIT_MASTER_KEY_FILE holds the key as
// the service encrypted it; a missing file is made, from AMBIT_MASTER_KEY if that is set (so that a key in use can be brought under the
// service), else with a new key.
func Open(ctx context.Context, cfg config.Config) (*seal.Sealer, error) {
	if cfg.MasterKeyURL == "" {
		return seal.Open(cfg.MasterKey.Reveal(), cfg.MasterKeyFile)
	}
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	keeper, err := secrets.OpenKeeper(ctx, cfg.MasterKeyURL.Reveal())
	if err != nil {
		return nil, fmt.Errorf("open AMBIT_MASTER_KEY_URL: %s", without(cfg.MasterKeyURL.Reveal(), err))
	}
	text, err := read(ctx, keeper, cfg)
	if err = errors.Join(err, keeper.Close()); err != nil {
		return nil, err
	}
	return seal.Open(text, "")
}

// without is what an error says but for the address, of which a part may be a key itself.
func without(address string, err error) string {
	scheme, _, _ := strings.Cut(address, ":")
	text := strings.ReplaceAll(err.Error(), address, scheme+"://…")
	quoted := strings.Trim(strconv.Quote(address), `"`)
	text = strings.ReplaceAll(text, quoted, scheme+"://…")
	if u, bad := url.Parse(address); bad == nil { // as it is written again
		text = strings.ReplaceAll(text, u.String(), scheme+"://…")
	}
	return text
}

func read(ctx context.Context, keeper *secrets.Keeper, cfg config.Config) (string, error) {
	raw, err := os.ReadFile(cfg.MasterKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		if err := encrypt(ctx, keeper, cfg); err != nil {
			return "", err
		}
		raw, err = os.ReadFile(cfg.MasterKeyFile)
	}
	if err != nil {
		return "", fmt.Errorf("read the encrypted master key: %w", err)
	}
	body, ok := strings.CutPrefix(string(raw), preamble)
	if !ok {
		return "", fmt.Errorf("%s is no encrypted master key: it was made without AMBIT_MASTER_KEY_URL. To have its key encrypted, move the file away and set AMBIT_MASTER_KEY to what it holds for one start", cfg.MasterKeyFile)
	}
	sealed, err := base64.StdEncoding.DecodeString(strings.TrimSpace(body))
	if err != nil {
		return "", fmt.Errorf("%s is damaged: %w", cfg.MasterKeyFile, err)
	}
	text, err := keeper.Decrypt(ctx, sealed)
	if err != nil {
		return "", fmt.Errorf("the key management service did not decrypt the master key: %w", err)
	}
	// The same one may still be set, as for the other processes of the start that encrypted it.
	if given := strings.TrimSpace(cfg.MasterKey.Reveal()); given != "" && given != strings.TrimSpace(string(text)) {
		return "", fmt.Errorf("AMBIT_MASTER_KEY is not the key that %s holds: unset it, or put the file aside to have that key encrypted", cfg.MasterKeyFile)
	}
	return string(text), nil
}

// encrypt makes the file. It is written whole under another name and then linked, which fails when the name is taken: of two processes that
// start at once one makes the key, and both read it.
func encrypt(ctx context.Context, keeper *secrets.Keeper, cfg config.Config) (err error) {
	text := cfg.MasterKey.Reveal()
	if strings.TrimSpace(text) == "" {
		text = seal.NewKey()
	}
	if _, err := seal.Open(text, ""); err != nil {
		return err // what is no key is not encrypted
	}
	sealed, err := keeper.Encrypt(ctx, []byte(text))
	if err != nil {
		return fmt.Errorf("the key management service did not encrypt the master key: %w", err)
	}
	dir := filepath.Dir(cfg.MasterKeyFile)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the master key's folder: %w", err)
	}
	tmp, err := os.CreateTemp(dir, filepath.Base(cfg.MasterKeyFile)+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("make the encrypted master key's file: %w", err)
	}
	defer func() { err = errors.Join(err, os.Remove(tmp.Name())) }()
	_, err = tmp.WriteString(preamble + base64.StdEncoding.EncodeToString(sealed) + "\n")
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return fmt.Errorf("write the encrypted master key: %w", err)
	}
	if err := os.Link(tmp.Name(), cfg.MasterKeyFile); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("keep the encrypted master key: %w", err)
	}
	return nil
}
