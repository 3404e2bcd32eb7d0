package netns

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// noNamespaces is why Main could make none; nil inside one.
// It is written once, by Main, before any test runs.
var noNamespaces error

// Main is a test package's TestMain: it runs all tests inside new network and mount namespaces with /sys to match, and
// loopback up. Without the right to make them it goes through a user namespace. Where that is impossible too, it says so
// with the remedy and runs the tests outside; those that call [Require] are skipped, or fail where CI=true.
//
// A test binary that a test starts shares the namespace, unless it was started without rights; then it gets its own.
//
// Main exits and does not return.
func Main(m interface{ Run() int }) {
	again, err := reborn(setUpTests)
	if again {
		if err != nil {
			os.Exit(1) // the parent has it
		}
		os.Exit(m.Run())
	}
	if Inside() && privileged() {
		os.Exit(m.Run()) // started by a test, to share its namespace
	}
	flags := uintptr(unix.CLONE_NEWNET | unix.CLONE_NEWNS)
	if !privileged() {
		flags |= unix.CLONE_NEWUSER
	}
	state, err := reexec(flags)
	if err != nil && flags&unix.CLONE_NEWUSER == 0 {
		// Root in a container may lack what it takes to do without.
		state, err = reexec(flags | unix.CLONE_NEWUSER)
	}
	if err == nil {
		exitAs(state)
	}
	noNamespaces = err
	fmt.Fprintf(os.Stderr, "\n*** TESTS THAT NEED A NETWORK NAMESPACE DO NOT RUN ***\n*** %v\n\n", err)
	os.Exit(m.Run())
}

// skipper is the part of testing.TB that Require needs; this package does not import testing, as programs use it.
type skipper interface {
	Helper()
	Skipf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Require skips the test where it does not run in a namespace of ours, and fails it under CI=true.
func Require(t skipper) {
	t.Helper()
	switch {
	case noNamespaces != nil:
		Missing(t, noNamespaces.Error())
	case !Inside():
		Missing(t, "TestMain does not call netns.Main")
	}
}

// Missing skips a test for the want of something, and fails it under CI=true, where a skip would be a hole that nobody
// sees.
func Missing(t skipper, what string) {
	t.Helper()
	if strings.EqualFold(os.Getenv("CI"), "true") {
		t.Fatalf("CI=true and this test cannot run: %s", what)
	}
	t.Skipf("SKIPPED, NOT TESTED: %s", what)
}

// setUpTests completes the namespaces that a test process was born into.
func setUpTests() error {
	if err := privateSys(); err != nil {
		return err
	}
	return loopbackUp()
}

// privateSys gives the calling thread's mount namespace, which must be a new one, a /sys that shows the thread's network
// namespace. Where a container hides parts of /sys the kernel refuses a new one; the old one stays then.
func privateSys() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	_ = unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	return nil
}

// loopbackUp brings lo up, with the addresses that the kernel gives it.
func loopbackUp() error {
	c, err := dial()
	if err != nil {
		return err
	}
	defer c.close()
	return c.setFlags(1, unix.IFF_UP, unix.IFF_UP) // lo is always the first
}
