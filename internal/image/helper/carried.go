package helper

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/klauspost/compress/zstd"
)

// Carried are the helpers that a program carries: files nametag-linux-ARCHITECTURE.zst. A build that carries none has an
// empty FS.
type Carried struct {
	FS fs.FS

	close []func() error
}

// Find is what is carried for an architecture, as a file that is there until Close. Where nothing is, the error matches
// fs.ErrNotExist.
func (c *Carried) Find(architecture string) (Binary, error) {
	name := "nametag-linux-" + architecture
	packed, err := fs.ReadFile(c.FS, "carried/"+name+".zst")
	if err != nil {
		return Binary{}, err
	}
	unpacked, err := zstd.NewReader(bytes.NewReader(packed))
	if err != nil {
		return Binary{}, err
	}
	defer unpacked.Close()
	file, path, done, err := unnamed(name)
	if err != nil {
		return Binary{}, err
	}
	c.close = append(c.close, done)
	if _, err := io.Copy(file, unpacked); err != nil {
		return Binary{}, fmt.Errorf("the helper that is carried for %s: %w", architecture, err)
	}
	return Check(path)
}

// All is what is carried for the architectures; none given: for every one that there is something for. Where nothing is
// carried at all, or not for each that was asked for, the error is the one that led here.
func (c *Carried) All(architectures []string, otherwise error) ([]Binary, error) {
	all := len(architectures) == 0
	if all {
		architectures = Architectures()
	}
	var found []Binary
	for _, a := range architectures {
		b, err := c.Find(a)
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

// Close takes the files away.
func (c *Carried) Close() error {
	var errs []error
	for _, done := range c.close {
		errs = append(errs, done())
	}
	c.close = nil
	return errors.Join(errs...)
}
