//go:build linux

package systems

import (
	"context"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/testvm/qemu"
)

//go:embed build.sh guest
var embedded embed.FS

// Image is an installed system: a disk, and the initramfs that its own tools made.
type Image struct {
	Disk   string // a raw ext4 file system
	Kernel string // for QEMU's -kernel
	dir    string
	base   string
}

// Initrd is how a system's initramfs came about.
type Initrd string

// The initramfs of an image.
const (
	Dracut               Initrd = "dracut"
	DracutWithoutSystemd Initrd = "dracut-without-systemd"
	InitramfsTools       Initrd = "initramfs-tools"
	// Plain has no nametag in it: the service in the root is alone.
	Plain Initrd = "plain"
)

// File is the initramfs.
func (i Image) File(kind Initrd) (string, error) {
	if kind != Plain {
		return filepath.Join(i.dir, string(kind)), nil
	}
	found, err := filepath.Glob(filepath.Join(i.base, "boot/initrd.img-*"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("systems: %d initramfs in %s/boot (%v)", len(found), i.base, err) //nolint:errorlint // may be nil
	}
	return found[0], nil
}

// Make makes the image with this binary of nametag, or finds it made. base is what hack/os-deps prints.
func Make(ctx context.Context, deps qemu.Deps, base, binary string) (Image, error) {
	cache := filepath.Dir(base)
	stage, err := os.MkdirTemp(cache, "stage-")
	if err != nil {
		return Image{}, err
	}
	defer os.RemoveAll(stage)
	if err := Install(deps.Repo, binary, stage); err != nil {
		return Image{}, err
	}
	if err := guest(stage); err != nil {
		return Image{}, err
	}
	key, err := keyOf(base, stage)
	if err != nil {
		return Image{}, err
	}
	kernel := deps
	kernel.Root = base
	image := Image{dir: filepath.Join(cache, "image-"+key), base: base}
	image.Disk = filepath.Join(image.dir, "disk.ext4")
	if image.Kernel, err = kernel.Kernel(); err != nil {
		return Image{}, err
	}
	lock, err := os.OpenFile(filepath.Join(cache, "images.lock"), os.O_CREATE|os.O_RDWR, 0o644) //nolint:gosec // a cache for every user
	if err != nil {
		return Image{}, err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil { //nolint:gosec // a descriptor
		return Image{}, err
	}
	now := time.Now()
	if os.Chtimes(image.dir, now, now) == nil {
		return image, nil
	}
	prune(cache)
	dir, err := os.MkdirTemp(cache, "new-")
	if err != nil {
		return Image{}, err
	}
	defer os.RemoveAll(dir)
	script, err := embedded.ReadFile("build.sh")
	if err != nil {
		return Image{}, err
	}
	build := exec.CommandContext(ctx, "unshare", "--mount", "bash", "-c", string(script), "build.sh", base, stage, dir) //nolint:gosec // our own
	if output, err := build.CombinedOutput(); err != nil {
		return Image{}, fmt.Errorf("systems: making an image: %w\n%s", err, output)
	}
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // a cache for every user
		return Image{}, err
	}
	return image, os.Rename(dir, image.dir)
}

// prune removes the images that nothing asked for in a day.
func prune(cache string) {
	images, _ := filepath.Glob(filepath.Join(cache, "image-*"))
	for _, image := range images {
		if st, err := os.Stat(image); err == nil && time.Since(st.ModTime()) > 24*time.Hour {
			_ = os.RemoveAll(image)
		}
	}
}

// content is one line of systems/nametag.yaml.
type content struct {
	Src, Dst, Type, Packager string
	Info                     struct{ Mode uint32 } `yaml:"file_info"`
}

// Install puts the files of the Debian package into a folder, with this binary of nametag.
func Install(repo, binary, into string) error {
	text, err := os.ReadFile(filepath.Join(repo, "systems/nametag.yaml"))
	if err != nil {
		return err
	}
	var list struct{ Contents []content }
	if err := yaml.Unmarshal(text, &list); err != nil {
		return fmt.Errorf("systems/nametag.yaml: %w", err)
	}
	for _, c := range list.Contents {
		if c.Packager != "" && c.Packager != "deb" || strings.HasPrefix(c.Dst, "/usr/share/") && strings.HasPrefix(c.Src, "${") {
			continue // another system's, or documentation that a release makes
		}
		to := filepath.Join(into, c.Dst)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil { //nolint:gosec // a folder of the image
			return err
		}
		switch {
		case c.Type == "symlink":
			err = os.Symlink(c.Src, to)
		case strings.HasPrefix(c.Src, "${DIST}"):
			err = copyFile(binary, to, fs.FileMode(c.Info.Mode))
		default:
			err = copyFile(filepath.Join(repo, c.Src), to, fs.FileMode(c.Info.Mode))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// guest puts the guest's own services into a folder.
func guest(into string) error {
	wants := filepath.Join(into, "etc/systemd/system/sysinit.target.wants")
	ordinary := filepath.Join(into, "etc/systemd/system/multi-user.target.wants")
	for _, dir := range []string{wants, ordinary, filepath.Join(into, "usr/lib/nametag-test"), filepath.Join(into, "etc/systemd/network")} {
		if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // a folder of the image
			return err
		}
	}
	for name, to := range map[string]string{
		"report": "usr/lib/nametag-test", "later": "usr/lib/nametag-test", "dhclient": "usr/lib/nametag-test",
		"first.service": "etc/systemd/system", "ordinary.service": "etc/systemd/system", "later.service": "etc/systemd/system",
		"dhclient.service": "etc/systemd/system", "80-dhcp.network": "etc/systemd/network",
	} {
		text, err := embedded.ReadFile("guest/" + name)
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if strings.HasPrefix(string(text), "#!") {
			mode = 0o755
		}
		if err := os.WriteFile(filepath.Join(into, to, name), text, mode); err != nil {
			return err
		}
	}
	links := map[string]string{filepath.Join(wants, "first.service"): "../first.service"}
	for _, unit := range []string{"ordinary", "later"} {
		links[filepath.Join(ordinary, unit+".service")] = "../" + unit + ".service"
	}
	for link, to := range links {
		if err := os.Symlink(to, link); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string, mode fs.FileMode) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.WriteFile(to, content, 0o600); err != nil {
		return err
	}
	return os.Chmod(to, mode)
}

// keyOf is the same for the same image.
func keyOf(base, stage string) (string, error) {
	h := sha256.New()
	script, err := embedded.ReadFile("build.sh")
	if err != nil {
		return "", err
	}
	fmt.Fprintf(h, "%s\n%s\n", base, script)
	err = filepath.WalkDir(stage, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(stage, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%s %v\n", name, info.Mode())
		if info.Mode()&fs.ModeSymlink != 0 {
			to, err := os.Readlink(path)
			fmt.Fprintln(h, to)
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		_, err = io.Copy(h, f)
		return errors.Join(err, f.Close())
	})
	return fmt.Sprintf("%x", h.Sum(nil)[:6]), err
}
