//go:build linux

package qemu

import (
	"context"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/qemu/report"
)

// OS is what a machine boots.
type OS interface {
	// Initramfs makes the archive, or finds it made.
	Initramfs(context.Context, Deps) (Initramfs, error)
}

// Initramfs is what an OS brings.
type Initramfs struct {
	Archive string   // the archive, a file on this machine
	Whole   bool     // the archive is all: the kernel runs its /init, and nothing of the scenario's is put in
	Kernel  string   // the OS's own kernel, a file on this machine; "": the one that hack/vm-deps fetched
	Init    string   // the OS's own /init, a file on this machine
	Run     string   // what the kernel runs, a path in the archive: it becomes the process that FirstFile names
	First   string   // that process, where the scenario has no helper: a path in the archive; "": /init
	Args    []string // what the kernel must be told
}

// FirstFile holds the path of the process under test: the helper or the OS's own /init.
const FirstFile = "standin/first"

// Way is how a helper comes before the OS's own first process.
type Way uint8

// The two ways in.
const (
	// RDInit: the helper stands at HelperPath and the kernel is told to run it; the OS's /init stays.
	RDInit Way = iota
	// AsInit: the helper is /init and the OS's own is /init.next.
	AsInit
)

// HelperPath is where the helper stands, as a system extension of Talos 1.10 and later puts it.
const HelperPath = "usr/lib/firmware/nametag/nametag"

// Scenario is one boot. The zero value of every field but OS is something useful.
type Scenario struct {
	OS     OS       // nil: what is on Disk, by its own boot loader
	Arch   Arch     // "": AMD64
	Helper string   // the helper's binary on this machine, for that architecture; "": none
	Way    Way      // how the helper comes first
	Args   []string // further kernel arguments
	Files  Files    // further files of the initramfs

	Cloud cloud.Config
	NICs  []NIC // nil: one public NIC that is there from the start; empty: none
	Disks []Disk
	// Clock is the event at which the schedule of the cloud begins; "": the first process. A boot takes as long as the
	// machine's load lets it, so a schedule must not begin with it.
	Clock report.Kind

	Vendor string // of the DMI; "": Hetzner
	Serial string // of the DMI; "": the cloud's instance id
	// NoConsole leaves the kernel without one: its first process has no files open, and a verdict has no lines of the console.
	NoConsole bool
	NoRDRAND  bool   // the processor has no instruction for random numbers
	Memory    int    // MiB; 0: 320
	Packed    bool   // the initramfs is packed by gzip: it takes longer to unpack, and less memory until then
	RTC       string // the machine's clock at its start, as QEMU's -rtc base= takes it; "": now

	// UEFI boots through UEFI firmware, as every server for arm64 does, and not straight into the kernel. On arm64 the DMI
	// is there only then.
	UEFI bool
	// Disk is an image, raw or qcow2, a file on this machine, that the guest has as /dev/vda and may write to. "": none.
	Disk string
	// Full is a processor that has all that QEMU knows; without it it is a plain one, the same everywhere.
	Full bool
	// KVM runs the guest on this machine's processor. Nothing here asks for it by itself: a /dev/kvm may be there that cannot
	// run a firmware.
	KVM bool
	// Image makes the EFI program that the firmware boots, a file on this machine, of what would have been booted without
	// it. nil: the firmware is given the kernel. Not nil: UEFI is true.
	Image func(context.Context, Deps, Parts) (path string, err error)

	// Until ends the boot, when it returns true for what the guest reported so far; it is asked after each report and
	// each line of the console. nil: until the guest has settled or failed. A machine that reset, powered off, halted
	// or panicked has ended in any case.
	Until func(*Verdict) bool
	// Resets is how often the machine may reset and boot again. 0: a reset ends it.
	Resets int
	// Timeout ends the machine whatever it does; 0: one minute. It does not count the time in which
	// the machine waits for a processor of the host.
	Timeout time.Duration
}

// Parts are what a boot is made of.
type Parts struct {
	Kernel, Initramfs string // files on this machine
	CommandLine       string
	Dir               string // for what is made of them; it goes with the test
}

// NIC is one of the machine's.
type NIC struct {
	cloud.NIC               // an empty MAC gets one
	After     time.Duration // plugged in that long after the event of Scenario.Clock; 0: there from the start
	Cable     time.Duration // its cable is put in that long after the event of Scenario.Clock; 0: it is in from the start
	// Elsewhere gets the far end of a NIC that is not in the cloud, and owns it from then on. nil: it is in the cloud.
	Elsewhere func(cloud.Port)
}

// Disk is one of the machine's. It is a file, and lives longer than a boot: what one writes the next finds.
type Disk struct {
	Path  string        // a raw image
	Bus   DiskBus       // what it hangs on
	After time.Duration // plugged in that long after the event of Scenario.Clock; 0: there from the start
}

// DiskBus is what a disk hangs on.
type DiskBus uint8

// The kinds that servers have. Hetzner Cloud's have the second.
const (
	VirtioBlock DiskBus = iota
	VirtioSCSI
	NVMe
)

// String is the bus as the kernel's driver is called.
func (b DiskBus) String() string { return [...]string{"virtio_blk", "virtio_scsi", "nvme"}[b] }
