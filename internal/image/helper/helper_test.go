//go:build linux

package helper_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nametag-boot/nametag/internal/image/helper"
	"github.com/nametag-boot/nametag/internal/testvm/helpertest"
)

func TestAHelperIsKnownByItsHeaders(t *testing.T) {
	dir := helpertest.Build(t)
	for _, architecture := range helper.Architectures() {
		b, err := helper.Check(filepath.Join(dir, "nametag-linux-"+architecture))
		if err != nil {
			t.Fatal(err)
		}
		if b.Architecture != architecture || b.Size < 1<<20 {
			t.Errorf("%s: %+v", architecture, b)
		}
	}
}

// write puts a file into a folder of the test's own.
func write(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWhatIsNoHelperIsRefused(t *testing.T) {
	good, err := os.ReadFile(filepath.Join(helpertest.Build(t), "nametag-linux-amd64"))
	if err != nil {
		t.Fatal(err)
	}
	patched := func(at int, b ...byte) []byte {
		c := append([]byte(nil), good...)
		copy(c[at:], b)
		return c
	}
	shell, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal(err)
	}
	for _, scenario := range []struct{ name, path, says string }{
		{"a script", write(t, "nametag", []byte("#!/bin/sh\n")), "is not a Linux program"},
		{"an empty file", write(t, "nametag", nil), "is not a Linux program"},
		{"the first kilobyte of one", write(t, "nametag", good[:1024]), "is not a Linux program"},
		{"a program for RISC-V", write(t, "nametag", patched(0x12, 0xf3, 0)), "neither amd64 nor arm64"},
		{"an object file", write(t, "nametag", patched(0x10, 1, 0)), "is not an executable"},
		{"a folder", t.TempDir(), "is not a regular file"},
		{"a program that needs a loader", shell, "dynamically linked"},
		{"another static Go program", other(t), "not nametag"},
	} {
		t.Run(scenario.name, func(t *testing.T) {
			_, err := helper.Check(scenario.path)
			var typed *helper.Error
			if !errors.As(err, &typed) || !strings.Contains(err.Error(), scenario.says) {
				t.Errorf("got %v, want one that says %q", err, scenario.says)
			}
		})
	}
}

// other is a static Go program that is not nametag.
func other(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "other")
	build := exec.Command("go", "build", "-o", path, "../../../examples/resolve")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	return path
}

// place puts a helper at a path.
func place(t *testing.T, helper, to string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(helper, to); err != nil {
		t.Fatal(err)
	}
}

// architectures is those of the helpers, in order, with their paths below a folder.
func architectures(found []helper.Binary, below string) string {
	var s []string
	for _, b := range found {
		at, _ := filepath.Rel(below, b.Path)
		s = append(s, b.Architecture+":"+at)
	}
	return strings.Join(s, " ")
}

func TestWhereHelpersAreFound(t *testing.T) {
	cache := helpertest.Build(t)
	// A link does not go from one file system to another.
	dir, err := os.MkdirTemp(filepath.Dir(cache), "helper-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	at := func(p string) string { return filepath.Join(dir, p) }
	amd64, arm64 := filepath.Join(cache, "nametag-linux-amd64"), filepath.Join(cache, "nametag-linux-arm64")
	place(t, amd64, at("release/nametag-linux-amd64"))
	place(t, arm64, at("release/nametag-linux-arm64"))
	place(t, amd64, at("cross/amd64/nametag"))
	place(t, arm64, at("cross/arm64/nametag"))
	place(t, amd64, at("build/nametag"))
	place(t, arm64, at("wrong/nametag-linux-amd64"))

	for _, scenario := range []struct {
		name   string
		choice helper.Choice
		only   []string
		beside string
		found  string
		says   string
	}{
		{name: "as a release has them", beside: "release", found: "amd64:release/nametag-linux-amd64 arm64:release/nametag-linux-arm64"},
		{name: "as make cross has them, beside bin/amd64/nametagctl", beside: "cross/amd64", found: "amd64:cross/amd64/nametag arm64:cross/arm64/nametag"},
		{name: "as make build has it", beside: "build", found: "amd64:build/nametag"},
		{name: "the one that is asked for", beside: "release", only: []string{"arm64"}, found: "arm64:release/nametag-linux-arm64"},
		{name: "a folder that is named", choice: helper.Choice{Path: at("release")}, beside: "build", found: "amd64:release/nametag-linux-amd64 arm64:release/nametag-linux-arm64"},
		{name: "a file that is named, and its header tells", choice: helper.Choice{Path: at("wrong/nametag-linux-amd64")}, beside: "release", found: "arm64:wrong/nametag-linux-amd64"},
		{name: "one that is named, and no other", choice: helper.Choice{Files: map[string]string{"amd64": at("build/nametag")}}, beside: "release", found: "amd64:build/nametag"},
		{name: "one that is named, and a folder for the rest", choice: helper.Choice{Path: at("release"), Files: map[string]string{"amd64": at("build/nametag")}}, beside: "build", found: "amd64:build/nametag arm64:release/nametag-linux-arm64"},

		{name: "none at all", beside: "nowhere/x", says: "build it with `make cross`"},
		{name: "not the one that is asked for", beside: "build", only: []string{"arm64"}, says: "no nametag for arm64"},
		{name: "a wrong one under a right name", beside: "wrong", only: []string{"amd64"}, says: "is for arm64"},
		{name: "one that is named for another architecture", choice: helper.Choice{Files: map[string]string{"arm64": at("build/nametag")}}, beside: "release", says: "is for amd64, not for arm64"},
		{name: "an architecture that there is not", beside: "release", only: []string{"riscv64"}, says: "choose amd64, arm64"},
	} {
		t.Run(scenario.name, func(t *testing.T) {
			found, err := scenario.choice.Resolve(scenario.only, at(scenario.beside))
			if scenario.says != "" {
				if err == nil || !strings.Contains(err.Error(), scenario.says) {
					t.Errorf("got %v, want an error that says %q", err, scenario.says)
				}
				return
			}
			if got := architectures(found, dir); err != nil || got != scenario.found {
				t.Errorf("got %s, %v; want %s", got, err, scenario.found)
			}
		})
	}
	t.Run("a missing one is an fs.ErrNotExist", func(t *testing.T) {
		if _, err := helper.Find("amd64", at("nowhere")); !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	})
}
