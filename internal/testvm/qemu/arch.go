//go:build linux

package qemu

import "path/filepath"

// Arch is a machine's architecture, by the name that Go and Debian have for it.
type Arch string

// The architectures that Hetzner Cloud has servers of.
const (
	AMD64 Arch = "amd64"
	ARM64 Arch = "arm64"
)

// machineType is what differs between the emulators.
type machineType struct {
	emulator, emulatorPackage string
	board                     []string // the machine, and what the console hangs on
	cpu, cpuNoRandom          string   // with an instruction for random numbers, and without
	console                   string   // the kernel's name of the first serial port
	arguments                 string   // what else the kernel is told
	firmware                  string   // UEFI, in the unpacked packages
	stub                      string   // systemd's EFI stub, there
	boot                      string   // where UEFI looks on a disk that it does not know (UEFI 2.10, table 3.2)
	libraries                 string   // of C, there; below lib/
	loader                    string   // the dynamic one, below libraries
}

var machineTypes = map[Arch]machineType{
	AMD64: {
		emulator: "qemu-system-x86_64", emulatorPackage: "qemu-system-x86",
		board: []string{"-machine", "q35,hpet=off", "-serial", "chardev:console", "-serial", "chardev:report"},
		cpu:   "qemu64,+rdrand", cpuNoRandom: "qemu64,-rdrand",
		console: "ttyS0", arguments: "reboot=t no_timer_check tsc=reliable nosmp",
		firmware: "usr/share/ovmf/OVMF.fd", stub: "linuxx64.efi.stub", boot: "EFI/BOOT/BOOTX64.EFI",
		libraries: "lib/x86_64-linux-gnu", loader: "ld-linux-x86-64.so.2",
	},
	ARM64: {
		emulator: "qemu-system-aarch64", emulatorPackage: "qemu-system-arm",
		// The board has one serial port of its own; the guest's reports go over one on the PCI bus, ttyS0 there. The
		// pointer authentication of the architecture costs an emulator dear; QEMU's own kind does not.
		board: []string{"-machine", "virt", "-serial", "chardev:console", "-device", "pci-serial,chardev=report"},
		cpu:   "max,pauth-impdef=on", cpuNoRandom: "cortex-a57",
		console: "ttyAMA0", arguments: "nosmp",
		firmware: "usr/share/qemu-efi-aarch64/QEMU_EFI.fd", stub: "linuxaa64.efi.stub", boot: "EFI/BOOT/BOOTAA64.EFI",
		libraries: "lib/aarch64-linux-gnu", loader: "ld-linux-aarch64.so.1",
	},
}

func (d Deps) machine() machineType { return machineTypes[d.Arch] }

// Loader is the dynamic loader that the packages' programs name, and the file that it is.
func (d Deps) Loader() (path, file string) {
	m := d.machine()
	path = "lib/" + m.loader
	if d.Arch == AMD64 {
		path = "lib64/" + m.loader // the psABI's
	}
	return path, filepath.Join(d.Root, m.libraries, m.loader)
}

// Libraries is the folder of the C library in the guest, where its loader looks; below Root it is on this machine.
func (d Deps) Libraries() string { return d.machine().libraries }

// Stub is systemd's EFI stub, which makes a unified kernel image of a kernel.
func (d Deps) Stub() string {
	return filepath.Join(d.Root, "usr/lib/systemd/boot/efi", d.machine().stub)
}
