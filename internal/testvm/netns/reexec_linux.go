package netns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What a process that was started again finds in its environment.
const (
	// envOutside names the network namespace that it left (an inode), so that nobody takes the host's for one of ours.
	envOutside = "NAMETAG_NETNS_OUTSIDE"
	// envReady is the descriptor on which it reports whether its surroundings are complete.
	envReady = "NAMETAG_NETNS_READY"
)

// Inside says whether this process runs in a namespace that [Main] made, or was started from one that does.
func Inside() bool {
	outside := os.Getenv(envOutside)
	return outside != "" && outside != currentNetNS()
}

func currentNetNS() string {
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return ""
	}
	return strconv.FormatUint(st.Ino, 10)
}

// privileged says whether the process may make namespaces and configure networks as it is.
func privileged() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return false
	}
	need := uint32(1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_NET_RAW)
	return data[0].Effective&need == need
}

// reexec runs this program again, with the same arguments, in new namespaces, and returns how it ended. The error is an
// *Unavailable when it never came to run.
//
// Signals are passed on, except those that the terminal has sent to the whole process group already.
func reexec(flags uintptr) (*os.ProcessState, error) {
	// The parent-death signal is tied to the thread that starts the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	ready, report, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer ready.Close()

	// Not os.Executable: the magic link works also where the directories on the way are closed to us.
	cmd := exec.CommandContext(context.Background(), "/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{report}
	cmd.Env = append(os.Environ(), envOutside+"="+currentNetNS(), envReady+"=3")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
	if flags&unix.CLONE_NEWUSER != 0 {
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}

	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	defer signal.Stop(signals)

	err = cmd.Start()
	_ = report.Close()
	if err != nil {
		return nil, unavailable(err)
	}
	verdict, _ := io.ReadAll(io.LimitReader(ready, 4096))
	if string(verdict) != readyWord {
		_ = cmd.Wait()
		cause := strings.TrimSpace(string(verdict))
		if cause == "" {
			cause = "the process in the new namespace ended before it was set up"
		}
		return nil, unavailable(errors.New(cause))
	}

	ended := make(chan struct{})
	go func() {
		for {
			select {
			case s := <-signals:
				if (s == unix.SIGINT || s == unix.SIGQUIT) && foreground() {
					continue // the terminal sent it to the child as well
				}
				_ = cmd.Process.Signal(s)
			case <-ended:
				return
			}
		}
	}()
	_ = cmd.Wait() // the state says it all
	close(ended)
	return cmd.ProcessState, nil
}

// foreground says whether the terminal's signals go to this process group.
func foreground() bool {
	tty, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(tty) }()
	group, err := unix.IoctlGetInt(tty, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// exitAs ends this process as another one ended.
func exitAs(state *os.ProcessState) {
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		signal.Reset(ws.Signal())
		_ = unix.Kill(unix.Getpid(), ws.Signal())
		time.Sleep(time.Second)         // another thread may get it, a moment later
		os.Exit(128 + int(ws.Signal())) // it is ignored here
	}
	os.Exit(state.ExitCode())
}

const readyWord = "ready"

// reborn says whether this process was started by reexec, and if so does its part: set the surroundings up and report.
// It says so once; what this process starts is not reborn, though it finds envOutside.
func reborn(setUp func() error) (bool, error) {
	fd, err := strconv.Atoi(os.Getenv(envReady))
	if err != nil {
		return false, nil
	}
	if err := os.Unsetenv(envReady); err != nil {
		return true, err
	}
	report := os.NewFile(uintptr(fd), "ready")
	if report == nil {
		return true, fmt.Errorf("netns: descriptor %d is not there", fd)
	}
	defer report.Close()
	unix.CloseOnExec(fd)
	if err := setUp(); err != nil {
		_, _ = io.WriteString(report, err.Error())
		return true, err
	}
	_, err = io.WriteString(report, readyWord)
	return true, err
}
