package qemu

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// loadMemory copies a memory image into a memory file and seals it: whoever gets
// the file, QEMU under a guest's control included, can map it privately and
// never change it for the others. Holes stay holes. It also returns the hash of
// what it copied.
func loadMemory(image *os.File, size int64) (*os.File, string, error) {
	fd, err := unix.MemfdCreate("ambit-template", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, "", fmt.Errorf("make a memory file: %w", err)
	}
	mem := os.NewFile(uintptr(fd), "ambit-template")
	if err := mem.Truncate(size); err != nil {
		_ = mem.Close()
		return nil, "", fmt.Errorf("size the memory file: %w", err)
	}
	sum, err := eachBlock(image, size, func(b []byte, at int64) error {
		_, err := mem.WriteAt(b, at)
		return err
	})
	if err != nil {
		_ = mem.Close()
		return nil, "", err
	}
	seals := unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(mem.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		_ = mem.Close()
		return nil, "", fmt.Errorf("seal the memory file: %w", err)
	}
	return mem, sum, nil
}

// imageBlock is the unit in which an image is copied and hashed.
const imageBlock = 64 << 10

// eachBlock visits the blocks of a sparse file that are not all zero, and
// returns a hash over them and their places: the same for the same content,
// however a file system lays it out.
func eachBlock(src *os.File, size int64, visit func(b []byte, at int64) error) (string, error) {
	h := sha256.New()
	buf, zero := make([]byte, imageBlock), make([]byte, imageBlock)
	var place [8]byte
	for pos := int64(0); pos < size; {
		start, err := unix.Seek(int(src.Fd()), pos, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // only a hole is left
		}
		if err != nil {
			return "", fmt.Errorf("read the memory image: %w", err)
		}
		pos = max(pos, start/imageBlock*imageBlock)
		n, err := src.ReadAt(buf[:min(imageBlock, size-pos)], pos)
		if err != nil && (!errors.Is(err, io.EOF) || n == 0) {
			return "", fmt.Errorf("read the memory image at %d: %w", pos, err)
		}
		if !bytes.Equal(buf[:n], zero[:n]) {
			binary.LittleEndian.PutUint64(place[:], uint64(pos)) //nolint:gosec // not negative
			_, _ = h.Write(place[:])
			_, _ = h.Write(buf[:n])
			if visit != nil {
				if err := visit(buf[:n], pos); err != nil {
					return "", fmt.Errorf("copy the memory image: %w", err)
				}
			}
		}
		pos += int64(n)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// reopen gives a description of a file of its own, with its own position:
// descriptors that came over a socket share theirs with everybody.
func reopen(f *os.File) (*os.File, error) {
	out, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		return nil, fmt.Errorf("reopen %s: %w", f.Name(), err)
	}
	return out, nil
}
