package uki

import (
	"fmt"
	"strings"
)

// Error says what is wrong with an image, and where.
type Error struct {
	Offset int64 // in the file, in bytes; -1: nowhere in particular
	Reason string
	Err    error // the cause; may be nil
}

func (e *Error) Error() string {
	text := e.Reason
	if e.Offset >= 0 {
		text = fmt.Sprintf("at byte 0x%x: %s", e.Offset, text)
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

func (e *Error) Unwrap() error { return e.Err }

func bad(offset int64, format string, args ...any) *Error {
	return &Error{Offset: offset, Reason: fmt.Sprintf(format, args...)}
}

// SignedError refuses to edit an image that is signed. No edit leaves its signature valid.
type SignedError struct {
	Signers []string // the names in the signatures' certificates, as far as they can be read
}

func (e *SignedError) Error() string {
	by := ""
	if len(e.Signers) > 0 {
		by = " by " + strings.Join(e.Signers, ", ")
	}
	return "the image is signed" + by + ", and no edit leaves the signature valid"
}
