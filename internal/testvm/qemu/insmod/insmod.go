//go:build linux

// Package insmod loads modules in a guest of ours, before there is anything that would.
package insmod

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// All loads the modules of a folder, *.ko, in the order of their names. One that is loaded already is as good.
func All(dir string) error {
	modules, err := filepath.Glob(filepath.Join(dir, "*.ko"))
	if err != nil {
		return err
	}
	for _, name := range modules {
		if err := load(name); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("loading %s: %w", name, err)
		}
	}
	return nil
}

func load(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()                             //nolint:errcheck // opened for reading
	return unix.FinitModule(int(f.Fd()), "", 0) //nolint:gosec // a descriptor
}
