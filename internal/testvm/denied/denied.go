//go:build linux

// Package denied has the kernel deny a process a system call (seccomp(2)), as an old kernel, a policy or a lack of memory
// does. It is for tests.
package denied

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Any is the [Call.Arg] of a call that fails whatever its arguments are.
const Any = -1

// A Call is a system call that fails.
type Call struct {
	Number int
	// Arg is the argument, from 0, that is Is where the call fails; [Any]: it always does.
	Arg   int
	Is    uint32
	Errno unix.Errno // what it fails with
}

// Impose makes it fail from now on, in all threads of this process and in all that comes of it: nothing takes that back.
func (c Call) Impose() error {
	// Of struct seccomp_data. The arguments are 64 bits wide, the lower half first on the machines that we run on.
	const number, args = 0, 16
	refuse := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(c.Errno)}
	allow := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	equal := func(k uint32, otherwise uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jf: otherwise}
	}
	filter := []unix.SockFilter{load(number), equal(uint32(c.Number), 1), refuse, allow}
	if c.Arg != Any {
		filter = []unix.SockFilter{load(number), equal(uint32(c.Number), 3), load(args + 8*uint32(c.Arg)), equal(c.Is, 1), refuse, allow}
	}
	runtime.LockOSThread() // the two calls are for one thread
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program))); errno != 0 {
		return errno
	}
	return nil
}
