package helpertest

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// inMounts says to a test binary that it runs in a mount namespace of its own.
const inMounts = "NAMETAG_TEST_MOUNT"

// WithMounts is for a test that mounts: it reports whether the test is in a mount namespace of its own. Outside, it runs
// the test again in one, as another process, and the test returns. Where the machine refuses user namespaces the test is
// skipped, under CI it fails.
func WithMounts(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inMounts) != "" {
		return true
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inMounts+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, syscall.EPERM) && os.Getenv("CI") == "":
		t.Skip("SKIPPED: this needs user namespaces, which this machine refuses")
	case err != nil:
		t.Fatalf("%v\n%s", err, out)
	}
	return false
}
