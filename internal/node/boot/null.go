//go:build linux

package boot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Where the kernel has no console, its first process has no files open. Go's runtime opens /dev/null in their place, and ends
// the process where it cannot: so nametagctl puts a /dev/null into an initramfs that has none, and writes down what it has put
// in. The next init is started as if it had not.

// markerPath is what nametagctl has written down.
const markerPath = ".nametag.json"

// markerSize is more than it is long.
const markerSize = 64 << 10

// takeNull takes away the /dev/null that was put into the initramfs at root for our own start. Where our own standard files
// are that device, the next init does not get them: the kernel had none to give.
func takeNull(root string) error {
	made, err := putIn(root)
	if err != nil || !slices.Contains(made, "dev/null") {
		return err
	}
	path := filepath.Join(root, "dev/null")
	var null unix.Stat_t
	if err := unix.Lstat(path, &null); err != nil || null.Mode&unix.S_IFMT != unix.S_IFCHR || null.Rdev != unix.Mkdev(1, 3) {
		return nil //nolint:nilerr // it is another one by now, or none
	}
	for fd := range 3 {
		var file unix.Stat_t
		if unix.Fstat(fd, &file) == nil && file.Dev == null.Dev && file.Ino == null.Ino {
			unix.CloseOnExec(fd)
		}
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("boot: %w", err)
	}
	if slices.Contains(made, "dev") {
		_ = os.Remove(filepath.Dir(path)) // with the kernel's console in it, it stays
	}
	return nil
}

// putIn are the files that nametagctl has put into the initramfs.
func putIn(root string) ([]string, error) {
	f, err := os.Open(filepath.Join(root, markerPath))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("boot: %w", err)
	}
	defer f.Close()
	var marker struct {
		Entries []string `json:"entries"`
	}
	if err := json.NewDecoder(io.LimitReader(f, markerSize)).Decode(&marker); err != nil {
		return nil, fmt.Errorf("boot: %s: %w", f.Name(), err)
	}
	return marker.Entries, nil
}
