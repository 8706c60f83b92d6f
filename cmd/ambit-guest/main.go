// Command ambit-guest is PID 1 of every sandbox: statically linked, the only
// program of the initramfs. It prepares the machine and answers the host over
// the virtio-serial channel. See sandbox/guest/boot and sandbox/guest/agent.
package main

import (
	"fmt"
	"os"

	"ambit.dev/ambit/sandbox/guest/boot"
)

// version is set by the linker.
var version = "dev"

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "ambit-guest", version, "runs as the first process of a sandbox, nowhere else")
		os.Exit(2)
	}
	boot.Main(version)
}
