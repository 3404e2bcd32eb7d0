//go:build linux

// Command plain is the /init of an OS that is not Talos: it keeps what its initramfs is given and tells what it
// finds: the kernel's hostname and the record.
package main

import (
	"os"

	"github.com/nametag-boot/nametag/internal/testvm/qemu/report"
	"github.com/nametag-boot/nametag/internal/testvm/talos/guest/standin"

	"golang.org/x/sys/unix"
)

func main() {
	log := report.Open("plain")
	for _, fs := range []struct{ kind, on string }{{"proc", "/proc"}, {"sysfs", "/sys"}} { // to look at
		if err := os.MkdirAll(fs.on, 0o755); err != nil {
			standin.Die(log, err)
		}
		if err := unix.Mount(fs.kind, fs.on, fs.kind, 0, ""); err != nil {
			standin.Die(log, err)
		}
	}
	standin.FromEnvironment().Hook("init", log)
	state := report.Look()
	log.Write(report.Event{Kind: report.Started, Name: state.Hostname, State: state})
	log.Write(report.Event{Kind: report.Settled, Name: state.Hostname})
	standin.Pause()
}
