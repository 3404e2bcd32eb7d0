package metadata

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Reasons why an answer does not count.
var (
	ErrTooLarge  = errors.New("the answer is too large")
	ErrCutShort  = errors.New("the answer was cut short")
	ErrUncertain = errors.New("the answer just ends, and does not show that it is whole")
	ErrTrailing  = errors.New("the answer goes on after its end")
	ErrEncoded   = errors.New("the answer is compressed, which was not asked for")
	ErrHTML      = errors.New("the answer looks like HTML: not the metadata service, or its error page")
	ErrMalformed = errors.New("the answer is malformed")
)

var errNoDial = errors.New("the client has nothing to dial with: Client.Dial is nil")

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

// RetryAfter is how long the service wants to be left alone. It makes the error an
// identity.RetryAfterer, which Resolve honours within bounds.
func (e *StatusError) RetryAfter() time.Duration { return e.Wait }
