package joined_test

import (
	"errors"
	"io"
	"io/fs"
	"testing"

	"github.com/nametag-boot/nametag/internal/joined"
)

func TestErrorsAreJoinedOnOneLine(t *testing.T) {
	missing := &fs.PathError{Op: "open", Path: "a", Err: fs.ErrNotExist}
	errs := []error{nil, missing, nil, joined.Errors(io.EOF, io.ErrClosedPipe)}
	err := joined.Errors(errs...)
	if got, want := err.Error(), "open a: file does not exist; EOF; io: read/write on closed pipe"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, cause := range []error{fs.ErrNotExist, io.EOF, io.ErrClosedPipe} {
		if !errors.Is(err, cause) {
			t.Errorf("%v is not found in it", cause)
		}
	}
	if found, ok := errors.AsType[*fs.PathError](err); !ok || found != missing {
		t.Errorf("found %v", found)
	}
	if again := joined.Errors(io.EOF); again != joined.Errors(errs[:1]...) && again == err { //nolint:errorlint // that they can be compared
		t.Error("two are one")
	}
	if errs[1] != error(missing) { //nolint:errorlint // the very one
		t.Error("what was joined is changed")
	}
}

func TestNoErrorsAreNone(t *testing.T) {
	if err := joined.Errors(nil, nil); err != nil {
		t.Errorf("got %v", err)
	}
	if err := joined.Errors(); err != nil {
		t.Errorf("got %v", err)
	}
}
