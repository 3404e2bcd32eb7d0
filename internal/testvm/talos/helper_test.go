package talos_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/nametag-boot/nametag/internal/testvm/qemu"
)

// careless is the binary of guest/careless: a helper that does one thing wrong.
func careless(t *testing.T) string {
	t.Helper()
	return build(t, qemu.AMD64, "./guest/careless")
}

// build is a program's binary for the guest.
func build(t *testing.T, arch qemu.Arch, program string, flags ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), filepath.Base(program))
	args := append([]string{"build", "-trimpath", "-ldflags=-s -w", "-o", out}, flags...)
	build := exec.CommandContext(t.Context(), "go", append(args, program)...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+string(arch), "GOFLAGS=")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	return out
}
