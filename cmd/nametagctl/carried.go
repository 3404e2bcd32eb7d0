package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/image/helper"
)

// carriedHelper is the node's binary that this build of nametagctl carries for an architecture, as a file in memory that
// lives as long as this process. A build that carries none, as `make build` makes it, has an error that matches
// fs.ErrNotExist.
func carriedHelper(architecture string) (helper.Binary, error) {
	packed, err := fs.ReadFile(carried, "carried/nametag-linux-"+architecture+".zst")
	if err != nil {
		return helper.Binary{}, err
	}
	unpacked, err := zstd.NewReader(bytes.NewReader(packed))
	if err != nil {
		return helper.Binary{}, err
	}
	defer unpacked.Close()
	fd, err := unix.MemfdCreate("nametag-linux-"+architecture, unix.MFD_CLOEXEC)
	if err != nil {
		return helper.Binary{}, os.NewSyscallError("memfd_create", err)
	}
	// The descriptor stays open: the path below leads through it.
	file := os.NewFile(uintptr(fd), "nametag")
	if _, err := io.Copy(file, unpacked); err != nil {
		return helper.Binary{}, errors.Join(fmt.Errorf("the helper that is carried for %s: %w", architecture, err), file.Close())
	}
	carriedFiles = append(carriedFiles, file)
	return helper.Check(fmt.Sprintf("/proc/self/fd/%d", fd))
}

// carriedFiles keeps the files in memory from being closed by the garbage collector.
var carriedFiles []*os.File

// findCarried is what is carried for the architectures; none given: for every one that there is something for. Where
// nothing is carried at all, or not for each that was asked for, the error is the one that led here.
func findCarried(architectures []string, otherwise error) ([]helper.Binary, error) {
	all := len(architectures) == 0
	if all {
		architectures = helper.Architectures()
	}
	var found []helper.Binary
	for _, a := range architectures {
		b, err := carriedHelper(a)
		switch {
		case err == nil:
			found = append(found, b)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		case !all:
			return nil, otherwise
		}
	}
	if len(found) == 0 {
		return nil, otherwise
	}
	return found, nil
}
