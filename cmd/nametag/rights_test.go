//go:build linux

package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/nametag-boot/nametag/internal/testvm"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/helpertest"
	"github.com/nametag-boot/nametag/internal/testvm/netns"
)

// A user's capabilities × what is given for the id's proof, with the file modes that the kernel has.
func TestResolveByRights(t *testing.T) {
	if _, err := exec.LookPath("setpriv"); err != nil {
		netns.Missing(t, "setpriv is not installed; apt-get install util-linux")
	}
	const links, serial = "net_admin,net_raw", "net_admin,net_raw,dac_read_search"
	for _, c := range []struct {
		about string
		caps  string
		args  []string
		exit  int
		says  string
	}{
		{"without any", "", nil, exitFailed, "can be read by root only"},
		{"without any, the id given", "", []string{"--expect-id", "42"}, exitPermission, "CAP_NET_ADMIN"},
		{"for links", links, nil, exitFailed, "--expect-id"},
		{"for links, the id given", links, []string{"--expect-id", "42"}, exitOK, ""},
		{"for links, another id given", links, []string{"--expect-id", "43", "--wait", "500ms"}, exitTimedOut, `the answer is for instance "42"`},
		{"for links, any id allowed", links, []string{"--id", "unproven"}, exitOK, "nothing proves"},
		{"for links and the serial number", serial, nil, exitOK, ""},
	} {
		t.Run(c.about, func(t *testing.T) {
			lab := testvm.Start(t, cloud.Config{Server: cloud.Server{Hostname: "web-1"}})
			dir := t.TempDir() // of mode 0755, where the Go command's own is root's
			program := filepath.Join(dir, "nametag")
			copyFile(t, helpertest.Binary(t, runtime.GOARCH), program)
			facts := filepath.Join(dir, "id")
			if err := os.Mkdir(facts, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := lab.Cloud.WriteDMI(facts); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(filepath.Join(facts, "product_serial"), 0o400); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
				t.Fatal(err)
			}
			args := []string{"--reuid=65534", "--regid=65534", "--clear-groups"}
			if c.caps != "" {
				caps := "+" + strings.ReplaceAll(c.caps, ",", ",+")
				args = append(args, "--inh-caps="+caps, "--ambient-caps="+caps)
			}
			args = append(args, program, "resolve", "--nic", "eth0", "--log", "plain", "--dmi", facts)
			cmd := lab.Command("setpriv", append(args, c.args...)...)
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			if got := exitOf(t, cmd.Run()); got != c.exit {
				t.Errorf("exit status %d, want %d: %s", got, c.exit, &stderr)
			}
			if named := stdout.String() == "web-1\n"; named != (c.exit == exitOK) || !strings.Contains(stderr.String(), c.says) {
				t.Errorf("it prints %q and says %s", &stdout, &stderr)
			}
		})
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755) //nolint:gosec // another user runs it
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}
