package guest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
)

// ReadFile reads part of a regular file.
func (c *Client) ReadFile(ctx context.Context, req ReadRequest) (*ReadResult, error) {
	k, err := c.open(ctx, OpReadFile, req)
	if err != nil {
		return nil, err
	}
	defer k.close()
	res := &ReadResult{}
	var data []byte
	err = k.result(&res.Entry, func(p []byte) error {
		if len(data)+len(p) > MaxRead {
			return fmt.Errorf("guest answer: %w: more data than asked for", errFrame)
		}
		data = append(data, p...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	res.Data = data
	return res, nil
}

// WriteFile replaces or makes a file with req.Size bytes of r.
func (c *Client) WriteFile(ctx context.Context, req WriteRequest, r io.Reader) (*Entry, error) {
	if req.Size < 0 || req.Size > MaxWrite {
		return nil, Errorf(CodeTooLarge, "%d bytes; a file is written with at most %d", req.Size, MaxWrite)
	}
	k, err := c.open(ctx, OpWriteFile, req)
	if err != nil {
		return nil, err
	}
	defer k.close()
	e := &Entry{}
	if err := k.upload(r, req.Size, e); err != nil {
		return nil, err
	}
	return e, nil
}

// WriteBytes is WriteFile for content in memory; it sets req.Size.
func (c *Client) WriteBytes(ctx context.Context, req WriteRequest, content []byte) (*Entry, error) {
	req.Size = int64(len(content))
	return c.WriteFile(ctx, req, bytes.NewReader(content))
}

// List lists a directory.
func (c *Client) List(ctx context.Context, req ListRequest) (*ListResult, error) {
	res := &ListResult{}
	if err := c.unary(ctx, OpList, req, res); err != nil {
		return nil, err
	}
	return res, nil
}

// Stat describes one path; a symlink is described itself, not followed.
func (c *Client) Stat(ctx context.Context, path string) (*Entry, error) {
	e := &Entry{}
	if err := c.unary(ctx, OpStat, PathRequest{Path: path}, e); err != nil {
		return nil, err
	}
	return e, nil
}

// Remove removes a file, a symlink itself, or a directory. CodeNotFound when
// there is none.
func (c *Client) Remove(ctx context.Context, req RemoveRequest) error {
	return c.unary(ctx, OpRemove, req, nil)
}

// Save streams the working directory as an archive to w. Commands are frozen
// meanwhile, so that the archive is of one moment. The hash is checked against
// what arrived; on any error what was written to w is worthless.
func (c *Client) Save(ctx context.Context, w io.Writer) (*Archive, error) {
	k, err := c.open(ctx, OpSave, struct{}{})
	if err != nil {
		return nil, err
	}
	defer k.close()
	sum := newCountingHash()
	a := &Archive{}
	err = k.result(a, func(p []byte) error {
		_, _ = sum.Write(p)
		if _, err := w.Write(p); err != nil {
			return fmt.Errorf("store the archive: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if sum.hex() != a.SHA256 || sum.n != a.Bytes {
		return nil, Errorf(CodeHashMismatch, "the archive arrived as %s (%d bytes), the guest sent %s (%d bytes)", sum.hex(), sum.n, a.SHA256, a.Bytes)
	}
	return a, nil
}

// Restore replaces the working directory by an archive that Save made. The
// guest checks the hash; on any error the working directory is empty.
func (c *Client) Restore(ctx context.Context, req RestoreRequest, r io.Reader) (*Archive, error) {
	k, err := c.open(ctx, OpRestore, req)
	if err != nil {
		return nil, err
	}
	defer k.close()
	a := &Archive{}
	if err := k.upload(r, req.Bytes, a); err != nil {
		return nil, err
	}
	return a, nil
}

// countingHash is SHA-256 that also counts.
type countingHash struct {
	h hash.Hash
	n int64
}

func newCountingHash() *countingHash { return &countingHash{h: sha256.New()} }

func (c *countingHash) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return c.h.Write(p)
}

func (c *countingHash) hex() string { return hex.EncodeToString(c.h.Sum(nil)) }
