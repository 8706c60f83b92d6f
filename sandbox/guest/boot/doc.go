// Package boot brings a sandbox's machine up as PID 1: it loads the kernel
// modules that the initramfs carries, mounts the root filesystem under an
// overlay, makes the working directory, and hands the byte channel to
// sandbox/guest/agent.
//
// It owns what is particular to a virtual machine: mounts, sizes of the memory
// file systems, the memory limit of commands, the clock and the random number
// generator, and the virtio-serial port. It runs nowhere but inside a sandbox.
//
// It does not own the operations (sandbox/guest/agent) nor the machine's shape,
// which the host's driver gives on the kernel's command line as ambit.* words.
//
// It may import the standard library, sandbox/guest, sandbox/guest/agent and x/sys.
package boot
