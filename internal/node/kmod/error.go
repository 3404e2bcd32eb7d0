//go:build linux

package kmod

import "strings"

// Error says what could not be done, to which module, from which file, and what
// may be done about it. Find it with [errors.As].
type Error struct {
	Op     string // what was tried, such as "finit_module"
	Module string // such as "virtio_net"; may be empty
	File   string // the file it is about; may be empty
	Device string // the device it was for, such as "pci 0000:00:03.0"; may be empty
	Err    error  // the cause, often a [syscall.Errno]
	Remedy string // what an operator can do; may be empty
}

// Error returns one line, such as "kmod: virtio_net for virtio virtio0:
// finit_module /lib/modules/6.1/virtio_net.ko: exec format error (…)".
func (e *Error) Error() string { return "kmod: " + e.text() }

// text is Error without the package's name.
func (e *Error) text() string {
	var b strings.Builder
	b.WriteString(e.Module)
	if e.Device != "" {
		if e.Module != "" {
			b.WriteString(" for ")
		}
		b.WriteString(e.Device)
	}
	if b.Len() > 0 {
		b.WriteString(": ")
	}
	b.WriteString(e.Op)
	if e.File != "" {
		b.WriteString(" " + e.File)
	}
	b.WriteString(": ")
	if inner, ok := e.Err.(*Error); ok { //nolint:errorlint // the next one only, not one deeper
		b.WriteString(inner.text())
	} else {
		b.WriteString(e.Err.Error())
	}
	if e.Remedy != "" {
		b.WriteString(" (" + e.Remedy + ")")
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// NoDriverError says that no module claims a device.
type NoDriverError struct {
	Modalias string
	Release  string  // the kernel's
	Places   []error // why a place that should have modules could not be used
}

// Error lists the places that could not be searched.
func (e *NoDriverError) Error() string {
	if len(e.Places) == 0 {
		return "no module for kernel " + e.Release + " claims " + e.Modalias +
			": its driver is built in and did not take it, or was left out"
	}
	msgs := make([]string, len(e.Places))
	for i, err := range e.Places {
		msgs[i] = strings.TrimPrefix(err.Error(), "kmod: ")
	}
	return "no module found that claims " + e.Modalias + ": " + strings.Join(msgs, "; ")
}

// Unwrap returns Places.
func (e *NoDriverError) Unwrap() []error { return e.Places }
