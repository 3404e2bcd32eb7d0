//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A hierarchy is one of control groups: of cgroups(7) version 1 with some controllers, or of version 2 with all of them.
type hierarchy struct {
	name    string // the folder below /sys/fs/cgroup; "": it is all
	kind    string // for mount(2)
	options string
}

// hierarchies are those that this kernel has in use. Where some controllers are of version 1, version 2 has not got them.
func hierarchies() ([]hierarchy, error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	var all []hierarchy
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 || parts[1] == "" {
			continue
		}
		h := hierarchy{name: parts[1], kind: "cgroup", options: parts[1]}
		if name, ok := strings.CutPrefix(parts[1], "name="); ok {
			h.name, h.options = name, "none,name="+name
		}
		all = append(all, h)
	}
	for _, h := range all {
		for _, controller := range strings.Split(h.name, ",") {
			if controller == "memory" {
				return all, nil
			}
		}
	}
	return []hierarchy{{kind: "cgroup2"}}, nil
}

func (h hierarchy) mount(at string) error {
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("cgroup", at, h.kind, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, h.options); err != nil {
		return fmt.Errorf("mount the control groups %s: %w", h.name, err)
	}
	return nil
}

// through calls f for each hierarchy, with a place where it is mounted for that moment: where others have mounted it may be covered.
func through(f func(h hierarchy, at string) error) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	at, err := os.MkdirTemp("", "nametag-cgroup-")
	if err != nil {
		return err
	}
	defer os.Remove(at) //nolint:errcheck // an empty folder
	for _, h := range all {
		if err := h.mount(at); err != nil {
			return err
		}
		if err := errors.Join(f(h, at), unix.Unmount(at, unix.MNT_DETACH)); err != nil {
			return err
		}
	}
	return nil
}

// controllers are what a kubelet cannot do without.
var controllers = []string{"cpu", "cpuset", "memory", "pids"}

// joinGroup puts this process into a new group of each hierarchy, at its top: a kubelet finds there what a machine of its own has.
func joinGroup(group string) error {
	return through(func(h hierarchy, at string) error {
		dir := filepath.Join(at, group)
		if h.kind == "cgroup2" {
			for _, controller := range controllers {
				if err := os.WriteFile(filepath.Join(at, "cgroup.subtree_control"), []byte("+"+controller), 0o644); err != nil { //nolint:gosec // the kernel's
					return fmt.Errorf("the controller %s of control groups cannot be had here: %w; a kubelet needs it. Run this as root of the machine itself, not in a container", controller, err)
				}
			}
		}
		if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // the kernel's
			return err
		}
		if strings.Contains(h.name, "cpuset") { // a new group of version 1 has neither processors nor memory
			for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
				all, err := os.ReadFile(filepath.Join(at, file))
				if err != nil {
					return err
				}
				if err := os.WriteFile(filepath.Join(dir, file), all, 0o644); err != nil { //nolint:gosec // the kernel's
					return err
				}
			}
		}
		return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0o644) //nolint:gosec // the kernel's
	})
}

// showGroups mounts the hierarchies below a root, as the process sees them from its groups.
func showGroups(root string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	at := filepath.Join(root, "sys/fs/cgroup")
	if all[0].kind == "cgroup2" {
		if err := all[0].mount(at); err != nil {
			return err
		}
		// A group with processes in it cannot hand controllers on.
		leaf := filepath.Join(at, "init")
		if err := os.MkdirAll(leaf, 0o755); err != nil { //nolint:gosec // the kernel's
			return err
		}
		if err := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte("0"), 0o644); err != nil { //nolint:gosec // the kernel's
			return err
		}
		for _, controller := range controllers {
			if err := os.WriteFile(filepath.Join(at, "cgroup.subtree_control"), []byte("+"+controller), 0o644); err != nil { //nolint:gosec // the kernel's
				return fmt.Errorf("hand the controller %s on: %w", controller, err)
			}
		}
		return nil
	}
	if err := unix.Mount("tmpfs", at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=755"); err != nil {
		return fmt.Errorf("mount a tmpfs for the control groups: %w", err)
	}
	for _, h := range all {
		if err := h.mount(filepath.Join(at, h.name)); err != nil {
			return err
		}
	}
	return nil
}

// sweep removes the groups of a server that has ended, those that its kubelet made among them.
func sweep(group string) error {
	if group == "" {
		return errors.New("no group")
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	return through(func(_ hierarchy, at string) error {
		deadline := time.Now().Add(10 * time.Second)
		for {
			var dirs []string
			_ = filepath.WalkDir(filepath.Join(at, group), func(path string, d os.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					dirs = append(dirs, path)
				}
				return nil
			})
			var err error
			for i := len(dirs) - 1; i >= 0; i-- {
				err = errors.Join(err, unix.Rmdir(dirs[i]))
			}
			if err == nil {
				return nil
			}
			if time.Now().After(deadline) { // its last processes are still ending
				return err
			}
			time.Sleep(50 * time.Millisecond)
		}
	})
}
