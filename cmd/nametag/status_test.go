//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/internal/node/lasting"
	"github.com/nametag-boot/nametag/internal/node/memory"
	"github.com/nametag-boot/nametag/internal/node/record"
)

func TestTheStatusTellsOutcomesApart(t *testing.T) {
	here, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		record *record.Record
		static string // what /etc/hostname says
		mark   string // what nametag has written there
		code   int
	}{
		{"no record", nil, "", "", exitUnnamed},
		{"a record of another boot", &record.Record{Identity: identity.Identity{Hostname: here}, BootID: "another"}, "", "", exitUnnamed},
		{"the name is in effect", &record.Record{Identity: identity.Identity{Hostname: here}}, here, here, exitOK},
		{"the name is in effect, and pinned", &record.Record{Identity: identity.Identity{Hostname: here}}, here, "", exitOK},
		{"another name is in effect", &record.Record{Identity: identity.Identity{Hostname: "not-" + here}}, "not-" + here, "not-" + here, exitRenamed},
		{"another one than the operator's and than nametag's", &record.Record{Identity: identity.Identity{Hostname: "not-" + here}}, "by-hand", "", exitRenamed},
		{"an operator's that came after nametag's", &record.Record{Identity: identity.Identity{Hostname: "not-" + here}}, here, "", exitOperator},
		{"an operator's that was there before", nil, here, "", exitOperator},
		{"an operator's, and a record of another boot", &record.Record{Identity: identity.Identity{Hostname: "not-" + here}, BootID: "another"}, here, "", exitOperator},
		{"an operator's that is not in effect", nil, "by-hand", "", exitUnnamed},
		{"nametag's, from an earlier boot", nil, here, here, exitUnnamed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, root := t.TempDir(), t.TempDir()
			if tt.record != nil {
				tt.record.Schema = record.Schema
				if err := tt.record.Write(filepath.Join(dir, "nametag/identity.json")); err != nil {
					t.Fatal(err)
				}
			}
			for name, content := range map[string]string{lasting.File: tt.static, lasting.Mark: tt.mark} {
				if content == "" {
					continue
				}
				name = filepath.Join(root, name)
				if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(content+"\n"), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			code, out, complaint := said(t, "status", "--run", dir, "--root", root)
			if code != tt.code || (complaint == "") != (tt.code == exitOK) {
				t.Errorf("status %d, want %d:\n%s%s", code, tt.code, out, complaint)
			}
			if tt.code == exitOK && !strings.HasPrefix(out, here+"\n") {
				t.Errorf("it prints %q", out)
			}
			code, out, _ = said(t, "status", "--json", "--run", dir, "--root", root)
			var s situation
			if err := json.Unmarshal([]byte(out), &s); err != nil || code != tt.code || s.Hostname != here || s.InEffect != (tt.code == exitOK) {
				t.Errorf("as JSON: status %d, %v:\n%s", code, err, out)
			}
		})
	}
}

func TestANameThatIsRememberedIsShownAsSuch(t *testing.T) {
	here, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	r := record.Record{Schema: record.Schema, Identity: identity.Identity{Hostname: here, Source: memory.Source}, KnownSince: time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)}
	if err := r.Write(filepath.Join(dir, "nametag/identity.json")); err != nil {
		t.Fatal(err)
	}
	if code, out, _ := said(t, "status", "--run", dir, "--root", t.TempDir()); code != exitOK || !strings.Contains(out, "since 2026-11-29T12:00:00Z") {
		t.Errorf("status %d:\n%s", code, out)
	}
	_, out, _ := said(t, "status", "--json", "--run", dir, "--root", t.TempDir())
	var s situation
	if err := json.Unmarshal([]byte(out), &s); err != nil || s.Record.Source != memory.Source || !s.Record.KnownSince.Equal(r.KnownSince) {
		t.Errorf("as JSON, %v:\n%s", err, out)
	}
}

func TestAPinnedNameIsShown(t *testing.T) {
	root := t.TempDir()
	if code, _, _ := said(t, "pin", "--root", root); code != exitFailed {
		t.Errorf("without a name to pin: status %d", code)
	}
	if _, err := lasting.Root(root).Keep("web-1", t.TempDir()); err != nil {
		t.Fatal(err)
	}
	pinned := func() bool {
		_, out, _ := said(t, "status", "--json", "--run", t.TempDir(), "--root", root)
		var s situation
		if err := json.Unmarshal([]byte(out), &s); err != nil || s.Static != "web-1" {
			t.Fatalf("%v: %s", err, out)
		}
		return s.Pinned
	}
	if pinned() {
		t.Error("pinned before anybody did so")
	}
	if code, out, _ := said(t, "pin", "--root", root); code != exitOK || !strings.Contains(out, "web-1") || !pinned() {
		t.Errorf("status %d: %s", code, out)
	}
	if code, _, _ := said(t, "pin", "--undo", "--root", root); code != exitOK || pinned() {
		t.Errorf("undone: status %d", code)
	}
}

func TestWhatIsNoUsageOfTheServiceCommands(t *testing.T) {
	for _, args := range [][]string{
		{"apply", "web-1"}, {"apply", "--wait", "90"}, {"apply", "--no-such"}, {"status", "web-1"}, {"pin", "web-1"}, {"pin", "--no-such"},
	} {
		if code, _, complaint := said(t, args...); code != exitUsage || complaint == "" {
			t.Errorf("%q: status %d: %s", args, code, complaint)
		}
	}
	for _, name := range []string{"apply", "status", "pin"} {
		if code, out, _ := said(t, name, "--help"); code != exitOK || !strings.Contains(out, "Usage:") {
			t.Errorf("%s --help: status %d: %s", name, code, out)
		}
	}
}

func TestAServiceWithoutAnArgumentDoesNothing(t *testing.T) {
	if line, err := os.ReadFile("/proc/cmdline"); err != nil || strings.Contains(string(line), "nametag") || strings.Contains(string(line), "talos.") {
		t.Skip("this machine's kernel command line may ask for a name")
	}
	root := t.TempDir()
	code, _, complaint := said(t, "apply", "--root", root)
	if code != exitOK || !strings.Contains(complaint, "nothing to do") {
		t.Errorf("status %d: %s", code, complaint)
	}
	if left, _ := os.ReadDir(root); len(left) != 0 {
		t.Errorf("it left %v", left)
	}
}
