//go:build linux

package boot

import (
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Whatever the kernel refuses, a machine where nobody asked to wait, and one that is to go on without a name, boot on. One
// that is not, boots on under its name or is started again. (Without epoll and eventfd no program of Go's does anything.)
func TestAKernelThatRefusesACallLeavesNoMachineStanding(t *testing.T) {
	for name, number := range map[string]int{
		"fsopen": unix.SYS_FSOPEN, "fsconfig": unix.SYS_FSCONFIG, "fsmount": unix.SYS_FSMOUNT, "mount": unix.SYS_MOUNT, "umount2": unix.SYS_UMOUNT2,
		"open_tree": unix.SYS_OPEN_TREE, "move_mount": unix.SYS_MOVE_MOUNT, "ptrace": unix.SYS_PTRACE, "pidfd_open": unix.SYS_PIDFD_OPEN,
		"pidfd_send_signal": unix.SYS_PIDFD_SEND_SIGNAL, "kill": unix.SYS_KILL, "tgkill": unix.SYS_TGKILL, "waitid": unix.SYS_WAITID, "wait4": unix.SYS_WAIT4,
		"pipe2": unix.SYS_PIPE2, "setsid": unix.SYS_SETSID, "prlimit64": unix.SYS_PRLIMIT64, "mkdirat": unix.SYS_MKDIRAT,
		"unlinkat": unix.SYS_UNLINKAT, "renameat": unix.SYS_RENAMEAT, "readlinkat": unix.SYS_READLINKAT, "getdents64": unix.SYS_GETDENTS64,
		"fstat": unix.SYS_FSTAT, "fstatfs": unix.SYS_FSTATFS, "fchmod": unix.SYS_FCHMOD, "fchdir": unix.SYS_FCHDIR, "sethostname": unix.SYS_SETHOSTNAME,
		"uname": unix.SYS_UNAME, "reboot": unix.SYS_REBOOT, "sync": unix.SYS_SYNC, "getrandom": unix.SYS_GETRANDOM,
	} {
		for _, line := range []string{"", waits + ",then=continue talos.platform=hcloud", waits} {
			t.Run(name+" "+line, func(t *testing.T) {
				e := trial{Line: line, Refuse: number}.run(t)
				goesOn := line == "" || strings.Contains(line, "then=continue")
				started := e.signal == 0 && strings.HasPrefix(e.next, "next init, ")
				again := e.signal == syscall.SIGHUP && e.next == "" && !goesOn
				if line == waits && started && e.next != "next init, "+given || !started && !again {
					t.Errorf("it ended by %v, the next init told %q; the console:\n%s", e.signal, e.next, e.console)
				}
			})
		}
	}
}
