//go:build linux

// Command init does what the /init of a Talos initramfs does: it mounts /dev, /proc and /sys whatever is there,
// loop-mounts /rootfs.sqsh, lays the layers of /extensions.yaml over it, moves its mounts into the new root, moves that
// onto /, deletes the initramfs, and becomes /sbin/init with nothing but its name and two variables of its own.
//
// Like every Go program it does so from several threads, and it takes care that it is not always the first one that
// mounts: who follows only that one must be found out here. Any failure is the end of the boot.
package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/testvm/qemu/report"
	"github.com/nametag-boot/nametag/internal/testvm/talos/guest/standin"
)

const newRoot = "/root"

func main() {
	runtime.LockOSThread() // main starts on the first thread; stay there, so that onThread has two kinds to choose from
	log := report.Open("init")
	arguments := standin.FromEnvironment()
	busy(4)
	if err := boot(arguments, log); err != nil {
		standin.Die(log, err)
	}
}

func boot(arguments standin.Arguments, log *report.Writer) error {
	// There is no /proc yet, or one that should not be there: the network is all that can be looked at.
	log.Write(report.Event{Kind: report.Started, State: report.Look()})
	arguments.Hook("init", log)
	for _, fs := range []struct{ kind, on string }{{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}} {
		arguments.Hook(strings.TrimPrefix(fs.on, "/"), log)
		mount, how := mountOld, "mount"
		if arguments[standin.MountBy] == "fsmount" {
			mount, how = mountNew, "fsmount"
		}
		var thread int
		err := onThread(func() error {
			thread = unix.Gettid()
			return mount(fs.kind, fs.on)
		})
		if errors.Is(err, unix.EBUSY) {
			err = errors.New("busy")
		}
		if err != nil {
			return fmt.Errorf("error mounting %s: %w", fs.kind, err)
		}
		log.Write(report.Event{Kind: report.Mounted, Name: fs.kind, Text: fmt.Sprintf("%s on thread %d", how, thread)})
	}
	arguments.Hook("mounted", log)
	if err := onThread(mountRoot); err != nil {
		return fmt.Errorf("error mounting root file system: %w", err)
	}
	arguments.Hook("switch", log)
	if err := switchRoot(); err != nil {
		return fmt.Errorf("error switching root: %w", err)
	}
	arguments.Hook("exec", log)
	log.Write(report.Event{Kind: report.Exec, State: report.Look()})
	if traced := report.Tracers(); len(traced) > 0 && arguments[standin.Traced] != "allow" {
		// SELinux: avc: denied { ptrace } initramfs_t -> init_t.
		return fmt.Errorf("error executing /sbin/init: permission denied: traced: %s", strings.Join(traced, ", "))
	}
	err := unix.Exec("/sbin/init", []string{"/sbin/init"}, []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TCELL_MINIMIZE=1"})
	return fmt.Errorf("error executing /sbin/init: %w", err)
}

func mountOld(kind, on string) error {
	if err := os.MkdirAll(on, 0o755); err != nil {
		return err
	}
	return unix.Mount(kind, on, kind, unix.MS_NOSUID, "")
}

func mountNew(kind, on string) error {
	if err := os.MkdirAll(on, 0o755); err != nil {
		return err
	}
	fs, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("fsopen: %w", err)
	}
	defer unix.Close(fs) //nolint:errcheck // nothing was written
	if err := unix.FsconfigCreate(fs); err != nil {
		return fmt.Errorf("fsconfig: %w", err)
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID)
	if err != nil {
		return fmt.Errorf("fsmount: %w", err)
	}
	defer unix.Close(mnt) //nolint:errcheck // nothing was written
	if err := unix.MoveMount(mnt, "", unix.AT_FDCWD, on, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("move_mount: %w", err)
	}
	return nil
}

// onThread runs f on the first thread or on another, as the dice fall.
func onThread(f func() error) error {
	if rand.IntN(2) == 0 {
		return f()
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the first thread is main's
		defer runtime.UnlockOSThread()
		done <- f()
	}()
	return <-done
}

// busy keeps n threads in and out of system calls, and makes and ends further ones, until the exec ends them all: what
// a tracer has to cope with.
func busy(n int) {
	for range n {
		go func() {
			for {
				done := make(chan struct{})
				go func() {
					defer close(done)
					runtime.LockOSThread() // and never unlocked: the thread ends with its goroutine
					time.Sleep(time.Millisecond)
				}()
				<-done
				time.Sleep(5 * time.Millisecond)
			}
		}()
	}
}
