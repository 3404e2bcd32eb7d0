//go:build linux

package qemu

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Deps is what the machines are made of, as hack/vm-deps fetched it.
type Deps struct {
	Arch  Arch
	Cache string // .cache/vm, for what is made once
	Root  string // the unpacked packages of the guest's architecture
	tools string // those of this machine's
	Repo  string // the top of this repository
}

// Need returns what machines of the architecture are made of; "" is AMD64. Where it is missing the test is skipped,
// loudly; under CI=true it fails.
func Need(t testing.TB, arch Arch) Deps {
	t.Helper()
	d, err := Find(arch)
	if err == nil {
		return d
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("no virtual machines: %v", err)
	}
	t.Skipf("NO VIRTUAL MACHINES: %v", err)
	return Deps{}
}

// Find is Need without a test: what is missing is an error.
func Find(arch Arch) (Deps, error) {
	if arch == "" {
		arch = AMD64
	}
	m, ok := machineTypes[arch]
	if !ok {
		return Deps{}, fmt.Errorf("no machine of the architecture %s", arch)
	}
	if _, err := exec.LookPath(m.emulator); err != nil {
		return Deps{}, fmt.Errorf("%s is missing: run hack/vm-deps as root, or apt-get install %s", m.emulator, m.emulatorPackage)
	}
	repo, err := repository()
	if err != nil {
		return Deps{}, err
	}
	d := Deps{Arch: arch, Cache: filepath.Join(repo, ".cache/vm"), Repo: repo}
	d.Root = filepath.Join(d.Cache, string(arch), "root")
	d.tools = filepath.Join(d.Cache, "amd64/root")
	if _, err := d.Release(); err != nil {
		return Deps{}, fmt.Errorf("the guest's kernel is missing: run hack/vm-deps (%w)", err)
	}
	for _, file := range []string{filepath.Join(d.Root, m.firmware), filepath.Join(d.tools, mksquashfs)} {
		if _, err := os.Stat(file); err != nil {
			return Deps{}, fmt.Errorf("a package is missing: run hack/vm-deps (%w)", err)
		}
	}
	return d, nil
}

// repository is the folder above the working directory, a package's own in tests, that has the go.mod.
func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.Contains(string(b), "module github.com/nametag-boot/nametag\n") {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("not inside the nametag repository")
		}
		dir = up
	}
}

// Release is the kernel's, as uname -r gives it.
func (d Deps) Release() (string, error) {
	found, err := filepath.Glob(filepath.Join(d.Root, "boot/vmlinuz-*"))
	if err != nil {
		return "", err
	}
	if len(found) != 1 {
		return "", fmt.Errorf("%d kernels in %s/boot", len(found), d.Root)
	}
	return strings.TrimPrefix(filepath.Base(found[0]), "vmlinuz-"), nil
}

// Lock keeps other tests, of this process and of others, from making the same images at the same time, until unlock.
func (d Deps) Lock() (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(d.Cache, "images.lock"), os.O_CREATE|os.O_RDWR, 0o644) //nolint:gosec // a cache for every user
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("locking %s: %w", f.Name(), err)
	}
	return func() { _ = f.Close() }, nil
}
