//go:build linux

package systemd

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nametag-boot/nametag/procfs"
)

func TestTheGeneratorPutsTheUnitInFrontWhereTheCommandLineAsksForIt(t *testing.T) {
	for _, tt := range []struct {
		line   string
		initrd bool
		wants  []string
		action string
	}{
		{"nametag.wait=2m", false, []string{"sysinit.target.wants/nametag.service"}, "reboot"},
		{"talos.hostname.wait=2m,then=poweroff", false, []string{"sysinit.target.wants/nametag.service"}, "poweroff"},
		{"nametag.wait=2m,then=halt", false, []string{"sysinit.target.wants/nametag.service"}, "none"},
		{"nametag.wait=2m,then=continue", false, []string{"sysinit.target.wants/nametag.service"}, "none"},
		{"nametag.wait=90", false, []string{"sysinit.target.wants/nametag.service"}, "reboot"}, // a mistake
		{"nametag.wiat=2m", false, []string{"sysinit.target.wants/nametag.service"}, "reboot"}, // another
		{"nametag.wait=2m", true, []string{"initrd.target.wants/nametag.service", "initrd.target.wants/nametag-early.service"}, "reboot"},
		{"nametag.wait=off", false, nil, ""},
		{"quiet", true, nil, ""},
	} {
		dir := t.TempDir()
		line, _ := procfs.ParseString(tt.line)
		for range 2 {
			if err := Generate(dir, line, tt.initrd); err != nil {
				t.Fatal(err)
			}
		}
		for _, want := range tt.wants {
			unit := filepath.Base(want)
			if to, err := os.Readlink(filepath.Join(dir, want)); err != nil || filepath.Base(to) != unit {
				t.Errorf("%s: %s: %q, %v", tt.line, want, to, err)
			}
			text, err := os.ReadFile(filepath.Join(dir, unit+".d/50-policy.conf"))
			if err != nil || !strings.Contains(string(text), "FailureAction="+tt.action+"\n") {
				t.Errorf("%s: %v\n%s", tt.line, err, text)
			}
		}
		if there, _ := os.ReadDir(dir); tt.wants == nil && len(there) != 0 {
			t.Errorf("%s: it left %v", tt.line, there)
		}
	}
}

// manager is systemd's end of the notification socket.
func manager(t *testing.T) *net.UnixConn {
	t.Helper()
	dir, err := os.MkdirTemp("", "n") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return conn
}

func next(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	b := make([]byte, 4096)
	n, err := conn.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func TestTheManagerHearsOfReadinessAndStatus(t *testing.T) {
	conn := manager(t)
	Status("waiting\nREADY=1") // from a network, say
	if got := next(t, conn); got != "STATUS=waiting READY=1" {
		t.Errorf("status %q", got)
	}
	Ready()
	if got := next(t, conn); got != "READY=1" {
		t.Errorf("ready %q", got)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	KeepStarting(ctx)
	if got := next(t, conn); !strings.HasPrefix(got, "EXTEND_TIMEOUT_USEC=") {
		t.Errorf("extension %q", got)
	}
}

func TestWithoutAManagerNothingHappens(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("INVOCATION_ID", "")
	if Managed() {
		t.Error("managed by nobody")
	}
	Ready()
	Status("waiting")
}
