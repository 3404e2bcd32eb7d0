//go:build linux

// Command plain is the /init of an OS that is not Talos: it keeps what its initramfs is given and tells what it
// finds: the kernel's hostname and the record.
package main

import (
	"fmt"
	"os"
	"strings"

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
	given(log)
	standin.FromEnvironment().Hook("init", log)
	state := report.Look()
	log.Write(report.Event{Kind: report.Started, Name: state.Hostname, State: state})
	log.Write(report.Event{Kind: report.Settled, Name: state.Hostname})
	standin.Pause()
}

// given tells what came from the kernel: its command line, and what it made of that for an init.
func given(log *report.Writer) {
	line, _ := os.ReadFile("/proc/cmdline") // or it shows as empty
	log.Write(report.Event{Kind: report.Given, Name: "line", Text: strings.TrimSuffix(string(line), "\n")})
	log.Write(report.Event{Kind: report.Given, Name: "arguments", Text: fmt.Sprintf("%q", os.Args[1:])})
	log.Write(report.Event{Kind: report.Given, Name: "environment", Text: fmt.Sprintf("%q", os.Environ())})
}
