package hetzner

import (
	"errors"
	"net/http"

	"github.com/nametag-boot/nametag/identity/metadata"
)

// Reasons why an answer does not count, beside those of package metadata. They come
// wrapped in an [*Error].
var (
	ErrEmpty   = errors.New("the answer is empty")
	ErrChanged = errors.New("the instance id changed while the name was being asked for")
	errClosed  = errors.New("the service closes the connection after each answer, and has no document with name and instance id in one")
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

// absent is whether the service says that there is no such document. A service that is busy or broken does not say that.
func absent(err error) bool {
	e, is := errors.AsType[*metadata.StatusError](err)
	return is && (e.Code == http.StatusNoContent || e.Code/100 == 4 && e.Code != http.StatusTooManyRequests && e.Code != http.StatusRequestTimeout)
}
