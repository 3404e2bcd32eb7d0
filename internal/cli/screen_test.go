package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode"
)

func TestNothingThatATerminalObeysIsPrinted(t *testing.T) {
	for text, want := range map[string]string{
		"plain, with ünïcödé → ✓\n\tand a column": "plain, with ünïcödé → ✓\n\tand a column",
		"\x1b]0;title\x07\x1b[2J":                 `\u001b]0;title\u0007\u001b[2J`,
		"C1: \u009b2J \u0085":                     `C1: \u009b2J \u0085`,
		"back\b\b\rover":                          `back\u0008\u0008\u000dover`,
		"right to left \u202e\u2066":              `right to left \u202e\u2066`,
		"a byte \x9b, \xe2\x82":                   `a byte \ufffd(9b), \ufffd(e2)\ufffd(82)`,
		"invisible \U000e0041":                    `invisible \udb40\udc41`,
	} {
		for _, step := range []int{1, 2, 3, 1000} { // a rune may come in pieces
			var out bytes.Buffer
			s := NewScreen(&out)
			for at := 0; at < len(text); at += step {
				if _, err := s.Write([]byte(text[at:min(len(text), at+step)])); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Close(); err != nil || out.String() != want {
				t.Errorf("%q in steps of %d: %q, %v", text, step, out.String(), err)
			}
		}
		if line := Line(text); strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q on a line: %q", text, line)
		}
	}
}

func TestADocumentOfJSONStaysOne(t *testing.T) {
	was := map[string]string{"hostile": "\x1b[2J \u009b \u202e \U000e0041 é"}
	var out bytes.Buffer
	s := NewScreen(&out)
	if err := errors.Join(JSON(s, was), s.Close()); err != nil {
		t.Fatal(err)
	}
	var is map[string]string
	if err := json.Unmarshal(out.Bytes(), &is); err != nil || is["hostile"] != was["hostile"] {
		t.Errorf("%q, %v, from %q", is, err, out.String())
	}
	if strings.ContainsFunc(out.String(), func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
		t.Errorf("a terminal obeys %q", out.String())
	}
}

func FuzzScreen(f *testing.F) {
	f.Add([]byte("a\x1b[2J\xff"), uint8(2))
	f.Fuzz(func(t *testing.T, text []byte, step uint8) {
		var out bytes.Buffer
		s := NewScreen(&out)
		n := int(step) + 1
		for at := 0; at < len(text); at += n {
			_, _ = s.Write(text[at:min(len(text), at+n)])
		}
		_ = s.Close()
		if strings.ContainsFunc(out.String(), func(r rune) bool { return r != '\n' && r != '\t' && !unicode.IsPrint(r) }) {
			t.Errorf("%q became %q", text, out.String())
		}
	})
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("no room") }

func TestAScreenRemembersThatItCouldNotPrint(t *testing.T) {
	s := NewScreen(broken{})
	_, _ = s.Write([]byte("text"))
	if err := s.Close(); err == nil {
		t.Error("it forgot")
	}
}
