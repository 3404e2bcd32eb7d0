// Package cli is what our commands have in common: how they end, print, show progress and ask for a format.
//
// It knows nothing of what the commands do. Whatever is printed goes through [Screen], so that what a file or a network
// says cannot talk to the terminal.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// The exit statuses of a command.
const (
	OK     = 0
	Failed = 1 // it did what it does, and the outcome is bad
	Usage  = 2 // the command line is not understood
)

// An Error ends a command with a status; without a cause, in silence: then all is said.
type Error struct {
	Status int
	Err    error
}

func (e *Error) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit status %d", e.Status)
	}
	return e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// Misused says that a command line is not understood.
func Misused(err error) error { return &Error{Usage, err} }

// Misusedf is Misused for a sentence.
func Misusedf(format string, args ...any) error { return Misused(fmt.Errorf(format, args...)) }

// Status is the exit status that an error stands for. One that says none is a failure.
func Status(err error) int {
	var e *Error
	switch {
	case err == nil:
		return OK
	case errors.As(err, &e):
		return e.Status
	}
	return Failed
}

// Scratch is how the folders begin that commands keep copies in; they stand where TMPDIR says.
const Scratch = "nametagctl-"

// Run does a command's work until it is done or a signal ends it; a second signal ends the process itself, should the
// first not have got through to what it waits for. Where something hinders it that a person can change, the error says what.
func Run(cmd *cobra.Command, work func(context.Context) error) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, stop)
	err := work(ctx)
	var e *Error
	switch {
	case err == nil, errors.As(err, &e):
		return err
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		err = errors.New("interrupted; no file was changed, and nothing was replaced by half")
	default:
		err = withRemedy(err)
	}
	return &Error{Failed, err}
}

// withRemedy says what to do about an error of the file system. Every command replaces a file as a whole or not at all.
func withRemedy(err error) error {
	var at *fs.PathError
	switch full := errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT); {
	case full && errors.As(err, &at) && strings.HasPrefix(at.Path, filepath.Join(os.TempDir(), Scratch)):
		return fmt.Errorf("%w; no file was changed: the copies in between go where TMPDIR says, now %s", err, os.TempDir())
	case full:
		return fmt.Errorf("%w; no file was changed: make room, or write to another place", err)
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w; no file was changed: write to another place", err)
	}
	return err
}
