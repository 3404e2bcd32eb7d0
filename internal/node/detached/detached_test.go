//go:build linux

package detached

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/testvm/helpertest"
)

// TestOpen mounts in a namespace of its own: it runs itself again there.
func TestOpen(t *testing.T) {
	if !helpertest.WithMounts(t) {
		return
	}
	before := table(t)
	root, err := Mount{Type: "tmpfs", Attributes: unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC}.Open()
	if err != nil {
		t.Fatal(err)
	}
	if after := table(t); after != before {
		t.Errorf("others see it:\n%s", after)
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(root, &st); err != nil || st.Type != unix.TMPFS_MAGIC || st.Flags&unix.ST_NODEV == 0 || st.Flags&unix.ST_NOEXEC == 0 {
		t.Errorf("%#x, flags %#x, %v", st.Type, st.Flags, err)
	}
	file := filepath.Join("/proc/self/fd", strconv.Itoa(root), "file")
	if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
		t.Error(err)
	}
	if err := unix.Close(root); err != nil {
		t.Error(err)
	}
	readOnly, err := Mount{Type: "tmpfs", Flags: []string{"ro"}}.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(readOnly) //nolint:errcheck // not a file with content
	if err := unix.Mkdirat(readOnly, "folder", 0o755); !errors.Is(err, unix.EROFS) {
		t.Errorf("it was to be read-only: %v", err)
	}
}

func TestTheErrorSaysWhichCallItWas(t *testing.T) {
	if !helpertest.WithMounts(t) {
		return
	}
	for _, tt := range []struct {
		mount Mount
		call  string
		errno unix.Errno
	}{
		{Mount{Type: "nosuchfs"}, "fsopen", unix.ENODEV},
		{Mount{Type: "tmpfs", Flags: []string{"no-such-flag"}}, "fsconfig", unix.EINVAL},
		{Mount{Type: "tmpfs", Attributes: 1 << 30}, "fsmount", unix.EINVAL},
	} {
		fd, err := tt.mount.Open()
		if call, ok := errors.AsType[*os.SyscallError](err); !ok || call.Syscall != tt.call || !errors.Is(err, tt.errno) || fd != -1 {
			t.Errorf("%+v: %d, %v", tt.mount, fd, err)
		}
	}
}

// table is the mount table of this process.
func table(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || len(strings.Fields(string(text))) == 0 {
		t.Fatalf("no mount table: %v", err)
	}
	return string(text)
}
