package identity

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nametag-boot/nametag/identity/dmi"
)

// NotPresentError says that the firmware's facts rule the cloud out. Nothing
// was sent and no link was touched.
type NotPresentError struct {
	Source string // the source's name
	Facts  dmi.Facts
}

// Error names both.
func (e *NotPresentError) Error() string {
	return fmt.Sprintf("identity: this machine is not on %s: its DMI vendor is %q", e.Source, shorten(e.Facts.Vendor, 64))
}

// TimeoutError says that the context ended before a name was proven, and why
// each path had none. It unwraps to Ended, Cause and every path's last error.
type TimeoutError struct {
	Source  string
	Elapsed time.Duration
	Paths   []PathError // one for each path there was, then what kept others from coming up
	Ended   error       // the context's error: DeadlineExceeded where a bound passed, Canceled else; nil: as Cause says
	Cause   error       // the context's cause, which may be the caller's own
	Undo    error       // what could not be undone; usually nil
}

// PathError is the last thing that went wrong on one path.
type PathError struct {
	Path  PathInfo // zero where Err says it itself
	Tries int      // attempts that were begun
	Err   error
}

// Error is one line: what, how long, and path by path why.
func (e *TimeoutError) Error() string {
	var b strings.Builder
	elapsed := roughly(e.Elapsed)
	if e.Timeout() {
		fmt.Fprintf(&b, "identity: no valid name from %s in %s", e.Source, elapsed)
	} else {
		fmt.Fprintf(&b, "identity: no valid name from %s when it was stopped after %s (%v)", e.Source, elapsed, e.Cause)
	}
	sep := ": "
	for _, p := range e.Paths {
		b.WriteString(sep)
		sep = "; "
		if path := p.Path.String(); path != "" {
			b.WriteString(path + ": ")
		}
		fmt.Fprint(&b, p.Err)
		if p.Tries > 1 {
			fmt.Fprintf(&b, " (%d tries)", p.Tries)
		}
	}
	if len(e.Paths) == 0 {
		b.WriteString(": no network path came up")
	}
	if e.Undo != nil {
		fmt.Fprintf(&b, "; and not everything could be undone: %v", e.Undo)
	}
	return b.String()
}

// Unwrap returns Ended, Cause, Undo and every path's last error.
func (e *TimeoutError) Unwrap() []error {
	var errs []error
	for _, err := range []error{e.Ended, e.Cause, e.Undo} {
		if err != nil {
			errs = append(errs, err)
		}
	}
	for _, p := range e.Paths {
		errs = append(errs, p.Err)
	}
	return errs
}

// Timeout reports whether a bound passed; false is a cancellation.
func (e *TimeoutError) Timeout() bool {
	return errors.Is(cmp.Or(e.Ended, e.Cause), context.DeadlineExceeded)
}

// ConfigError says that a [Resolver] asks for what cannot be. Nothing was sent.
type ConfigError struct {
	Field string // of Resolver: "Link.Methods"
	Err   error
}

// Error names the field.
func (e *ConfigError) Error() string { return "identity: " + e.Field + ": " + e.Err.Error() }

// Unwrap returns Err.
func (e *ConfigError) Unwrap() error { return e.Err }

var (
	errNoSource    = errors.New("there is none")
	errNilPath     = errors.New("a nil path was handed in")
	errTwoNetworks = errors.New("they are asked over instead of the host's network: take one of the two")
)

// MismatchError says that a valid answer was about another machine.
type MismatchError struct {
	InstanceID string // the answer's
	Serial     string // this machine's, from DMI or as it was given
}

// Error names both numbers.
func (e *MismatchError) Error() string {
	return fmt.Sprintf("the answer is for instance %q, but this machine's serial is %q", e.InstanceID, e.Serial)
}

// NameError says why a string is no host name.
type NameError struct {
	Name string // the first 253 bytes of it, and an ellipsis where there are more
	Rule string // what it breaks
}

// Error quotes the name safely, and not all of a long one.
func (e *NameError) Error() string {
	return fmt.Sprintf("%q is no host name: %s", shorten(e.Name, 80), e.Rule)
}

// SilenceError is an attempt that was given up without an answer. It does not
// unwrap: the time-out of an attempt must not pass for that of the context.
type SilenceError struct {
	After time.Duration // how long it lasted
	Stage string        // how far the attempt had come, as the source says it; may be empty
}

// Error says how long it lasted.
func (e *SilenceError) Error() string {
	if e.Stage == "" {
		return fmt.Sprintf("no answer in %s", roughly(e.After))
	}
	return fmt.Sprintf("no answer in %s (%s)", roughly(e.After), e.Stage)
}

// Timeout is true, as for a [net.Error] of a time-out.
func (e *SilenceError) Timeout() bool { return true }

// silence makes one of what an attempt returned when it was given up for cause.
// What a source wraps around the cause says how far it had come.
func silence(after time.Duration, err, cause error) *SilenceError {
	stage := strings.TrimSuffix(err.Error(), cause.Error())
	return &SilenceError{After: after, Stage: shorten(strings.TrimSuffix(stage, ": "), 200)}
}

// roughly rounds to what a reader wants to know.
func roughly(d time.Duration) time.Duration {
	switch {
	case d >= 10*time.Second:
		return d.Round(time.Second)
	case d >= time.Second:
		return d.Round(100 * time.Millisecond)
	case d >= 10*time.Millisecond:
		return d.Round(time.Millisecond)
	default:
		return d.Round(10 * time.Microsecond)
	}
}
