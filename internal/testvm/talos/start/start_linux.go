package start

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What the kernel gives to every first process, beside its own words.
var (
	Arguments   = []string{"version", "a_word", "-x"}
	Environment = []string{"HOME=/", "TERM=linux", "some_key=some_value"}
)

// Look starts the tree and looks at its init's first moment.
func (t Tree) Look(store, dir string, way Way, console *os.File) (s Snapshot, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s, %s: %w", t.Name, way, err)
		}
	}()
	root := filepath.Join(dir, "root")
	if err := os.MkdirAll(root, 0o755); err != nil { //nolint:gosec // a guest's
		return nil, err
	}
	defer os.RemoveAll(root) //nolint:errcheck // it goes with the machine
	run, err := t.Unpack(root, store, way)
	if err != nil {
		return nil, err
	}
	if err := unix.Mount(root, root, "", unix.MS_BIND, ""); err != nil {
		return nil, fmt.Errorf("mount: %w", err)
	}
	defer unix.Unmount(root, unix.MNT_DETACH) //nolint:errcheck // it goes with the machine
	runtime.LockOSThread()                    // all of ptrace(2) comes from one thread
	defer runtime.UnlockOSThread()
	cmd := &exec.Cmd{
		Path: run, Args: append([]string{run}, Arguments...), Env: Environment, Dir: "/",
		Stdin: console, Stdout: console, Stderr: console,
		SysProcAttr: &syscall.SysProcAttr{Chroot: root, Ptrace: true, Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWUTS},
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	pid := cmd.Process.Pid
	defer func() {
		_ = unix.Kill(pid, unix.SIGKILL) // and with it all of its namespace
		_ = follow(pid, func(status unix.WaitStatus, tid int) bool { return tid == pid && !status.Stopped() })
		_, _ = cmd.Process.Wait() // it is gone
	}()
	execs := 1
	if way != Without {
		execs = 2
	}
	if err := t.await(pid, execs); err != nil {
		return nil, err
	}
	if s, err = look(pid, root); err != nil || t.Runs == "" {
		return s, err
	}
	if err := unix.PtraceDetach(pid); err != nil {
		return nil, fmt.Errorf("ptrace: %w", err)
	}
	s["it runs"] = t.ran(filepath.Join(root, t.Runs))
	return s, nil
}

// await waits until the process has executed a program so many times.
func (t Tree) await(pid, execs int) error {
	began := false
	err := follow(pid, func(status unix.WaitStatus, tid int) bool {
		switch {
		case tid == pid && !status.Stopped():
			return true
		case tid != pid:
		case !began: // the exec that we asked for, before which no option could be set
			began = true
			execs--
			if err := unix.PtraceSetOptions(pid, unix.PTRACE_O_TRACEEXEC|unix.PTRACE_O_TRACECLONE|unix.PTRACE_O_EXITKILL); err != nil {
				panic(err) // a kernel's
			}
		case int(status)>>16 == unix.PTRACE_EVENT_EXEC:
			execs--
		}
		return execs == 0
	})
	if err == nil && execs > 0 {
		return errors.New("it ended before its time")
	}
	return err
}

// follow lets a traced process go from stop to stop until one is the one that was looked for. It stays in that.
func follow(pid int, done func(unix.WaitStatus, int) bool) error {
	for {
		var status unix.WaitStatus
		tid, err := unix.Wait4(-1, &status, unix.WALL, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case done(status, tid):
			return nil
		case !status.Stopped():
			if tid == pid {
				return fmt.Errorf("process %d ended: %#x", pid, uint32(status))
			}
			continue
		}
		sig := 0
		if s := status.StopSignal(); int(status)>>16 == 0 && s != unix.SIGTRAP && s != unix.SIGSTOP { // ours
			sig = int(s)
		}
		_ = unix.PtraceCont(tid, sig) // ESRCH: it was killed meanwhile, as the next wait tells
	}
}

// ran waits for what the init makes when it runs, and returns what stands in it.
func (t Tree) ran(file string) string {
	for range 600 {
		if b, err := os.ReadFile(file); err == nil && len(b) > 0 {
			return string(b)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return "it does not"
}
