//go:build linux

// Package helpertest builds the helper as it ships, for tests that put it somewhere.
package helpertest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/image/helper"
	"github.com/nametag-boot/nametag/internal/release/ship"
	"github.com/nametag-boot/nametag/internal/testvm/netns"
	"github.com/nametag-boot/nametag/internal/testvm/overlay"
)

// Build returns the folder that has nametag-linux-amd64 and nametag-linux-arm64.
func Build(t testing.TB) string {
	t.Helper()
	return build(t, helper.Architectures()...)
}

// Binary returns the file for one architecture.
func Binary(t testing.TB, architecture string) string {
	t.Helper()
	return filepath.Join(build(t, architecture), name(architecture))
}

func name(architecture string) string { return "nametag-linux-" + architecture }

// made is what this process has seen to in the cache.
var made struct {
	sync.Mutex
	cache         string
	architectures []string
}

// build returns the folder that has the helpers of the architectures. That is the checkout's cache, where they are made
// once for the tests of all packages; where there is none, a folder of the test's own.
func build(t testing.TB, architectures ...string) string {
	t.Helper()
	made.Lock()
	defer made.Unlock()
	missing := slices.DeleteFunc(slices.Clone(architectures), func(a string) bool { return slices.Contains(made.architectures, a) })
	if len(missing) == 0 {
		return made.cache
	}
	dir, unlock := cache(t)
	if unlock == nil {
		dir, missing = t.TempDir(), architectures
	} else {
		defer unlock()
	}
	for _, architecture := range missing {
		one(t, ship.Build{
			Command: "cmd/nametag", Node: true, Arch: architecture, Output: filepath.Join(dir, name(architecture)),
		})
	}
	if unlock != nil {
		made.cache, made.architectures = dir, append(made.architectures, missing...)
	}
	return dir
}

// module is this checkout's go.mod, and Go's cache of modules.
func module(t testing.TB) (file, cache string) {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		netns.Missing(t, "the go command is not there to build the helper")
	}
	env, err := exec.CommandContext(t.Context(), "go", "env", "GOMOD", "GOMODCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	file, cache, _ = strings.Cut(strings.TrimSpace(string(env)), "\n")
	return file, cache
}

// cache is the checkout's, locked. unlock is nil where there is none: in a checkout that this user cannot write to, and in
// Go's cache of modules, which has to stay what it is.
func cache(t testing.TB) (dir string, unlock func()) {
	t.Helper()
	file, modules := module(t)
	if strings.HasPrefix(file, modules+"/") {
		return "", nil
	}
	dir = filepath.Join(filepath.Dir(file), ".cache/helper")
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // a cache for every user
		t.Log(err)
		return "", nil
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644) //nolint:gosec // a cache for every user
	if err != nil {
		t.Log(err)
		return "", nil
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil { //nolint:gosec // a descriptor
		_ = lock.Close()
		t.Fatal(err)
	}
	return dir, func() { _ = lock.Close() }
}

// one makes one helper, in a way that lets go test keep a test's result until the helper is another. It does so by the
// files that the test has looked at, with their times, and sees neither what the go command reads nor package unix.
func one(t testing.TB, b ship.Build) {
	t.Helper()
	sources, err := b.Sources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, source := range sources {
		_, _ = os.Stat(source)
	}
	var before, after unix.Stat_t
	there := unix.Stat(b.Output, &before) == nil
	if err := b.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if there && unix.Stat(b.Output, &after) == nil && after.Ino == before.Ino { // it was up to date
		_ = unix.UtimesNanoAt(unix.AT_FDCWD, b.Output, []unix.Timespec{before.Atim, before.Mtim}, 0)
	}
}

// Changed builds a helper for one architecture of sources in which one text is another: to show what a fault comes to in a
// boot. file is its path in the checkout, which stays as it is.
func Changed(t testing.TB, architecture, file, before, after string) string {
	t.Helper()
	mod, _ := module(t)
	dir := t.TempDir()
	list, err := overlay.Change(dir, filepath.Join(filepath.Dir(mod), file), before, after)
	if err != nil {
		t.Fatal(err)
	}
	output := filepath.Join(dir, name(architecture))
	one(t, ship.Build{Command: "cmd/nametag", Node: true, Arch: architecture, Output: output, Env: []string{"GOFLAGS=-overlay=" + list}})
	return output
}

// StandIn returns a folder of programs that pass for helpers and do nothing: a header for each architecture. It is for
// tests to which it is all the same what a helper does.
func StandIn(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for architecture, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		header := elf.Header64{
			Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
			Type:  uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT), Ehsize: 64,
		}
		var b bytes.Buffer
		if err := binary.Write(&b, binary.LittleEndian, header); err != nil {
			t.Fatal(err)
		}
		b.WriteString(strings.Repeat("stands in for nametag on "+architecture+"\n", 1000))
		if err := os.WriteFile(filepath.Join(dir, name(architecture)), b.Bytes(), 0o755); err != nil { //nolint:gosec // a program
			t.Fatal(err)
		}
	}
	return dir
}

// Copy copies a file for everybody to run: a program, as a rule.
func Copy(t testing.TB, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755) //nolint:gosec // another user may run it
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
