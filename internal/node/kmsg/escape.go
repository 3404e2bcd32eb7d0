//go:build linux

package kmsg

import (
	"fmt"
	"unicode"
	"unicode/utf8"
)

// ellipsis ends a line that was cut.
const ellipsis = "…"

// escape appends text to b, which may grow to limit bytes; what does not fit is
// cut. What a terminal could obey, what is invisible and what turns the direction
// of writing is written as Go would write it in a string.
//
// The commands' cli.Screen escapes too, and that is another matter: here it is one line, no longer than a record may be,
// for a log; there a stream of any length, whose lines stay, and whose JSON has to stay JSON.
func escape(b []byte, text string, limit int) []byte {
	cut := len(b) // where the ellipsis still fits
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			b = fmt.Appendf(b, `\x%02x`, text[i])
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\t':
			b = append(b, ' ')
		case !unicode.IsPrint(r) && r < 0x100:
			b = fmt.Appendf(b, `\x%02x`, r)
		case !unicode.IsPrint(r):
			b = fmt.Appendf(b, `\u%04x`, r)
		default:
			b = append(b, text[i:i+size]...)
		}
		if len(b) > limit {
			return append(b[:cut], ellipsis...)
		}
		if len(b)+len(ellipsis) <= limit {
			cut = len(b)
		}
		i += size
	}
	return b
}
