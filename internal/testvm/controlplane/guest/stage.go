//go:build linux

package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/testvm/controlplane/machine"
	"github.com/nametag-boot/nametag/internal/testvm/qemu/insmod"
	"github.com/nametag-boot/nametag/internal/testvm/qemu/report"
)

// mounts does several, one after the other.
func mounts(root string, all ...[3]string) error { // what, where, of which kind
	for _, m := range all {
		at := filepath.Join(root, m[1])
		if err := os.MkdirAll(at, 0o755); err != nil { //nolint:gosec // a machine's own
			return err
		}
		if err := unix.Mount(m[0], at, m[2], 0, ""); err != nil && !errors.Is(err, unix.EBUSY) { // nametag may have left it
			return fmt.Errorf("mount %s at %s: %w", m[2], at, err)
		}
	}
	return nil
}

// initramfs is the /init of a virtual machine: it does what Talos' does, mounts the root from the disk, moves to it, and becomes
// the first process there.
func initramfs() error {
	if err := mounts("/", [3]string{"devtmpfs", "dev", "devtmpfs"}, [3]string{"proc", "proc", "proc"}, [3]string{"sysfs", "sys", "sysfs"}); err != nil {
		return err
	}
	if err := insmod.All("/drivers"); err != nil {
		return err
	}
	const root = "/disk"
	if err := os.MkdirAll(root, 0o755); err != nil { //nolint:gosec // a machine's own
		return err
	}
	for tries := 0; ; tries++ { // the disk comes a moment after its driver
		err := unix.Mount("/dev/vda", root, "ext4", 0, "")
		if err == nil {
			break
		}
		if tries > 600 {
			return fmt.Errorf("mount the disk: %w", err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	for _, dir := range []string{"dev", "proc", "sys"} {
		if err := unix.Mount("/"+dir, filepath.Join(root, dir), "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move /%s: %w", dir, err)
		}
	}
	if err := errors.Join(unix.Chdir(root), unix.Mount(".", "/", "", unix.MS_MOVE, ""), unix.Chroot("."), unix.Chdir("/")); err != nil {
		return fmt.Errorf("move to the disk: %w", err)
	}
	path := filepath.Join(machine.Dir, "guest")
	return unix.Exec(path, []string{path, "machine"}, environment())
}

// inMachine is the first process in the root of a virtual machine.
func inMachine() error {
	log := report.Open("guest")
	log.Write(report.Event{Kind: report.Switched})
	go func() { // a machine that says something now and then is one that is looked at
		for ; ; time.Sleep(time.Second) {
			log.Write(report.Event{Kind: report.Given, Name: "time"})
		}
	}()
	if err := mounts("/", [3]string{"tmpfs", "run", "tmpfs"}, [3]string{"tmpfs", "tmp", "tmpfs"}); err != nil {
		return err
	}
	if err := showGroups("/"); err != nil {
		return err
	}
	return inSystem()
}

// inSystem is the program in a virtual machine whose file systems are there.
func inSystem() error {
	c, err := machine.Read(machine.Dir)
	if err != nil {
		return err
	}
	for _, of := range machine.Said() {
		_ = os.Remove(filepath.Join(machine.State, of))
	}
	go show()
	return boot(c)
}

// show lets others read what would stand on a disk that they cannot see: the state, and what the services say.
func show() {
	mux := http.NewServeMux()
	mux.Handle("/state/", http.StripPrefix("/state/", http.FileServer(http.Dir(machine.State))))
	mux.Handle("/log/", http.StripPrefix("/log/", http.FileServer(http.Dir("/var/log"))))
	for {
		err := http.ListenAndServe(machine.Show, mux) //nolint:gosec // a lab without clients that are slow on purpose
		fmt.Fprintln(os.Stderr, "guest:", err)
		time.Sleep(time.Second)
	}
}
