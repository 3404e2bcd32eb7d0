//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/testvm/controlplane/machine"
)

// tunables are the settings of the whole kernel that a kubelet wants to have another value. In namespaces they are covered by files
// that have it: the machine keeps its own.
var tunables = map[string]string{
	"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1",
	"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
}

// enter furnishes the namespaces that this process was born into as a machine, with a root of its own, and starts it. It does not
// return but with an error.
func enter(c machine.Config) error {
	runtime.LockOSThread() // namespaces belong to a thread, until it executes another program
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := joinGroup(c.Group); err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("a namespace of control groups: %w", err)
	}
	root, err := furnish(c)
	if err != nil {
		return err
	}
	if err := unix.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := errors.Join(unix.Unmount(".", unix.MNT_DETACH), unix.Chdir("/")); err != nil {
		return err
	}
	path := filepath.Join(machine.Dir, "guest")
	return unix.Exec(path, []string{path, "boot"}, environment())
}

// environment is a machine's, with nothing of the caller's.
func environment() []string {
	return []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C"}
}

// furnish makes the machine's root: Debian's programs below, its disk on top, and what a machine has beside them.
func furnish(c machine.Config) (root string, err error) {
	root = filepath.Join(c.Disk, "root")
	upper, work, containers := filepath.Join(c.Disk, "upper"), filepath.Join(c.Disk, "work"), filepath.Join(c.Disk, "containers")
	for _, dir := range []string{root, upper, work, containers} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "", err
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", c.Root, upper, work)
	if err := unix.Mount("overlay", root, "overlay", 0, options); err != nil {
		return "", fmt.Errorf("mount the machine's root, an overlay: %w", err)
	}
	for _, dir := range []string{
		"dev", "proc", "sys", "run", "tmp", "opt/kube", "opt/lab", "var/lib/containerd", "var/lib/kubelet", "var/lib/etcd", "var/lib/lab", "var/log", "etc", "root",
	} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return "", err
		}
	}
	for _, m := range []struct {
		what, where, kind string
		flags             uintptr
	}{
		{"proc", "proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"sysfs", "sys", "sysfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"/dev", "dev", "", unix.MS_BIND | unix.MS_REC},
		{"tmpfs", "run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV},
		{"tmpfs", "tmp", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV},
		{c.Kube, "opt/kube", "", unix.MS_BIND},
		{c.Lab, "opt/lab", "", unix.MS_BIND},
		{containers, "var/lib/containerd", "", unix.MS_BIND}, // an overlay cannot be the upper layer of another
	} {
		if err := unix.Mount(m.what, filepath.Join(root, m.where), m.kind, m.flags, ""); err != nil {
			return "", fmt.Errorf("mount %s at /%s: %w", m.what, m.where, err)
		}
	}
	if err := showGroups(root); err != nil {
		return "", err
	}
	return root, cover(root)
}

func cover(root string) error {
	for name, value := range tunables {
		file := filepath.Join(root, "run", filepath.Base(name))
		if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil { //nolint:gosec // as the kernel's own
			return err
		}
		at := filepath.Join(root, "proc/sys", name)
		if _, err := os.Stat(at); err != nil {
			continue // a kernel without it
		}
		if err := unix.Mount(file, at, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("cover %s: %w", at, err)
		}
	}
	return nil
}
