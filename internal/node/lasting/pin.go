//go:build linux

package lasting

import (
	"errors"
	"fmt"
	"os"
)

// ErrNoName says that there is no name in /etc/hostname that could be pinned.
var ErrNoName = errors.New("there is no name in /etc/hostname")

// Pin makes the name in /etc/hostname the operator's: from now on nametag leaves it
// alone and asks nobody. It returns the name.
func (r Root) Pin() (string, error) {
	name, err := r.static()
	switch {
	case err != nil:
		return "", err
	case name == "" || r.covered():
		return "", fmt.Errorf("lasting: %w", ErrNoName)
	}
	if err := os.Remove(r.path(Mark)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("lasting: %w", err)
	}
	return name, nil
}

// Unpin gives the name in /etc/hostname back to nametag. It returns the name.
func (r Root) Unpin() (string, error) {
	name, err := r.static()
	switch {
	case err != nil:
		return "", err
	case name == "":
		return "", fmt.Errorf("lasting: %w", ErrNoName)
	}
	return name, put(r.path(Mark), name)
}
