package hetzner

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Reasons why an answer does not count. They come wrapped in an [*Error].
var (
	ErrEmpty     = errors.New("the answer is empty")
	ErrTooLarge  = errors.New("the answer is too large")
	ErrCutShort  = errors.New("the answer was cut short")
	ErrUncertain = errors.New("the answer just ends, and does not show that it is whole")
	ErrChanged   = errors.New("the instance id changed while the name was being asked for")
	errClosed    = errors.New("the service closes the connection after each answer, and has no document with name and instance id in one")
	ErrTrailing  = errors.New("the answer goes on after its end")
	ErrEncoded   = errors.New("the answer is compressed, which was not asked for")
	ErrHTML      = errors.New("the answer looks like HTML: not the metadata service, or its error page")
	ErrMalformed = errors.New("the answer is malformed")
)

// Error is what went wrong with one request.
type Error struct {
	Path string // below the service's base: "hostname"
	Err  error
}

// Error is one line without addresses and port numbers.
func (e *Error) Error() string { return e.Path + ": " + e.Err.Error() }

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// StatusError is an answer that is not a 200.
type StatusError struct {
	Code int           // 204 and redirects among them
	Wait time.Duration // of a Retry-After, or 0
}

// Error names the status.
func (e *StatusError) Error() string {
	s := fmt.Sprintf("status %d", e.Code)
	if text := http.StatusText(e.Code); text != "" {
		s += " (" + text + ")"
	}
	if 300 <= e.Code && e.Code < 400 && e.Code != http.StatusNotModified {
		s += ", and redirects are not followed"
	}
	if e.Wait > 0 {
		s += fmt.Sprintf(", retry after %s", e.Wait)
	}
	return s
}

// RetryAfter is how long the service wants to be left alone; Resolve honours it
// within bounds.
func (e *StatusError) RetryAfter() time.Duration { return e.Wait }

// absent is whether the service says that there is no such document. A service that is busy or broken does not say that.
func (e *StatusError) absent() bool {
	return e.Code == http.StatusNoContent || e.Code/100 == 4 && e.Code != http.StatusTooManyRequests && e.Code != http.StatusRequestTimeout
}
