//go:build linux && amd64

package syscalls

import "golang.org/x/sys/unix"

var changes = map[uint64]target{
	unix.SYS_OPENAT:    {"openat", 1, true},
	unix.SYS_WRITE:     {"write", 0, false},
	unix.SYS_PWRITE64:  {"pwrite64", 0, false},
	unix.SYS_FTRUNCATE: {"ftruncate", 0, false},
	unix.SYS_FSYNC:     {"fsync", 0, false},
	unix.SYS_FCHMOD:    {"fchmod", 0, false},
	unix.SYS_FCHOWN:    {"fchown", 0, false},
	unix.SYS_MKDIRAT:   {"mkdirat", 1, true},
	unix.SYS_UNLINKAT:  {"unlinkat", 1, true},
	unix.SYS_RENAME:    {"rename", 0, true},
	unix.SYS_RENAMEAT:  {"renameat", 1, true},
	unix.SYS_RENAMEAT2: {"renameat2", 1, true},

	unix.SYS_COPY_FILE_RANGE: {"copy_file_range", 2, false},
	unix.SYS_SENDFILE:        {"sendfile", 0, false},
}

func registers(tid int) (number uint64, args [6]uint64, err error) {
	var r unix.PtraceRegs
	err = unix.PtraceGetRegs(tid, &r)
	return r.Orig_rax, [6]uint64{r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9}, err
}

// skipCall lets a thread go on without the call that it has entered.
func skipCall(tid int) error {
	var r unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &r); err != nil {
		return err
	}
	r.Orig_rax = ^uint64(0)
	return unix.PtraceSetRegs(tid, &r)
}

// setResult says what the call that a thread leaves has returned.
func setResult(tid int, result int64) error {
	var r unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &r); err != nil {
		return err
	}
	r.Rax = uint64(result) //nolint:gosec // as the kernel has it
	return unix.PtraceSetRegs(tid, &r)
}
