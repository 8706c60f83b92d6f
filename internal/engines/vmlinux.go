package engines

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/pierrec/lz4/v4"
)

// Places in the header of a bzImage (the kernel's Documentation/arch/x86/boot.rst).
const (
	setupSectors  = 0x1f1
	headerMagicAt = 0x202
	payloadOffset = 0x248 // from the end of the setup sectors
	payloadLength = 0x24c
	largestKernel = 512 << 20
)

var (
	headerMagic = []byte("HdrS")
	lz4Legacy   = []byte{0x02, 0x21, 0x4c, 0x18}
)

// extractVmlinux takes the kernel's ELF image out of a bzImage that is
// compressed with LZ4, as Debian's cloud kernel is. QEMU boots the ELF image
// directly, which saves the guest the unpacking.
func extractVmlinux(image []byte) ([]byte, error) {
	if len(image) < payloadLength+4 || !bytes.Equal(image[headerMagicAt:headerMagicAt+4], headerMagic) {
		return nil, errors.New("this is no bzImage")
	}
	sectors := int64(image[setupSectors])
	if sectors == 0 {
		sectors = 4 // as the boot protocol has it
	}
	start := (sectors+1)*512 + int64(binary.LittleEndian.Uint32(image[payloadOffset:]))
	length := int64(binary.LittleEndian.Uint32(image[payloadLength:]))
	// The payload's last four bytes are the size of what is in it.
	if length < 8 || start+length > int64(len(image)) {
		return nil, errors.New("the bzImage's payload lies outside of it")
	}
	payload := image[start : start+length]
	if !bytes.HasPrefix(payload, lz4Legacy) {
		return nil, fmt.Errorf("the kernel is not compressed with LZ4 (it begins with % x)", payload[:4])
	}
	size := int64(binary.LittleEndian.Uint32(payload[length-4:]))
	if size == 0 || size > largestKernel {
		return nil, fmt.Errorf("the bzImage says that its kernel has %d bytes", size)
	}
	vmlinux := make([]byte, size)
	if _, err := io.ReadFull(lz4.NewReader(bytes.NewReader(payload[:length-4])), vmlinux); err != nil {
		return nil, fmt.Errorf("decompressing the kernel: %w", err)
	}
	f, err := elf.NewFile(bytes.NewReader(vmlinux))
	if err != nil {
		return nil, fmt.Errorf("what came out is no ELF image: %w", err)
	}
	if f.Machine != elf.EM_X86_64 {
		return nil, fmt.Errorf("the kernel is for %s", f.Machine)
	}
	return vmlinux, f.Close()
}
