//go:build linux

package replace

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// both are the two ways to write, which differ in what a power cut leaves, and in nothing else.
var both = map[string]func(path, text string) error{
	"in memory": func(path, text string) error { return File(path, []byte(text)) },
	"on a disk": func(path, text string) error { return Durably(path, []byte(text)) },
}

func TestAFileIsWrittenWholeOrNotAtAll(t *testing.T) {
	for way, write := range both {
		t.Run(way, func(t *testing.T) {
			t.Run("for everybody to read, whatever the umask, with its folders", func(t *testing.T) {
				old := syscall.Umask(0o077)
				defer syscall.Umask(old)
				at := t.TempDir()
				name := filepath.Join(at, "a", "b", "file")
				for _, text := range []string{"one", "two"} {
					if err := write(name, text); err != nil {
						t.Fatal(err)
					}
					holds(t, name, text)
				}
				for path, want := range map[string]fs.FileMode{name: 0o644, filepath.Join(at, "a", "b"): 0o755 | fs.ModeDir, filepath.Join(at, "a"): 0o755 | fs.ModeDir} {
					if st, err := os.Stat(path); err != nil || st.Mode() != want {
						t.Errorf("%s: %v, %v", path, st.Mode(), err)
					}
				}
			})
			t.Run("a folder that is there stays as it is", func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "own")
				if err := os.Mkdir(dir, 0o700); err != nil {
					t.Fatal(err)
				}
				if err := write(filepath.Join(dir, "file"), "text"); err != nil {
					t.Fatal(err)
				}
				if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
					t.Errorf("%v, %v", st.Mode(), err)
				}
			})
			t.Run("other names of the old file keep what they had", func(t *testing.T) {
				dir := t.TempDir()
				name, other := filepath.Join(dir, "file"), filepath.Join(dir, "other")
				if err := errors.Join(os.WriteFile(name, []byte("old"), 0o600), os.Link(name, other), write(name, "new")); err != nil {
					t.Fatal(err)
				}
				holds(t, other, "old")
				holds(t, name, "new")
			})
			t.Run("what a killed writer left is no obstacle, nor is a link put in its place followed", func(t *testing.T) {
				dir, victim := t.TempDir(), filepath.Join(t.TempDir(), "victim")
				err := errors.Join(os.WriteFile(victim, []byte("keep"), 0o600), os.Symlink(victim, filepath.Join(dir, ".file.new")), write(filepath.Join(dir, "file"), "new"))
				if err != nil {
					t.Fatal(err)
				}
				holds(t, victim, "keep")
				alone(t, dir, "file")
			})
			t.Run("where it cannot be in its place, nothing is left", func(t *testing.T) {
				dir := t.TempDir()
				name := filepath.Join(dir, "file")
				if err := os.Mkdir(name, 0o755); err != nil { // nothing can be renamed onto a folder
					t.Fatal(err)
				}
				if err := write(name, "new"); !errors.Is(err, fs.ErrExist) && !errors.Is(err, syscall.EISDIR) {
					t.Errorf("%v", err)
				}
				alone(t, dir, "file")
			})
			t.Run("where a file is in a folder's place, the error says so", func(t *testing.T) {
				name := filepath.Join(t.TempDir(), "file")
				if err := os.WriteFile(name, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				if err := write(filepath.Join(name, "below"), "new"); !errors.Is(err, syscall.ENOTDIR) {
					t.Errorf("%v", err)
				}
			})
			t.Run("who reads meanwhile sees one or the other", func(t *testing.T) {
				name := filepath.Join(t.TempDir(), "file")
				if err := write(name, "one"); err != nil {
					t.Fatal(err)
				}
				var writing sync.WaitGroup
				writing.Go(func() {
					for i := range 100 {
						if err := write(name, []string{"one", "two"}[i%2]); err != nil {
							t.Error(err)
						}
					}
				})
				for range 100 {
					if got, err := os.ReadFile(name); err != nil || string(got) != "one" && string(got) != "two" {
						t.Errorf("%q, %v", got, err)
					}
				}
				writing.Wait()
			})
		})
	}
}

func TestAFileIsPreparedBeforeItIsInItsPlace(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	prepared := 0
	prepare := func(f *os.File) {
		prepared++
		if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("it is there already: %v", err)
		}
		holds(t, f.Name(), "text")
	}
	if err := Durably(name, []byte("text"), prepare, prepare); err != nil || prepared != 2 {
		t.Errorf("prepared %d times: %v", prepared, err)
	}
}

// holds checks a file's content.
func holds(t *testing.T, name, want string) {
	t.Helper()
	if got, err := os.ReadFile(name); err != nil || string(got) != want {
		t.Errorf("%s: %q, %v; want %q", filepath.Base(name), got, err, want)
	}
}

// alone checks that a folder has one name in it.
func alone(t *testing.T, dir, name string) {
	t.Helper()
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 || left[0].Name() != name {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
