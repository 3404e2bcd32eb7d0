//go:build !linux

package whole

import "errors"

// exchange is a system call that this system has not, or not by our libraries.
func exchange(string, string) error { return errors.ErrUnsupported }
