//go:build unix

package whole

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestAFileIsWrittenAsAWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	only := func(t *testing.T, dir, name, text string) {
		t.Helper()
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 1 || entries[0].Name() != name {
			t.Errorf("in the folder: %v, %v", entries, err)
		}
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != text {
			t.Errorf("the file: %q, %v", b, err)
		}
	}
	text := func(s string) func(*os.File) error {
		return func(w *os.File) error { _, err := io.WriteString(w, s); return err }
	}
	t.Run("a failure leaves what was there", func(t *testing.T) {
		dir := t.TempDir()
		_ = os.WriteFile(filepath.Join(dir, "image"), []byte("old"), 0o600)
		bad := errors.New("bad")
		err := File(filepath.Join(dir, "image"), 0o644, func(w *os.File) error { _ = text("new")(w); return bad })
		if !errors.Is(err, bad) {
			t.Errorf("the error is %v", err)
		}
		only(t, dir, "image", "old")
	})
	t.Run("mode and owner stay", func(t *testing.T) {
		dir := t.TempDir()
		name := filepath.Join(dir, "image")
		_ = os.WriteFile(name, []byte("old"), 0o600)
		_ = os.Chmod(name, 0o2640)
		if os.Geteuid() == 0 {
			_ = os.Chown(name, 65534, 65534)
		}
		before, _ := os.Stat(name)
		if err := File(name, 0o644, text("new")); err != nil {
			t.Fatal(err)
		}
		after, _ := os.Stat(name)
		if after.Mode() != before.Mode() {
			t.Errorf("the mode was %v and is %v", before.Mode(), after.Mode())
		}
		if b, a := before.Sys(), after.Sys(); fmt.Sprint(owner(b)) != fmt.Sprint(owner(a)) {
			t.Errorf("the owner was %v and is %v", owner(b), owner(a))
		}
		only(t, dir, "image", "new")
	})
	t.Run("a new file gets the mode that is asked for", func(t *testing.T) {
		dir := t.TempDir()
		if err := File(filepath.Join(dir, "image"), 0o640, text("new")); err != nil {
			t.Fatal(err)
		}
		if st, _ := os.Stat(filepath.Join(dir, "image")); st.Mode() != 0o640 {
			t.Errorf("the mode is %v", st.Mode())
		}
		only(t, dir, "image", "new")
	})
	t.Run("a link stays", func(t *testing.T) {
		dir, other := t.TempDir(), t.TempDir()
		_ = os.WriteFile(filepath.Join(other, "image"), []byte("old"), 0o600)
		_ = os.Symlink(filepath.Join(other, "image"), filepath.Join(dir, "link"))
		if err := File(filepath.Join(dir, "link"), 0o644, text("new")); err != nil {
			t.Fatal(err)
		}
		if st, _ := os.Lstat(filepath.Join(dir, "link")); st.Mode().Type() != os.ModeSymlink {
			t.Error("the link is gone")
		}
		only(t, other, "image", "new")
	})
	t.Run("a link that leads nowhere is refused, and stays", func(t *testing.T) {
		dir := t.TempDir()
		name := filepath.Join(dir, "link")
		_ = os.Symlink(filepath.Join(dir, "nowhere"), name)
		if err := File(name, 0o644, text("new")); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "leads nowhere") {
			t.Errorf("the error is %v", err)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 || entries[0].Type() != os.ModeSymlink {
			t.Errorf("in the folder: %v, %v", entries, err)
		}
	})
	t.Run("a name may be as long as a name can be", func(t *testing.T) {
		dir, name := t.TempDir(), strings.Repeat("n", 255)
		if err := File(filepath.Join(dir, name), 0o644, text("new")); err != nil {
			t.Fatal(err)
		}
		only(t, dir, name, "new")
	})
	t.Run("a device or a folder is refused", func(t *testing.T) {
		for _, name := range []string{os.DevNull, t.TempDir()} {
			if err := File(name, 0o644, text("new")); err == nil || !strings.Contains(err.Error(), "not a regular file") {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// Each of these is a file system of its own, in a namespace of its own: this test again, inside it.
func TestFileSystemsThatRefuse(t *testing.T) {
	if dir := os.Getenv("NAMETAG_REFUSING"); dir != "" {
		err := File(filepath.Join(dir, "image"), 0o644, func(w *os.File) error {
			_, err := io.Copy(w, io.LimitReader(endless{}, 8<<20))
			return err
		})
		fmt.Printf("error: %v\n", err)
		entries, _ := os.ReadDir(dir)
		b, _ := os.ReadFile(filepath.Join(dir, "image"))
		fmt.Printf("left: %d %q\n", len(entries), b)
		return
	}
	t.Parallel()
	for _, tt := range []struct{ name, prepare, says string }{
		{"a full disk", "mount -t tmpfs -o size=1m none $D && echo -n old > $D/image", "no space left on device"},
		{"a read-only target", "mount -t tmpfs none $D && echo -n old > $D/image && mount -o remount,ro $D", "read-only file system"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			args := []string{"-m", "sh", "-ec", "D=" + t.TempDir() + "; " + tt.prepare + `; NAMETAG_REFUSING=$D exec "$0" -test.run '^TestFileSystemsThatRefuse$' -test.v`, os.Args[0]}
			if os.Geteuid() != 0 {
				args = append([]string{"-r"}, args...)
			}
			if err := exec.CommandContext(t.Context(), "unshare", append(args[:len(args)-4:len(args)-4], "sh", "-c", "mount -t tmpfs none "+t.TempDir())...).Run(); err != nil {
				if os.Getenv("CI") != "" {
					t.Fatalf("no mount namespace: %v", err)
				}
				t.Skipf("SKIPPED: no mount namespace here: %v", err)
			}
			out, err := exec.CommandContext(t.Context(), "unshare", args...).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			for _, want := range []string{tt.says, `left: 1 "old"`} {
				if !strings.Contains(string(out), want) {
					t.Errorf("want %q in:\n%s", want, out)
				}
			}
		})
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// owner is the owner and the group.
func owner(sys any) [2]uint32 {
	st, _ := sys.(*syscall.Stat_t)
	return [2]uint32{st.Uid, st.Gid}
}

func TestAFolderIsMadeAsAWholeOrNotAtAll(t *testing.T) {
	fill := func(text string, err error) func(string) error {
		return func(dir string) error {
			if merr := os.Mkdir(dir, 0o755); merr != nil {
				return merr
			}
			if werr := os.WriteFile(filepath.Join(dir, "a"), []byte(text), 0o600); werr != nil {
				return werr
			}
			return err
		}
	}
	at := t.TempDir()
	dir := filepath.Join(at, "layout")
	is := func(t *testing.T, want string) {
		t.Helper()
		if b, err := os.ReadFile(filepath.Join(dir, "a")); err != nil || string(b) != want {
			t.Errorf("in it: %q, %v", b, err)
		}
		if entries, err := os.ReadDir(at); err != nil || len(entries) != 1 {
			t.Errorf("beside it: %v, %v", entries, err)
		}
	}
	bad := errors.New("bad")
	for _, c := range []struct {
		text string
		err  error
		want string
	}{{"first", nil, "first"}, {"half", bad, "first"}, {"second", nil, "second"}} {
		if err := Folder(dir, fill(c.text, c.err)); !errors.Is(err, c.err) {
			t.Errorf("%s: %v", c.text, err)
		}
		is(t, c.want)
	}
	if err := os.WriteFile(filepath.Join(dir, "left"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Folder(dir, fill("third", nil)); err != nil {
		t.Fatal(err)
	}
	is(t, "third")
	if _, err := os.Stat(filepath.Join(dir, "left")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was in it is not gone: %v", err)
	}
	if st, err := os.Stat(filepath.Join(dir, "a")); err != nil || st.Mode() != 0o644 {
		t.Errorf("its mode is %v, %v", st.Mode(), err)
	}
}
