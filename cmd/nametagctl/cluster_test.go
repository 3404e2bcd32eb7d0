//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nametag-boot/nametag/internal/cli"
	"github.com/nametag-boot/nametag/internal/testvm/helpertest"
)

// What is behind the name goes to the auditor as it is, and so does what comes back.
func TestTheCommandsOfClustersAreTheAuditors(t *testing.T) {
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctl := filepath.Join(dir, "nametagctl")
	helpertest.Copy(t, self, ctl)
	run := func(path string, args ...string) (int, string) {
		cmd := exec.CommandContext(t.Context(), ctl, args...)
		cmd.Env = []string{"PATH=" + path, actAs + "=1", "GORACE=atexit_sleep_ms=0"}
		out, _ := cmd.CombinedOutput()
		return cmd.ProcessState.ExitCode(), string(out)
	}
	if status, out := run("/nowhere", "audit"); status != cli.Failed || !strings.Contains(out, "make audit") {
		t.Errorf("without it: %d, %s", status, out)
	}
	elsewhere := filepath.Join(t.TempDir(), auditor)
	script(t, elsewhere, `echo "in the path: $*"; exit 3`)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"audit", "-o", "json", "--help"}, "in the path: -o json --help\n"},
		{[]string{"pin", "set", "-n", "10.0.0.2"}, "in the path: pin set -n 10.0.0.2\n"},
	} {
		if status, out := run(filepath.Dir(elsewhere), c.args...); status != 3 || out != c.want {
			t.Errorf("%v: %d, %s", c.args, status, out)
		}
	}
	script(t, filepath.Join(dir, auditor), `echo beside`)
	if status, out := run(filepath.Dir(elsewhere), "audit"); status != 0 || out != "beside\n" {
		t.Errorf("%d, %s", status, out)
	}
}
