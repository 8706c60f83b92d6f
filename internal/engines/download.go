package engines

import (
	"context"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

const (
	downloadTries = 5
	stallLimit    = time.Minute // a connection that brings nothing for so long is given up
)

// errWrongHash is returned when what came is not what is pinned.
var errWrongHash = errors.New("wrong hash")

// download fetches url into file and checks it against integrity ("sha512-…",
// as npm writes it). What an interrupted run has left in file+".part" is kept
// and asked on from there; a file with a wrong hash is removed.
func download(ctx context.Context, t *task, url, file, integrity string) error {
	var err error
	for try := range downloadTries {
		if try > 0 {
			t.say("download broke off (%v), trying again", err)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Duration(try) * time.Second):
			}
		}
		var again bool
		if again, err = downloadOnce(ctx, t, url, file, integrity); err == nil || !again || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("downloading %s: %w", url, err)
	}
	return nil
}

func downloadOnce(ctx context.Context, t *task, url, file, integrity string) (again bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	part, err := os.OpenFile(file+".part", os.O_CREATE|os.O_RDWR, 0o644) //nolint:gosec // public content
	if err != nil {
		return false, err
	}
	defer part.Close()
	sum := sha512.New()
	have, err := io.Copy(sum, part)
	if err != nil {
		return false, err
	}

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return false, err
	}
	if have > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", have))
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return true, err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusPartialContent:
	case resp.StatusCode == http.StatusOK:
		// The server sends all of it, whatever we asked for.
		if have, err = 0, restart(part, sum); err != nil {
			return false, err
		}
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		// The part is already as long as the file: the hash decides.
		return finish(part, file, sum, integrity)
	default:
		return resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests, fmt.Errorf("the server answered %s", resp.Status)
	}

	total := int64(0)
	if resp.ContentLength > 0 {
		total = have + resp.ContentLength
	}
	watchdog := time.AfterFunc(stallLimit, func() { cancel(fmt.Errorf("nothing came for %s", stallLimit)) })
	defer watchdog.Stop()
	buf := make([]byte, 256<<10)
	for {
		n, readErr := resp.Body.Read(buf)
		if n > 0 {
			watchdog.Reset(stallLimit)
			if _, err := io.MultiWriter(part, sum).Write(buf[:n]); err != nil {
				return false, err
			}
			have += int64(n)
			t.count("downloading", bytesCount, have, total)
		}
		if errors.Is(readErr, io.EOF) {
			break
		}
		if readErr != nil {
			if cause := context.Cause(ctx); cause != nil {
				readErr = cause
			}
			return true, readErr
		}
	}
	return finish(part, file, sum, integrity)
}

func restart(part *os.File, sum hash.Hash) error {
	sum.Reset()
	if err := part.Truncate(0); err != nil {
		return err
	}
	_, err := part.Seek(0, io.SeekStart)
	return err
}

func finish(part *os.File, file string, sum hash.Hash, integrity string) (again bool, err error) {
	got := "sha512-" + base64.StdEncoding.EncodeToString(sum.Sum(nil))
	if got != integrity {
		return false, errors.Join(
			fmt.Errorf("%w: %s has %s, pinned is %s", errWrongHash, part.Name(), got, integrity),
			os.Remove(part.Name()))
	}
	return false, os.Rename(part.Name(), file)
}

// npmTarball is where a registry keeps a package's archive.
func npmTarball(registry, name, version string) string {
	base := name[strings.LastIndex(name, "/")+1:]
	return strings.TrimSuffix(registry, "/") + "/" + name + "/-/" + base + "-" + version + ".tgz"
}
