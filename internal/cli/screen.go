package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Screen is where a command prints. What a terminal could obey, what is invisible, and what turns the direction of writing
// is written in the form of JSON, \u001b, so that a document of JSON stays one. Lines end, and columns are parted, as ever.
// (Package kmsg escapes what a node says on its console: one line a record, cut where the kernel would cut it.)
//
// It remembers the first error: who is to read what was printed must not take nothing for an answer. It is for one
// goroutine.
type Screen struct {
	to   io.Writer
	half []byte // a rune of which the rest is to come
	err  error
}

// NewScreen returns a Screen on a writer.
func NewScreen(to io.Writer) *Screen { return &Screen{to: to} }

// Write prints.
func (s *Screen) Write(p []byte) (int, error) {
	text := slices.Concat(s.half, p)
	s.half = nil
	var out []byte
	for len(text) > 0 {
		if !utf8.FullRune(text) {
			s.half = append([]byte(nil), text...)
			break
		}
		r, n := utf8.DecodeRune(text)
		if r == '\n' || r == '\t' {
			out = append(out, text[0])
		} else {
			out = appendRune(out, r, text[:n])
		}
		text = text[n:]
	}
	if err := s.put(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (s *Screen) put(out []byte) error {
	if len(out) == 0 {
		return nil
	}
	if _, err := s.to.Write(out); err != nil {
		// Not wrapped: that the disk is full where the output goes says nothing about the files of the command.
		s.err = fmt.Errorf("%v", err) //nolint:errorlint // see above
		return s.err
	}
	return nil
}

// Close writes what is left of a rune that never ended, and returns the first error there was.
func (s *Screen) Close() error {
	var out []byte
	for _, c := range s.half {
		out = appendRune(out, utf8.RuneError, []byte{c})
	}
	s.half = nil
	_ = s.put(out)
	return s.err
}

// Unwrap is the writer that it prints on.
func (s *Screen) Unwrap() io.Writer { return s.to }

// appendRune appends a rune, whose bytes are given, as it is safe to print.
func appendRune(out []byte, r rune, bytes []byte) []byte {
	switch {
	case r == utf8.RuneError && len(bytes) == 1:
		return fmt.Appendf(out, `\ufffd(%02x)`, bytes[0])
	case unicode.IsPrint(r):
		return append(out, bytes...)
	case r > 0xffff:
		a, b := utf16.EncodeRune(r)
		return fmt.Appendf(out, `\u%04x\u%04x`, a, b)
	}
	return fmt.Appendf(out, `\u%04x`, r)
}

// Line is what a file or a network says, on one line and safe to print: a line's end in it could pass for one of ours.
func Line(text string) string {
	var out []byte
	for len(text) > 0 {
		r, n := utf8.DecodeRuneInString(text)
		out = appendRune(out, r, []byte(text[:n]))
		text = text[n:]
	}
	return string(out)
}

// Message is an error on one line. What was joined is parted by semicolons.
func Message(err error) string { return Line(strings.ReplaceAll(err.Error(), "\n", "; ")) }
