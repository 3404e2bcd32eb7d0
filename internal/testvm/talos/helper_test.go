//go:build linux

package talos_test

import (
	"path/filepath"
	"testing"

	"github.com/nametag-boot/nametag/internal/release/ship"
	"github.com/nametag-boot/nametag/internal/testvm/qemu"
)

// careless is the binary of guest/careless: a helper that does one thing wrong.
func careless(t *testing.T) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "careless")
	build := ship.Build{Command: "internal/testvm/talos/guest/careless", Arch: string(qemu.AMD64), Output: out}
	if err := build.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	return out
}
