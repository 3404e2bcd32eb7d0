//go:build linux

// Command init is the smallest init of one's own that gives its machine a name: the kernel runs it as /init, and it ends in
// /init.next. The drivers are the kernel's business here, and a record of the boot the next init's.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/hetzner"
	"github.com/nametag-boot/nametag/procfs"
)

const next = "/init.next"

func main() {
	if err := name(); err != nil { // name has waited as long as it may
		fmt.Fprintln(os.Stderr, "init:", err)
		time.Sleep(3 * time.Second) // for whoever reads the console
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	}
	err := unix.Exec(next, append([]string{next}, os.Args[1:]...), os.Environ())
	fmt.Fprintln(os.Stderr, "init:", err)
	select {} // the end of the first process is a panic of the kernel
}

// name gives this machine its name, if the kernel command line asks for that.
func name() error {
	for fs, dir := range map[string]string{"proc": "/proc", "sysfs": "/sys"} { // for the command line, and the firmware's facts
		_ = os.Mkdir(dir, 0o755)
		if err := unix.Mount(fs, dir, fs, 0, ""); err != nil {
			return fmt.Errorf("mounting %s: %w", dir, err)
		}
		defer unix.Unmount(dir, 0) //nolint:errcheck // the next init mounts its own
	}
	line, err := procfs.Read()
	if err != nil {
		fmt.Fprintln(os.Stderr, "init:", err) // a mistake never turns the waiting off
	}
	if line.Decide("hcloud") != procfs.DecisionWait {
		return nil
	}
	ctx, cancel := line.Policy.WithDeadline(context.Background(), time.Now())
	defer cancel()
	id, err := identity.Resolve(ctx, hetzner.Source())
	if err != nil {
		return err
	}
	return unix.Sethostname([]byte(id.Hostname))
}
