//go:build linux

package lasting

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/testvm/helpertest"
)

// newRoot is a root with these files.
func newRoot(t *testing.T, files map[string]string) Root {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Root(dir)
}

func TestWhoseNameItIs(t *testing.T) {
	for _, tt := range []struct {
		name       string
		file, mark string
		operator   string
	}{
		{"nothing there", "", "", ""},
		{"only comments", "# a\n\n", "", ""},
		{"localhost", "localhost\n", "", ""},
		{"localhost with a domain", "LocalHost.localdomain\n", "", ""},
		{"a name", "web-1\n", "", "web-1"},
		{"a name below a comment", "# ours\nweb-1\nweb-2\n", "", "web-1"},
		{"a name without a line feed", "web-1", "", "web-1"},
		{"what nametag wrote", "web-1\n", "web-1\n", ""},
		{"changed since nametag wrote it", "by-hand\n", "web-1\n", "by-hand"},
		{"with the line ends of another system", "web-1\r\n", "", "web-1"},
		{"what nametag wrote, cut off before its next name", "web-1\n", "web-2\nweb-1\n", ""},
		{"what nametag wrote, cut off after its next name", "web-2\n", "web-2\nweb-1\n", ""},
		{"changed since nametag was cut off", "by-hand\n", "web-2\nweb-1\n", "by-hand"},
	} {
		files := map[string]string{}
		if tt.file != "" {
			files[File] = tt.file
		}
		if tt.mark != "" {
			files[Mark] = tt.mark
		}
		got, err := newRoot(t, files).Operator()
		if err != nil || got != tt.operator {
			t.Errorf("%s: %q, %v", tt.name, got, err)
		}
	}
}

func TestALinkLeadsWhereItWillLeadOnceTheRootIsTheRoot(t *testing.T) {
	r := newRoot(t, map[string]string{"nix/hostname": "from-nix\n"})
	if err := os.Symlink("/nix/hostname", r.path(File)); err != nil {
		t.Fatal(err)
	}
	if got, err := r.Operator(); err != nil || got != "from-nix" {
		t.Errorf("%q, %v", got, err)
	}
	if err := r.write("web-1"); err == nil { // a system that generates its /etc
		t.Error("it was written over")
	}
}

