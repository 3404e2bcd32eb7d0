//go:build linux && amd64

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/image/installer/installertest"
	"github.com/nametag-boot/nametag/internal/image/oci"
	"github.com/nametag-boot/nametag/internal/testvm/helpertest"
	"github.com/nametag-boot/nametag/internal/testvm/syscalls"
)

// stateOf is what stands at a path: the contents of a file, or of all that is in a folder.
func stateOf(t *testing.T, path string) string {
	t.Helper()
	h := sha256.New()
	err := filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(name)
		fmt.Fprintf(h, "%s %d\n", strings.TrimPrefix(name, path), len(b))
		h.Write(b)
		return err
	})
	if os.IsNotExist(err) {
		return "nothing"
	}
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// A full disk, and the end of all power, at every call by which a command changes a file: the old file is there then, or
// the new one.
func TestAFullDiskOrAPowerFailureLeavesTheOldFileOrTheNewOne(t *testing.T) {
	helpers := helpertest.StandIn(t)
	stock := t.TempDir()
	for name, b := range map[string][]byte{
		"initramfs": installertest.Initramfs(t, "amd64"),
		"uki":       installertest.UKI(t, "amd64"),
	} {
		if err := os.WriteFile(filepath.Join(stock, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// What the commands begin with, made once: an initramfs with nametag in it, layouts and archives.
	prepare := func(args ...string) {
		t.Helper()
		cmd := exec.Command("/proc/self/exe", args...)
		cmd.Dir, cmd.Env = stock, append(os.Environ(), actAs+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", args, err, out)
		}
	}
	prepare("initramfs", "add", "initramfs", "--out", "with", "--helper", helpers)
	prepare("extension", "--oci", "layout", "--tarball", "old-{arch}.tar", "--helper", helpers, "--talos", "1.9")
	if err := oci.WriteArchive(t.Context(), filepath.Join(stock, "installer.tar"), "installer:v1", installertest.Merged(t, "amd64")); err != nil {
		t.Fatal(err)
	}
	prepare("installer", "installer.tar", "--archive", "amended.tar", "--oci", "amended", "--helper", helpers)

	for _, c := range []struct {
		target string
		args   []string
	}{
		{"initramfs", []string{"initramfs", "add", "initramfs", "--helper", helpers}},
		{"with", []string{"initramfs", "add", "initramfs", "--rdinit", "--out", "with", "--helper", helpers}},
		{"with", []string{"initramfs", "remove", "with"}},
		{"uki", []string{"uki", "edit", "uki", "--nametag", "--wait", "2m", "--helper", helpers}},
		{"new", []string{"uki", "edit", "uki", "--append", "a=b", "--out", "new"}},
		{"layout", []string{"extension", "--oci", "layout", "--force", "--helper", helpers, "--wait", "2m"}},
		{"old-amd64.tar", []string{"extension", "--tarball", "old-{arch}.tar", "--arch", "amd64", "--helper", helpers}},
		{"amended.tar", []string{"installer", "installer.tar", "--archive", "amended.tar", "--tag", "other:v2", "--helper", helpers}},
		{"amended", []string{"installer", "installer.tar", "--oci", "amended", "--force", "--wait", "3m", "--helper", helpers}},
	} {
		t.Run(strings.Join(c.args[:2], " ")+" to "+c.target, func(t *testing.T) {
			run := func(t *testing.T, n int, fault syscalls.Fault) (dir string, r syscalls.Result) {
				t.Helper()
				dir = t.TempDir()
				for _, sub := range []string{"at", "tmp"} {
					if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
						t.Fatal(err)
					}
				}
				if err := os.CopyFS(filepath.Join(dir, "at"), os.DirFS(stock)); err != nil {
					t.Fatal(err)
				}
				cmd := exec.Command("/proc/self/exe", c.args...)
				cmd.Dir = filepath.Join(dir, "at")
				cmd.Env = append(os.Environ(), actAs+"=1", "TMPDIR="+filepath.Join(dir, "tmp"))
				var out bytes.Buffer
				cmd.Stdout, cmd.Stderr = &out, &out
				r, err := syscalls.Run(cmd, dir, n, fault)
				if err != nil {
					t.Skipf("SKIPPED: no tracing here: %v", err)
				}
				if n == 0 && r.Status != 0 {
					t.Fatalf("without a fault: %d, %s", r.Status, &out)
				}
				return filepath.Join(dir, "at"), r
			}
			before := stateOf(t, filepath.Join(stock, c.target))
			dir, whole := run(t, 0, syscalls.Fault{})
			after := stateOf(t, filepath.Join(dir, c.target))
			if before == after || len(whole.Calls) < 5 {
				t.Fatalf("%q, and %s became %s: there is nothing to look at", whole.Calls, before, after)
			}
			names := entriesOf(t, dir)
			// Each rename, and of the many others enough.
			step := max(1, len(whole.Calls)/12)
			for i, call := range whole.Calls {
				if i%step != 0 && !strings.HasPrefix(call, "rename") {
					continue
				}
				n := i + 1
				for _, fault := range []syscalls.Fault{{}, {Errno: unix.ENOSPC}} {
					dir, r := run(t, n, fault)
					what := fmt.Sprintf("call %d of %d, %s, errno %d", n, len(whole.Calls), r.Hit, fault.Errno)
					is := stateOf(t, filepath.Join(dir, c.target))
					switch {
					case is != before && is != after:
						t.Errorf("%s: neither the old nor the new one", what)
					case r.Status == 0 && is != after:
						t.Errorf("%s: it says that it is done, and it is not", what)
					}
					// What was killed cannot tidy up; what only failed does, but for what it was not let remove.
					left := entriesOf(t, dir)
					if fault.Errno != 0 && r.Hit != "unlinkat" && !slices.Equal(left, names) && !slices.Equal(left, entriesOf(t, stock)) {
						t.Errorf("%s: in the folder: %q", what, left)
					}
				}
			}
			t.Logf("calls that change files: %q", whole.Calls)
		})
	}
}

func entriesOf(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
