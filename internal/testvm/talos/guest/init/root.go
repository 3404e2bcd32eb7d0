//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"
)

// mountRoot mounts the squashfs, and over it the layers of the extensions, on newRoot.
func mountRoot() error {
	if err := os.MkdirAll(newRoot, 0o755); err != nil {
		return err
	}
	layers, err := extensions()
	if err != nil {
		return err
	}
	if len(layers) == 0 {
		return mountSquash("/rootfs.sqsh", newRoot)
	}
	lower := make([]string, 0, len(layers)+1)
	for i, image := range append(layers, "/rootfs.sqsh") {
		on := fmt.Sprintf("/layers/%d", i)
		if err := os.MkdirAll(on, 0o755); err != nil {
			return err
		}
		if err := mountSquash(image, on); err != nil {
			return fmt.Errorf("%s: %w", image, err)
		}
		lower = append(lower, on)
	}
	return unix.Mount("overlay", newRoot, "overlay", unix.MS_RDONLY, "lowerdir="+strings.Join(lower, ":"))
}

// extensions is the images of /extensions.yaml, the topmost first.
func extensions() ([]string, error) {
	b, err := os.ReadFile("/extensions.yaml")
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var doc struct {
		Layers []struct {
			Image string `yaml:"image"`
		} `yaml:"layers"`
	}
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return nil, fmt.Errorf("extensions.yaml: %w", err)
	}
	images := make([]string, 0, len(doc.Layers))
	for i := len(doc.Layers) - 1; i >= 0; i-- {
		images = append(images, "/"+doc.Layers[i].Image)
	}
	return images, nil
}

func mountSquash(image, on string) error {
	device, err := attach(image)
	if err != nil {
		return fmt.Errorf("loop device: %w", err)
	}
	defer device.Close() //nolint:errcheck // the mount holds the device, which detaches itself after it
	return unix.Mount(device.Name(), on, "squashfs", unix.MS_RDONLY, "")
}

func attach(image string) (*os.File, error) {
	backing, err := os.Open(image)
	if err != nil {
		return nil, err
	}
	defer backing.Close() //nolint:errcheck // opened for reading
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close() //nolint:errcheck // a control device
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return nil, err
	}
	device, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	config := unix.LoopConfig{Fd: uint32(backing.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR}} //nolint:gosec // a descriptor is small
	if err := unix.IoctlLoopConfigure(int(device.Fd()), &config); err != nil {
		_ = device.Close()
		return nil, err
	}
	return device, nil
}

// switchRoot moves the mounts into the new root and that onto /, and deletes what was there.
func switchRoot() error {
	old, err := unix.Open("/", unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(old) //nolint:errcheck // opened for reading
	for _, m := range []string{"/dev", "/proc", "/sys"} {
		if err := unix.Mount(m, newRoot+m, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("moving %s: %w", m, err)
		}
	}
	if err := unix.Chdir(newRoot); err != nil {
		return err
	}
	if err := unix.Mount(newRoot, "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("moving %s: %w", newRoot, err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(old, &st); err != nil {
		return err
	}
	return remove(old, st.Dev)
}

// remove empties the directory, without leaving its file system.
func remove(dir int, device uint64) error {
	again, err := unix.Openat(dir, ".", unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(again), "initramfs")
	defer f.Close() //nolint:errcheck // opened for reading
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		var st unix.Stat_t
		if unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Dev != device {
			continue
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			if err := unix.Unlinkat(dir, name, 0); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			continue
		}
		sub, err := unix.Openat(dir, name, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		err = remove(sub, device)
		_ = unix.Close(sub)
		if err != nil {
			return err
		}
		_ = unix.Unlinkat(dir, name, unix.AT_REMOVEDIR) // busy where something is mounted below: left, as Talos does
	}
	return nil
}
