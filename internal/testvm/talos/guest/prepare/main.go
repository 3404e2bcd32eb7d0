//go:build linux

// Command prepare makes Debian's kernel look like Talos' to what comes after it. Talos has loop, squashfs and overlay
// built in, Debian has them as modules. So this is the very first process of the initramfs: it loads what stands
// in /standin, in the order of the names, removes that folder and itself, and becomes the process under test, with
// the arguments and the environment that the kernel gave. It mounts nothing and leaves nothing, except where the kernel
// argument standin_clock= asks for a clock that jumps: then a child of its own sets it for a while.
package main

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/testvm/qemu/insmod"
	"github.com/nametag-boot/nametag/internal/testvm/qemu/report"
	"github.com/nametag-boot/nametag/internal/testvm/talos/guest/standin"
)

func main() {
	log := report.Open("prepare")
	if os.Args[0] == clockName {
		clock(log)
		return
	}
	standin.Die(log, run(log))
}

// run returns only where it fails.
func run(log *report.Writer) error {
	first, err := os.ReadFile("/standin/first")
	if err != nil {
		return err
	}
	if err := insmod.All("/standin"); err != nil {
		return err
	}
	if err := startClock(); err != nil {
		return err
	}
	if err := os.RemoveAll("/standin"); err != nil {
		return err
	}
	if err := os.Remove("/prepare"); err != nil {
		return err
	}
	path := strings.TrimSpace(string(first))
	log.Write(report.Event{Kind: report.First, Text: path})
	return fmt.Errorf("exec %s: %w", path, unix.Exec(path, append([]string{path}, os.Args[1:]...), os.Environ()))
}
