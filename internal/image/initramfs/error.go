package initramfs

import (
	"errors"
	"fmt"
)

// A FormatError says where an image is not what the kernel could unpack, and what stands there.
type FormatError struct {
	// Offset is where the archive begins, or the byte between archives that belongs to none.
	Offset int64
	// Format is how the archive is compressed. It says nothing where Within is negative.
	Format Format
	// Within is the place in what the archive unpacks to; negative if the matter is the image's own bytes.
	Within int64
	// Found is the bytes that stand there, already made fit for a terminal; empty if it is not about a few bytes.
	Found string
	// Reason says what is wrong.
	Reason string
	// Err is the cause, where it is another package's.
	Err error
}

// Error is one line that is safe to print.
func (e *FormatError) Error() string {
	s := fmt.Sprintf("initramfs: byte %d (%#x)", e.Offset, e.Offset)
	if e.Within >= 0 {
		s += fmt.Sprintf(", compression %s, byte %d unpacked", e.Format, e.Within)
	}
	s += ": " + e.Reason
	if e.Found != "" {
		s += ": found " + e.Found
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap is the cause.
func (e *FormatError) Unwrap() error { return e.Err }

// A RefusedError says why an image that can be read is left as it is.
type RefusedError struct {
	Reason string
	// Remedy is what to do instead; may be empty.
	Remedy string
}

// Error is one line that is safe to print.
func (e *RefusedError) Error() string {
	if e.Remedy == "" {
		return "initramfs: " + e.Reason
	}
	return "initramfs: " + e.Reason + "; " + e.Remedy
}

// ErrNotAdded is returned where there is nothing of ours to take away.
var ErrNotAdded = errors.New("initramfs: nametag was not added to this image")

func refuse(remedy, format string, args ...any) error {
	return &RefusedError{Reason: fmt.Sprintf(format, args...), Remedy: remedy}
}

// show is a few bytes of the image, fit for a terminal.
func show(b []byte) string {
	const most = 8
	if len(b) > most {
		b = b[:most]
	}
	if len(b) == 0 {
		return "the end of the image"
	}
	return fmt.Sprintf("%q (% x)", b, b)
}
