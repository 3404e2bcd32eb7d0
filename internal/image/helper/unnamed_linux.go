package helper

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// unnamed is a new file in memory, and a path that leads to it.
func unnamed(name string) (file *os.File, path string, done func() error, err error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, "", nil, os.NewSyscallError("memfd_create", err)
	}
	file = os.NewFile(uintptr(fd), name)
	return file, fmt.Sprintf("/proc/self/fd/%d", fd), file.Close, nil // the path leads through the descriptor
}
