//go:build linux

// Command careless stands where the helper stands and does one thing that a helper must not do, or that ends the
// machine: what the bench must notice. Which, the kernel argument careless= says. Then it becomes the next process.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/testvm/qemu/report"
	"github.com/nametag-boot/nametag/internal/testvm/talos/guest/standin"
)

func main() {
	runtime.LockOSThread() // the first thread is the one that is traced, and the one that must exec
	log := report.Open("careless")
	var err error
	if len(os.Args) > 2 && os.Args[1] == "child" {
		err = child(os.Args[2])
	} else {
		err = run(os.Getenv("careless"))
	}
	if err != nil {
		standin.Die(log, err)
	}
}

func run(what string) error {
	switch what {
	case "":
	case "dev":
		if err := unix.Mount("devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, ""); err != nil {
			return err
		}
	case "name": // all that an OS which is not Talos is given
		if err := unix.Sethostname([]byte("my-server")); err != nil {
			return err
		}
		if err := os.MkdirAll("/run/nametag", 0o755); err != nil {
			return err
		}
		if err := os.WriteFile("/run/nametag/identity.json", []byte(`{"hostname":"my-server"}`), 0o644); err != nil {
			return err
		}
	case "tracer", "cmdline":
		p, err := os.StartProcess(os.Args[0], []string{os.Args[0], "child", what}, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
		if err != nil {
			return err
		}
		defer p.Release()                  //nolint:errcheck // nothing to release after the exec
		time.Sleep(300 * time.Millisecond) // until it holds us
	case "reboot":
		return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	case "poweroff":
		return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	case "halt":
		return unix.Reboot(unix.LINUX_REBOOT_CMD_HALT)
	case "panic":
		panic("as asked") // PID 1 ends
	default:
		return fmt.Errorf("careless=%s?", what)
	}
	next := "/init.next"
	if _, err := os.Stat(next); errors.Is(err, os.ErrNotExist) {
		next = "/init"
	}
	return fmt.Errorf("exec %s: %w", next, unix.Exec(next, append([]string{next}, os.Args[1:]...), os.Environ()))
}

// child is what stays.
func child(what string) error {
	if what == "tracer" {
		return trace()
	}
	// A file over /proc/cmdline, as soon as the next process has a /proc, and never taken away.
	if err := os.WriteFile("/amended", []byte("talos.hostname=careless\n"), 0o644); err != nil {
		return err
	}
	for {
		if err := unix.Mount("/amended", "/proc/cmdline", "", unix.MS_BIND, ""); err == nil {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
}

// trace holds the first thread of PID 1, through every exec, and never lets go.
func trace() error {
	const seize = 0x4206 // PTRACE_SEIZE
	if err := ptrace(seize, 0); err != nil {
		return err
	}
	for {
		var status unix.WaitStatus
		_, err := unix.Wait4(1, &status, unix.WALL, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		// A signal of its own, such as the Go runtime's SIGURG, waits for us; a ptrace event has a number above it.
		deliver := status.StopSignal()
		if status>>16 != 0 {
			deliver = 0
		}
		if err := ptrace(unix.PTRACE_CONT, uintptr(deliver)); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
}

func ptrace(request, data uintptr) error {
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, request, 1, 0, data, 0, 0); errno != 0 {
		return errno
	}
	return nil
}
