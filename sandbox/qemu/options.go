package qemu

import (
	"fmt"
	"strconv"

	"ambit.dev/ambit/sandbox/driver"
)

const (
	machineType = "microvm"
	// portName is the virtio-serial port's; the guest looks for it.
	portName = "ambit.0"
	// tcgCPU has what Debian's amd64 needs, and rdrand, from which the guest's
	// kernel seeds itself at boot. arat tells the kernel that its timer runs on
	// while the CPU sleeps: without it, it never stops ticking, and an idle
	// sandbox takes 3 to 5% of a host CPU.
	tcgCPU = "qemu64,+rdrand,+arat"
	// tcgCache is the software CPU's cache of translated code in MiB. With half
	// of it, Python keeps evicting itself.
	tcgCache = 64
)

// Numbers of the files that every QEMU process inherits, after the standard
// three. The order is that of the files slice in launch.
const (
	fdMonitor = 3
	fdChannel = 4
	fdMemory  = 5
	fdRootfs  = 6
	fdState   = 7 // clones only
	fdKernel  = 7 // cold boots only
	fdInitrd  = 8
)

// shape is what must be the same for a template and its clones.
type shape struct {
	accelerator driver.Accelerator
	cpu         string
	memoryMiB   int
	vcpus       int
}

func cpuModel(a driver.Accelerator) string {
	if a == driver.AcceleratorKVM {
		return "host"
	}
	return tcgCPU
}

// arguments are those that a cold boot and a clone have in common. There is no
// network card, no display, no USB, no default device and no configuration file
// of the host's; the root filesystem is read-only.
func (s shape) arguments(name string, shareMemory bool) []string {
	accel := "kvm"
	if s.accelerator == driver.AcceleratorTCG {
		accel = "tcg,tb-size=" + strconv.Itoa(tcgCache)
	}
	return []string{
		"-name", "guest=" + name,
		"-M", machineType + ",acpi=on,rtc=on,memory-backend=ram",
		"-accel", accel,
		"-cpu", s.cpu,
		"-smp", strconv.Itoa(s.vcpus),
		"-m", strconv.Itoa(s.memoryMiB),
		"-object", fmt.Sprintf("memory-backend-file,id=ram,mem-path=/proc/self/fd/%d,size=%dM,share=%s", fdMemory, s.memoryMiB, onOff(shareMemory)),
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-chardev", fmt.Sprintf("socket,id=monitor,fd=%d", fdMonitor), "-mon", "chardev=monitor,mode=control",
		"-chardev", fmt.Sprintf("socket,id=channel,fd=%d,server=on,wait=off", fdChannel),
		"-device", "virtio-serial-device,id=serial0",
		"-device", "virtserialport,bus=serial0.0,chardev=channel,name=" + portName,
		"-drive", fmt.Sprintf("if=none,id=root,file=/proc/self/fd/%d,format=raw,read-only=on,cache=writeback,file.locking=off", fdRootfs),
		"-device", "virtio-blk-device,drive=root",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
	}
}

// bootArguments add the kernel. tscKHz is the host's, because without it a
// kernel under the software CPU may wait for ever for a timer to calibrate by.
func bootArguments(a driver.Accelerator, tscKHz int) []string {
	line := "console=ttyS0 panic=-1 reboot=t quiet loglevel=3 random.trust_cpu=on no_timer_check init_on_alloc=0 cgroup_no_v1=all rdinit=/init"
	if a == driver.AcceleratorTCG {
		// Mitigations protect guests' processes from each other on a CPU that
		// speculates; the software CPU does not, and pays for every one of them.
		line += " nokaslr nopti mitigations=off tsc=reliable tsc_early_khz=" + strconv.Itoa(tscKHz)
	}
	return []string{
		"-kernel", fmt.Sprintf("/proc/self/fd/%d", fdKernel),
		"-initrd", fmt.Sprintf("/proc/self/fd/%d", fdInitrd),
		"-append", line,
	}
}

// cloneArguments leave the machine stopped until its state is loaded.
func cloneArguments() []string { return []string{"-S", "-incoming", "defer"} }

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}
