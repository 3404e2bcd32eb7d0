// Package helpertest builds the helper as it ships, for tests that put it somewhere.
package helpertest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Build returns the folder that has nametag-linux-amd64 and nametag-linux-arm64. It is made once for all tests: Go leaves
// what is up to date as it is.
func Build(t testing.TB) string {
	t.Helper()
	mod, err := exec.CommandContext(t.Context(), "go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatal(err)
	}
	repo := filepath.Dir(strings.TrimSpace(string(mod)))
	dir := filepath.Join(repo, ".cache/helper")
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // a cache for every user
		t.Fatal(err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644) //nolint:gosec // a cache for every user
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil { //nolint:gosec // a descriptor
		t.Fatal(err)
	}
	for _, architecture := range []string{"amd64", "arm64"} {
		build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-tags=nethttpomithttp2",
			"-o", filepath.Join(dir, "nametag-linux-"+architecture), "./cmd/nametag")
		build.Dir = repo
		build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+architecture, "GOFLAGS=-buildvcs=false")
		if output, err := build.CombinedOutput(); err != nil {
			t.Fatalf("building the helper for %s: %v\n%s", architecture, err, output)
		}
	}
	return dir
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
		if err := os.WriteFile(filepath.Join(dir, "nametag-linux-"+architecture), b.Bytes(), 0o755); err != nil { //nolint:gosec // a program
			t.Fatal(err)
		}
	}
	return dir
}
