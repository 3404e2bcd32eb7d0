// Package joined joins errors on one line: on a console, in a log and in an event's JSON an error has one. The lines that
// [errors.Join] makes are told apart from an error's own by nobody there.
package joined

import (
	"slices"
	"strings"
)

// Errors is [errors.Join], but that semicolons part the texts. Errors that are nil do not count, and of none it returns nil.
func Errors(errs ...error) error {
	errs = slices.DeleteFunc(slices.Clone(errs), func(err error) bool { return err == nil })
	if len(errs) == 0 {
		return nil
	}
	return &several{errs}
}

// several is a pointer's, so that errors can be compared.
type several struct{ errs []error }

func (s *several) Error() string {
	texts := make([]string, len(s.errs))
	for i, err := range s.errs {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

func (s *several) Unwrap() []error { return s.errs }
