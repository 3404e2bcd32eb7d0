//go:build linux

package memory

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestANameIsReadAsItWasWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "var/lib/nametag/name.json")
	first := Name{Hostname: "web-1.example.com", InstanceID: "42", Since: time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)}
	if err := first.Write(path); err != nil {
		t.Fatal(err)
	}
	if got, err := Read(path); err != nil || got != first {
		t.Fatalf("%+v, %v", got, err)
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	again := first
	again.Since = first.Since.Add(time.Hour)
	if err := again.Write(path); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
		t.Errorf("the same name was written again: %v", err)
	}
	other := Name{Hostname: "web-2", InstanceID: "42"}
	if err := other.Write(path); err != nil {
		t.Fatal(err)
	}
	if got, err := Read(path); err != nil || got != other {
		t.Errorf("%+v, %v", got, err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("beside it: %v, %v", entries, err)
	}
}

func TestWhatIsNoNameIsNotWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "name.json")
	for _, n := range []Name{{}, {Hostname: "web-1"}, {InstanceID: "42"}, {Hostname: "web_1", InstanceID: "42"}} {
		if err := n.Write(path); err == nil {
			t.Errorf("%+v was written", n)
		}
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file is there: %v", err)
	}
}

func TestAFileThatHoldsNoName(t *testing.T) {
	dir := t.TempDir()
	if _, err := Read(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if got := RecallFile(dir, "42"); got != (Recall{}) {
		t.Errorf("no file: %+v", got)
	}
	path := filepath.Join(dir, Path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty": "", "cut in the middle": `{"schema":1,"hostname":"we`, "noise": "\x00\xff\x01", "another schema": `{"schema":2,"hostname":"web-1","instance_id":"42"}`,
		"no name": `{"schema":1,"instance_id":"42"}`, "no instance": `{"schema":1,"hostname":"web-1"}`, "not a host name": `{"schema":1,"hostname":"a b","instance_id":"42"}`,
		"2 MiB": `{"schema":1,"hostname":"web-1","instance_id":"42"}` + strings.Repeat(" ", 2<<20),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := Read(path)
		if got != (Name{}) || err == nil || name != "2 MiB" && !errors.Is(err, ErrUnusable) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if r := RecallFile(dir, "42"); r.Known() || r.Why == "" {
			t.Errorf("%s: %+v", name, r)
		}
		if err := (Name{Hostname: "web-1", InstanceID: "42"}).Write(path); err != nil {
			t.Errorf("%s: it cannot be written over: %v", name, err)
		}
		if r := RecallFile(dir, "42"); !r.Known() || r.From != path {
			t.Errorf("%s: written over: %+v", name, r)
		}
	}
}

// In an initramfs a /var of its own is not there yet: what is seen is what lies below it.
func TestANameIsFoundAtEitherOfItsPlaces(t *testing.T) {
	ours, older, others := Name{Hostname: "web-1", InstanceID: "42"}, Name{Hostname: "web-0", InstanceID: "42"}, Name{Hostname: "web-9", InstanceID: "43"}
	newer := ours
	newer.Since = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tt := range []struct {
		name            string
		early, late     Name
		damaged         string
		hostname, where string
	}{
		{"both", ours, ours, "", "web-1", Early},
		{"the root alone is there", ours, Name{}, "", "web-1", Early},
		{"an older one below what is mounted later", ours, older, "", "web-1", Early},
		{"another machine's below what is mounted later", ours, others, "", "web-1", Early},
		{"an older one in an /etc that has become read-only", older, newer, "", "web-1", Path},
		{"another machine's in /etc", others, ours, "", "web-1", Path},
		{"before there were two places", Name{}, ours, "", "web-1", Path},
		{"damaged", Name{}, ours, Early, "web-1", Path},
		{"another machine's alone", others, others, "", "web-9", Early},
		{"another machine's, and a damaged one", Name{}, others, Early, "web-9", Path},
	} {
		root := t.TempDir()
		for path, n := range map[string]Name{Early: tt.early, Path: tt.late} {
			if n == (Name{}) {
				continue
			}
			if err := n.Write(filepath.Join(root, path)); err != nil {
				t.Fatal(err)
			}
		}
		if tt.damaged != "" {
			path := filepath.Join(root, tt.damaged)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		if r := RecallFile(root, "42"); r.Name.Hostname != tt.hostname || r.From != filepath.Join(root, tt.where) {
			t.Errorf("%s: %+v", tt.name, r)
		}
	}
}

func TestANameIsRememberedAtBothPlaces(t *testing.T) {
	root := t.TempDir()
	if err := (Name{Hostname: "web-1", InstanceID: "42"}).Remember(root); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{Early, Path} {
		if n, err := Read(filepath.Join(root, path)); err != nil || n.Hostname != "web-1" {
			t.Errorf("%s: %+v, %v", path, n, err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (Name{Hostname: "web-1", InstanceID: "42"}).Remember(filepath.Join(root, "file")); err == nil {
		t.Error("nothing was written, and nobody is told")
	}
}
