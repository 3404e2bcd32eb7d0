//go:build linux

package handover

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/node/kmsg"
	"github.com/nametag-boot/nametag/internal/node/wait"
	"github.com/nametag-boot/nametag/internal/safely"
	"github.com/nametag-boot/nametag/procfs"
)

// syncLimit bounds the sync before the end. There is little to write at that point
// of a boot, and a disk that does not answer must not stop it.
const syncLimit = 5 * time.Second

// Enforce carries a policy's then out, from any process of the machine: it says why
// and how soon, counts down, syncs and calls reboot(2). Halt is the kernel's own:
// the machine stands still with the reason as its last lines. Enforce returns nil
// for Continue; else it returns only if the context ended or the kernel refused.
func Enforce(ctx context.Context, then procfs.Then, console *kmsg.Console, countdown time.Duration, why string) error {
	var what int
	switch then {
	case procfs.Continue:
		console.Warnf("%s: booting on without the name, as then=continue says", why)
		return nil
	case procfs.PowerOff:
		what = unix.LINUX_REBOOT_CMD_POWER_OFF
	case procfs.Halt:
		what = unix.LINUX_REBOOT_CMD_HALT
	default: // Reboot, and what we do not know
		what = unix.LINUX_REBOOT_CMD_RESTART
	}
	if err := console.Countdown(ctx, countdown, why, then.String()); err != nil {
		return fmt.Errorf("handover: %w", err)
	}
	synced := make(chan struct{})
	safely.Go("sync", func() {
		defer close(synced)
		reached(stageEnforcing)
		unix.Sync()
	}, func(error) {})
	_, _ = wait.For(synced, syncLimit)
	if err := unix.Reboot(what); err != nil {
		err = fmt.Errorf("handover: %w", os.NewSyscallError("reboot", err))
		console.Errorf("%s: %s refused: %v", why, then, err)
		return err
	}
	return nil
}
