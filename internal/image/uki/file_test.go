//go:build unix

package uki

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

func TestAFileIsReplacedInOneStep(t *testing.T) {
	name := fake{parts: usual}.file(t)
	link := filepath.Join(filepath.Dir(name), "link")
	if err := os.Symlink(filepath.Base(name), link); err != nil {
		t.Fatal(err)
	}
	if _, err := EditFile(t.Context(), link, link, Edit{CommandLine: appending("a=b")}); err != nil {
		t.Fatal(err)
	}
	m, f, err := OpenFile(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if text, err := m.Text(m.Find(".cmdline")[0]); err != nil || !strings.HasSuffix(text, " a=b") {
		t.Errorf("%q, %v", text, err)
	}
	if st, err := f.Stat(); err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if st, err := os.Lstat(link); err != nil || st.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is one no more: %v, %v", st.Mode(), err)
	}
	alone(t, name, "link")
}

func TestWhereAnEditFailsTheTargetIsUnharmed(t *testing.T) {
	cause := errors.New("no space left on device")
	for name, c := range map[string]struct {
		image fake
		edit  Edit
	}{
		"in the middle of the initramfs": {fake{parts: usual}, Edit{Initramfs: func(_ context.Context, w io.Writer, _ *io.SectionReader) error {
			_, _ = w.Write(make([]byte, 1<<20))
			return cause
		}}},
		"for a signature": {fake{parts: usual, signature: []byte{16, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0}}, Edit{CommandLine: appending("a")}},
		"for a bad image": {fake{}, Edit{}},
	} {
		t.Run(name, func(t *testing.T) {
			file := c.image.file(t)
			before, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := EditFile(t.Context(), file, file, c.edit); err == nil || !strings.HasPrefix(err.Error(), file+": ") {
				t.Errorf("%v", err)
			}
			if after, err := os.ReadFile(file); err != nil || !bytes.Equal(before, after) {
				t.Errorf("changed: %v", err)
			}
			alone(t, file)
		})
	}
	t.Run("for a target that is a folder", func(t *testing.T) {
		if _, err := EditFile(t.Context(), fake{parts: usual}.file(t), t.TempDir(), Edit{}); err == nil {
			t.Error("no error")
		}
	})
	t.Run("for an image that is a folder", func(t *testing.T) {
		if _, err := EditFile(t.Context(), t.TempDir(), "out", Edit{}); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%v", err)
		}
	})
}

// alone checks that nothing is left in a file's folder.
func alone(t *testing.T, name string, but ...string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(name))
	if err != nil || len(entries) != 1+len(but) {
		t.Errorf("%v, %v", entries, err)
	}
}

// A section of any size goes through a small buffer.
func TestABigImageTakesNoMoreMemory(t *testing.T) {
	name := fake{parts: usual}.file(t)
	const size = 100 << 20
	block := make([]byte, 1<<20)
	grow := func(_ context.Context, w io.Writer, _ *io.SectionReader) error {
		for range size / len(block) {
			if _, err := w.Write(block); err != nil {
				return err
			}
		}
		return nil
	}
	if _, err := EditFile(t.Context(), name, name, Edit{Initramfs: grow}); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	result, err := EditFile(t.Context(), name, name, Edit{CommandLine: appending("a=b")})
	runtime.ReadMemStats(&after)
	if err != nil || result.Size < size {
		t.Fatalf("%+v, %v", result, err)
	}
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 4<<20 {
		t.Errorf("%d bytes", allocated)
	}
}

func TestAReplacedFileKeepsItsModeAndOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("skipped: only root can give files away")
	}
	in, out := fake{parts: usual}.file(t), filepath.Join(t.TempDir(), "out.efi")
	if err := os.WriteFile(out, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(out, 65534, 65533); err != nil {
		t.Fatal(err)
	}
	if _, err := EditFile(t.Context(), in, out, Edit{CommandLine: appending("a=b")}); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(out)
	if err != nil {
		t.Fatal(err)
	}
	if of := st.Sys().(*syscall.Stat_t); of.Uid != 65534 || of.Gid != 65533 || st.Mode().Perm() != 0o600 {
		t.Errorf("it is %d:%d's, mode %v", of.Uid, of.Gid, st.Mode())
	}
}
