package talos_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// careless is the binary of guest/careless: a helper that does one thing wrong.
func careless(t *testing.T) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "careless")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, "./guest/careless")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	return out
}
