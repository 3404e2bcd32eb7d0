package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// writePackages makes the packages for Linux distributions, by the module below this one: what makes packages is heavy.
func writePackages(dir, version string) error {
	repo, err := os.Getwd() // as the release runs
	if err != nil {
		return err
	}
	dist, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	cmd := exec.Command("go", "run", "-C", "internal/release/packages", ".", "-repo", repo, "-dist", dist, "-version", version) //nolint:gosec,noctx // our own
	cmd.Env = append(os.Environ(), "GOWORK=off", "SOURCE_DATE_EPOCH="+sourceDate())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("packages: %w\n%s", err, out)
	}
	return nil
}
