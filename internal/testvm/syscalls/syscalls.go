//go:build linux && amd64

// Package syscalls runs a program until it is about to change a file, for the n-th time, and then lets the call fail, or
// ends the program as a power failure would: what is left is what a test looks at.
//
// It traces the program (ptrace(2)), so it is for tests, on linux/amd64, where tracing is allowed.
package syscalls

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Fault is what happens at a call. The zero value is the end of the program, with no call made.
type Fault struct {
	Errno unix.Errno // what the call returns instead of being made; 0: the program is killed
}

// Result is what became of a run.
type Result struct {
	Calls []string // those that would change a file below the folder, until the end, by their names
	Hit   string   // the call that the fault was put at; empty if there were fewer
	// Status is the exit status; -1 if the program was killed.
	Status int
}

// A target says which argument of a call tells the file that it changes: a descriptor, or a path.
type target struct {
	name string
	arg  int
	path bool
}

// Run runs the program and puts a fault at its n-th call, counted from 1, that would change something below the folder; 0
// puts none. The program's output goes where the command says.
func Run(cmd *exec.Cmd, below string, n int, fault Fault) (r Result, err error) {
	if below, err = filepath.EvalSymlinks(below); err != nil {
		return r, err
	}
	runtime.LockOSThread() // the tracer is a thread
	defer runtime.UnlockOSThread()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Ptrace = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if err := cmd.Start(); err != nil {
		return r, err
	}
	t := &tracer{pid: cmd.Process.Pid, below: below, n: n, fault: fault, entered: map[int]bool{}, failing: map[int]bool{}}
	err = t.run()
	// What os/exec still waits for is its own pipes; the process itself was waited for here.
	_ = cmd.Wait()
	r.Calls, r.Hit, r.Status = t.calls, t.hit, t.status
	return r, err
}

type tracer struct {
	pid     int
	below   string
	n       int
	fault   Fault
	calls   []string
	hit     string
	status  int
	entered map[int]bool // threads that are within a call
	failing map[int]bool // those whose call is to fail
}

const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_EXITKILL | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK

func (t *tracer) run() error {
	var ws unix.WaitStatus
	if _, err := unix.Wait4(t.pid, &ws, 0, nil); err != nil {
		return fmt.Errorf("waiting for the first stop: %w", err)
	}
	if err := unix.PtraceSetOptions(t.pid, options); err != nil {
		return fmt.Errorf("ptrace: %w", err)
	}
	if err := unix.PtraceSyscall(t.pid, 0); err != nil {
		return fmt.Errorf("ptrace: %w", err)
	}
	for {
		tid, err := unix.Wait4(-1, &ws, unix.WALL|unix.WNOTHREAD, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("wait4: %w", err)
		}
		switch {
		case ws.Exited(), ws.Signaled():
			if tid != t.pid {
				continue
			}
			if t.status = -1; ws.Exited() {
				t.status = ws.ExitStatus()
			}
			return nil
		case ws.Stopped():
			signal, err := t.stopped(tid, ws)
			if err != nil {
				return err
			}
			if err := unix.PtraceSyscall(tid, signal); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("ptrace: %w", err)
			}
		}
	}
}

// stopped looks at a thread that stands, and says by which signal it goes on.
func (t *tracer) stopped(tid int, ws unix.WaitStatus) (int, error) {
	switch s := ws.StopSignal(); s {
	case unix.SIGTRAP | 0x80:
		return 0, t.call(tid)
	case unix.SIGTRAP, unix.SIGSTOP: // an event, a new thread
		return 0, nil
	default:
		return int(s), nil
	}
}

// call is told of a thread that enters or leaves a call.
func (t *tracer) call(tid int) error {
	if t.entered[tid] {
		t.entered[tid] = false
		if t.failing[tid] {
			t.failing[tid] = false
			return setResult(tid, -int64(t.fault.Errno))
		}
		return nil
	}
	t.entered[tid] = true
	number, args, err := registers(tid)
	if err != nil {
		return ignoreGone(err)
	}
	what, ok := changes[number]
	if !ok || !t.concerns(tid, what, args) {
		return nil
	}
	if t.calls = append(t.calls, what.name); len(t.calls) != t.n {
		return nil
	}
	t.hit = what.name
	if t.fault.Errno == 0 {
		return unix.Kill(t.pid, unix.SIGKILL)
	}
	t.failing[tid] = true
	return skipCall(tid)
}

func ignoreGone(err error) error {
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// concerns says whether a call changes something below the folder.
func (t *tracer) concerns(tid int, what target, args [6]uint64) bool {
	var name string
	if what.path {
		name = text(tid, args[what.arg])
		if !filepath.IsAbs(name) {
			cwd, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", tid))
			name = filepath.Join(cwd, name)
		}
	} else {
		name, _ = os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", tid, int32(args[what.arg]))) //nolint:gosec // a descriptor
	}
	if what.name == "openat" && args[2]&(unix.O_CREAT|unix.O_TRUNC) == 0 {
		return false
	}
	return strings.HasPrefix(name, t.below+"/")
}

// text is the string at an address of a thread.
func text(tid int, address uint64) string {
	b := make([]byte, 1024)
	n, err := unix.PtracePeekData(tid, uintptr(address), b)
	if err != nil && n == 0 {
		return ""
	}
	s, _, _ := strings.Cut(string(b[:n]), "\x00")
	return s
}