// On a disk that is full, or where the power goes, the first of two files is written and the second is not.
func TestANameOfNametagsThatCannotBeReplacedStaysNametags(t *testing.T) {
	r := newRoot(t, map[string]string{File: "web-1\n", Mark: "web-1\n"})
	if err := os.MkdirAll(r.path("etc/.hostname.new/in-the-way"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := r.write("web-2"); err == nil {
		t.Fatal("it was written")
	}
	if name, err := r.Operator(); err != nil || name != "" {
		t.Errorf("the earlier name passes for an operator's: %q, %v", name, err)
	}
	if err := os.RemoveAll(r.path("etc/.hostname.new")); err != nil {
		t.Fatal(err)
	}
	if how, err := r.Keep("web-2", t.TempDir()); err != nil || how != Written {
		t.Errorf("%q, %v", how, err)
	}
	if mark, err := os.ReadFile(r.path(Mark)); err != nil || string(mark) != "web-2\n" {
		t.Errorf("it remembers %q, %v", mark, err)
	}
}

func TestKeepWritesOnceAndForEveryoneToRead(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	for _, before := range []map[string]string{nil, {File: "localhost\n"}, {File: "web-0\n", Mark: "web-0\n"}} {
		r := newRoot(t, before)
		for _, want := range []How{Written, Unchanged} {
			if how, err := r.Keep("web-1", t.TempDir()); err != nil || how != want {
				t.Fatalf("%v: %q, %v, want %q", before, how, err, want)
			}
		}
		content, err := os.ReadFile(r.path(File))
		if err != nil || string(content) != "web-1\n" {
			t.Errorf("%v: %q, %v", before, content, err)
		}
		if st, err := os.Stat(r.path(File)); err != nil || st.Mode() != 0o644 {
			t.Errorf("%v: %v, %v", before, st.Mode(), err)
		}
		if name, err := r.Operator(); err != nil || name != "" {
			t.Errorf("%v: it passes for an operator's: %q, %v", before, name, err)
		}
		left, _ := os.ReadDir(r.path("etc"))
		if len(left) != 2 {
			t.Errorf("%v: left behind: %v", before, left)
		}
	}
}

func TestThereIsNothingToPinWithoutAName(t *testing.T) {
	for _, pin := range []func(Root) (string, error){Root.Pin, Root.Unpin} {
		if _, err := pin(newRoot(t, nil)); !errors.Is(err, ErrNoName) {
			t.Errorf("got %v", err)
		}
	}
}

func TestWhatIsWithdrawn(t *testing.T) {
	for _, tt := range []struct {
		name       string
		file, mark string
		withdrawn  string
		left       string // in /etc/hostname
	}{
		{"what nametag wrote", "web-1\n", "web-1\n", "web-1", ""},
		{"nothing there", "", "", "", ""},
		{"a mark alone", "", "web-1\n", "", ""},
		{"an operator's", "by-hand\n", "", "", "by-hand"},
		{"an operator's in place of nametag's", "by-hand\n", "web-1\n", "", "by-hand"},
	} {
		files := map[string]string{}
		if tt.file != "" {
			files[File] = tt.file
		}
		if tt.mark != "" {
			files[Mark] = tt.mark
		}
		r := newRoot(t, files)
		name, err := r.Withdraw(t.TempDir())
		if err != nil || name != tt.withdrawn {
			t.Errorf("%s: %q, %v", tt.name, name, err)
		}
		if left, err := r.Static(); err != nil || left != tt.left {
			t.Errorf("%s: left %q, %v", tt.name, left, err)
		}
	}
}

// TestARootThatCannotBeWritten mounts in a namespace of its own: it runs itself again there.
func TestARootThatCannotBeWritten(t *testing.T) {
	if !helpertest.WithMounts(t) {
		return
	}
	// mounted is a file system with these files; readOnly and readWrite remount it.
	mounted := func(t *testing.T, files map[string]string) (r Root, remount func(flags uintptr)) {
		t.Helper()
		dir := t.TempDir()
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
		for name, text := range files {
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return Root(dir), func(flags uintptr) {
			t.Helper()
			if err := unix.Mount("", dir, "", unix.MS_REMOUNT|flags, ""); err != nil {
				t.Fatal(err)
			}
		}
	}
	// memory is a /run.
	memory := func(t *testing.T) string {
		t.Helper()
		r, _ := mounted(t, nil)
		return string(r)
	}
	t.Run("localhost is covered, and written once that is possible", func(t *testing.T) {
		r, remount := mounted(t, map[string]string{File: "localhost\n"})
		remount(unix.MS_RDONLY)
		run := memory(t)
		for range 2 {
			if how, err := r.Keep("web-1", run); err != nil || how != Covered {
				t.Fatalf("%q, %v", how, err)
			}
		}
		if name, _ := r.Static(); name != "web-1" {
			t.Errorf("a reader sees %q", name)
		}
		if name, err := r.Operator(); err != nil || name != "" {
			t.Errorf("it passes for an operator's: %q, %v", name, err)
		}
		if _, err := r.Pin(); !errors.Is(err, ErrNoName) {
			t.Errorf("what is not on the disk was pinned: %v", err)
		}
		remount(0)
		for _, want := range []How{Written, Unchanged} {
			if how, err := r.Keep("web-1", run); err != nil || how != want {
				t.Fatalf("%q, %v, want %q", how, err, want)
			}
		}
		if r.covered() {
			t.Error("it is covered still")
		}
	})
	// overlaid is an overlay of two file systems.
	overlaid := func(t *testing.T, files map[string]string) Root {
		t.Helper()
		lower, _ := mounted(t, files)
		upper, _ := mounted(t, map[string]string{"up/etc/fstab": "", "work/none": ""})
		r := Root(t.TempDir())
		options := "lowerdir=" + string(lower) + ",upperdir=" + upper.path("up") + ",workdir=" + upper.path("work")
		switch err := unix.Mount("overlay", string(r), "overlay", 0, options); {
		case errors.Is(err, unix.ENODEV), errors.Is(err, unix.EPERM): // before Linux 5.11 it is not for everybody
			t.Skipf("NO OVERLAY: %v", err)
		case err != nil:
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(string(r), unix.MNT_DETACH) })
		return r
	}
	t.Run("an overlay's file is of another device than its folder, and is not covered", func(t *testing.T) {
		r := overlaid(t, map[string]string{File: "by-hand\n"})
		if name, err := r.Operator(); err != nil || name != "by-hand" {
			t.Errorf("the operator's name is %q, %v", name, err)
		}
		for _, want := range []How{Written, Unchanged} {
			if how, err := r.Keep("web-1", t.TempDir()); err != nil || how != want {
				t.Errorf("%q, %v, want %q", how, err, want)
			}
		}
	})
	t.Run("a file that somebody else has mounted there is the operator's, and stays", func(t *testing.T) {
		r, _ := mounted(t, map[string]string{File: "localhost\n"})
		data := overlaid(t, map[string]string{"hostname": "by-hand\n"})
		if err := unix.Mount(data.path("hostname"), r.path(File), "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		if name, err := r.Operator(); err != nil || name != "by-hand" {
			t.Errorf("the operator's name is %q, %v", name, err)
		}
		if name, err := r.Withdraw(t.TempDir()); err != nil || name != "" {
			t.Errorf("withdrew %q, %v", name, err)
		}
		if name, err := r.Static(); err != nil || name != "by-hand" {
			t.Errorf("a reader sees %q, %v", name, err)
		}
	})
	t.Run("a link is not covered, but the two daemons are told", func(t *testing.T) {
		r, remount := mounted(t, map[string]string{"etc/machine": "localhost\n"})
		if err := os.Symlink("/etc/machine", r.path(File)); err != nil {
			t.Fatal(err)
		}
		remount(unix.MS_RDONLY)
		for range 2 {
			if how, err := r.Keep("web-1", t.TempDir()); err == nil || how != Transient {
				t.Errorf("%q, %v", how, err)
			}
		}
	})
	t.Run("a disk that is full is told, and the name is kept for this boot", func(t *testing.T) {
		r, _ := mounted(t, map[string]string{File: "localhost\n"})
		if err := unix.Mount("", string(r), "", unix.MS_REMOUNT, "size=64k"); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(r.path("filler"), make([]byte, 64<<10), 0o600); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("it is not full: %v", err)
		}
		run := memory(t)
		for range 2 {
			if how, err := r.Keep("web-1", run); how != Covered || !errors.Is(err, unix.ENOSPC) {
				t.Errorf("%q, %v", how, err)
			}
		}
		if name, err := r.Static(); err != nil || name != "web-1" {
			t.Errorf("a reader sees %q, %v", name, err)
		}
		if err := os.Remove(r.path("filler")); err != nil {
			t.Fatal(err)
		}
		if how, err := r.Keep("web-1", run); err != nil || how != Written {
			t.Errorf("once there is room: %q, %v", how, err)
		}
	})
	t.Run("another machine's name is covered, and removed once that is possible", func(t *testing.T) {
		r, remount := mounted(t, map[string]string{File: "web-1\n", Mark: "web-1\n"})
		remount(unix.MS_RDONLY)
		run := memory(t)
		for _, want := range []string{"web-1", ""} { // the second time there is nothing left to do
			if name, err := r.Withdraw(run); err != nil || name != want {
				t.Fatalf("%q, %v, want %q", name, err, want)
			}
			if name, err := r.Static(); err != nil || name != "" {
				t.Errorf("a reader sees %q, %v", name, err)
			}
		}
		remount(0)
		if name, err := r.Withdraw(run); err != nil || name != "web-1" {
			t.Fatalf("%q, %v", name, err)
		}
		if _, err := os.Lstat(r.path(File)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the file is there still: %v", err)
		}
	})
	t.Run("without a file the two daemons are told", func(t *testing.T) {
		r, remount := mounted(t, map[string]string{
			"etc/fstab": "", "etc/systemd/network/10-a.network": "", "usr/lib/systemd/network/80-b.network": "", "usr/lib/systemd/network/99-default.link": "",
		})
		remount(unix.MS_RDONLY)
		run := memory(t)
		if how, err := r.Keep("web-1", run); err != nil || how != Transient {
			t.Fatalf("%q, %v", how, err)
		}
		for name, want := range map[string]string{
			"NetworkManager/conf.d/90-nametag.conf":          "hostname-mode=none",
			"systemd/network/10-a.network.d/90-nametag.conf": "UseHostname=no",
			"systemd/network/80-b.network.d/90-nametag.conf": "UseHostname=no",
		} {
			if text, err := os.ReadFile(filepath.Join(run, name)); err != nil || !strings.Contains(string(text), want) {
				t.Errorf("%s: %q, %v", name, text, err)
			}
		}
	})
}
