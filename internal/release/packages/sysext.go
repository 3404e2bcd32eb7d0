package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/squashfs"
)

// A system extension of systemd's: a squashfs with the program and its unit, which systemd-sysext(8) lays over a /usr that
// cannot be written. It is for every distribution, and has no generator: systemd would run it before the extension is there.
const (
	sysextName = "nametag" // what the file is to be called where it is put, before .raw
	release    = "ID=_any\nARCHITECTURE=%s\n"
	blockSize  = 128 << 10
)

// systemdArch is an architecture by systemd's name (ConditionArchitecture=).
var systemdArch = map[string]string{"amd64": "x86-64", "arm64": "arm64"}

// sysext makes the image for an architecture, by Go's name for it.
func sysext(dist, out, arch, version string, at time.Time) (err error) {
	name := filepath.Join(out, fmt.Sprintf("%s-%s-%s.raw", sysextName, version, systemdArch[arch]))
	if err := os.RemoveAll(name); err != nil {
		return err
	}
	image, err := file.CreateFromPath(name, 64<<20)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, image.Close()) }()
	made, err := squashfs.Create(image, 0, 0, blockSize)
	if err != nil {
		return err
	}
	tree := made.Workspace()
	defer os.RemoveAll(tree)
	for to, from := range map[string]string{
		"usr/bin/nametag":                                             filepath.Join(dist, "nametag-linux-"+arch),
		"usr/lib/systemd/system/nametag.service":                      "systems/systemd/nametag.service",
		"usr/share/nametag/require-name.conf":                         "systems/systemd/require-name.conf",
		"usr/share/licenses/nametag/LICENSE":                          "LICENSE",
		"usr/share/doc/nametag/THIRD-PARTY-LICENSES":                  filepath.Join(dist, "THIRD-PARTY-LICENSES"),
		"usr/lib/extension-release.d/extension-release." + sysextName: "",
	} {
		content := []byte(fmt.Sprintf(release, systemdArch[arch]))
		if from != "" {
			if content, err = os.ReadFile(from); err != nil {
				return err
			}
		}
		path := filepath.Join(tree, to)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // a folder of the image
			return err
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return err
		}
	}
	if err := settle(tree, at); err != nil {
		return err
	}
	// Not packed: the library's packers (v1.7.0) panic on a file that is longer than a block. What fetches it may pack it.
	var root uint32
	if err := made.Finalize(squashfs.FinalizeOptions{FileUID: &root, FileGID: &root, NonSparse: true}); err != nil {
		return err
	}
	return stamp(name, at)
}

// settle gives everything in a tree the same time, and modes that do not come from the umask; folders after what is in them.
func settle(tree string, at time.Time) error {
	var paths []string
	err := filepath.WalkDir(tree, func(path string, _ fs.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	})
	if err != nil {
		return err
	}
	for i := len(paths) - 1; i >= 0; i-- {
		st, err := os.Lstat(paths[i])
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if st.IsDir() || filepath.Base(filepath.Dir(paths[i])) == "bin" {
			mode = 0o755
		}
		if err := errors.Join(os.Chmod(paths[i], mode), os.Chtimes(paths[i], at, at)); err != nil {
			return err
		}
	}
	return nil
}

// stamp writes into a squashfs when it was made (mkfs_time, 8 bytes into its superblock), and cuts the file where the file
// system ends (bytes_used, 40 bytes into it), at a whole page as mksquashfs does.
func stamp(name string, at time.Time) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // closed below when all went well
	var superblock [96]byte
	if _, err := f.ReadAt(superblock[:], 0); err != nil {
		return err
	}
	if string(superblock[:4]) != "hsqs" {
		return fmt.Errorf("%s is no squashfs", name)
	}
	binary.LittleEndian.PutUint32(superblock[8:], uint32(at.Unix())) //nolint:gosec // the form's own size
	if _, err := f.WriteAt(superblock[:], 0); err != nil {
		return err
	}
	used := int64(binary.LittleEndian.Uint64(superblock[40:])) //nolint:gosec // a file that was just made
	if err := f.Truncate((used + 4095) &^ 4095); err != nil {
		return err
	}
	return f.Close()
}
