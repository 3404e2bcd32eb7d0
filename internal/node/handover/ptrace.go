//go:build linux

package handover

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls of ptrace(2) that x/sys/unix does not have, or not in a form that tells
// the errno without a detour. All of them must come from the thread that seized.

// callStop is the stop signal of a system call's entry and return, under
// PTRACE_O_TRACESYSGOOD.
const callStop = unix.SIGTRAP | 0x80

// waitAll asks wait4 for children and clones alike.
const waitAll = unix.WALL

func ptrace(request, tid int, data uintptr) unix.Errno {
	_, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), 0, data, 0, 0)
	return errno
}

// callInfo is the kernel's struct ptrace_syscall_info, the same on every
// architecture (include/uapi/linux/ptrace.h).
type callInfo struct {
	op      uint8
	_       [3]uint8
	arch    uint32
	ip, sp  uint64
	payload [8]uint64 // entry: number, six arguments; exit: result, whether it is an error
}

// call reads where in a system call a stopped thread is. Linux 5.3 and later.
func call(tid int) (callInfo, unix.Errno) {
	var info callInfo
	_, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(tid),
		unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	return info, errno
}

// succeeded reports whether the call returns, and returns 0.
func (i *callInfo) succeeded() bool {
	return i.op == unix.PTRACE_SYSCALL_INFO_EXIT && i.payload[0] == 0 && uint8(i.payload[1]) == 0
}

// eventMessage is what comes with an event: after a clone, the new thread's id.
func eventMessage(tid int) (int, unix.Errno) {
	var msg uint
	errno := ptrace(unix.PTRACE_GETEVENTMSG, tid, uintptr(unsafe.Pointer(&msg)))
	return int(msg), errno
}

// waitTracee waits for a tracee, any with -1, to stop or to end.
func waitTracee(tid int) (int, unix.WaitStatus, error) {
	for {
		var status unix.WaitStatus
		got, err := unix.Wait4(tid, &status, waitAll, nil)
		if err != unix.EINTR { //nolint:errorlint // an errno, as the call returns it
			return got, status, err
		}
	}
}

// event is the PTRACE_EVENT of a stop, 0 for none.
func event(status unix.WaitStatus) int { return int(status) >> 16 }

// pending is the signal that a stop announces, which the thread has not got yet and
// would lose if it were resumed without.
func pending(status unix.WaitStatus) uintptr {
	if sig := status.StopSignal(); event(status) == 0 && sig != callStop {
		return uintptr(sig)
	}
	return 0
}
