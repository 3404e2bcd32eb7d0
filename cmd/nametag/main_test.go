//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/testvm"
	"github.com/nametag-boot/nametag/internal/testvm/netns"
)

// actAs makes the test binary be the command itself: its value says with which rights.
const actAs = "NAMETAG_TEST_ACT_AS"

// quickExit keeps a race build from waiting for a second at each exit.
const quickExit = "GORACE=atexit_sleep_ms=0"

func TestMain(m *testing.M) {
	switch os.Getenv(actAs) {
	case "nametag":
		main()
	case "nametag without capabilities":
		if err := dropCapabilities(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(99)
		}
		main()
	}
	netns.Main(m)
}

// dropCapabilities leaves the process with the rights of an ordinary user. It must run on every thread that will ever
// do something; before main, and with the memory of the execution domain gone by an exec, it does.
func dropCapabilities() error {
	runtime.LockOSThread()
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	for c := 0; c <= unix.CAP_LAST_CAP; c++ {
		_ = unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0)
	}
	if err := unix.Capset(&hdr, &none[0]); err != nil {
		return err
	}
	if err := os.Setenv(actAs, "nametag"); err != nil {
		return err
	}
	return unix.Exec("/proc/self/exe", os.Args, os.Environ())
}

// nametag is the command as a process in the lab.
func nametag(lab *testvm.Lab, as string, args ...string) *exec.Cmd {
	cmd := lab.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), actAs+"="+as, quickExit)
	return cmd
}
