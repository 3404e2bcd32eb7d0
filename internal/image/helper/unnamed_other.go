//go:build !linux

package helper

import (
	"errors"
	"os"
)

// unnamed is a new file where TMPDIR says.
func unnamed(name string) (file *os.File, path string, done func() error, err error) {
	file, err = os.CreateTemp("", name+"-*")
	if err != nil {
		return nil, "", nil, err
	}
	return file, file.Name(), func() error { return errors.Join(file.Close(), os.Remove(file.Name())) }, nil
}
