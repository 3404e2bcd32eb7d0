package procfs

import (
	"strconv"
	"strings"
)

// Error says what is wrong with a kernel argument. Find it with [errors.As].
type Error struct {
	// Argument is the argument as it stands on the line, name included.
	Argument string
	// Part is the piece of it that is wrong. It may be empty, as in "2m,".
	Part string
	// Reason completes the sentence that begins with Part.
	Reason string
	// Suggestion is what to write in place of Part; empty if there is no likely one.
	Suggestion string
}

// Error returns one line that is safe to print on a console: control characters
// are escaped and long texts cut.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("procfs: ")
	b.WriteString(printable(e.Argument))
	b.WriteString(": ")
	if e.Part != "" {
		b.WriteString(quote(e.Part))
		b.WriteByte(' ')
	}
	b.WriteString(e.Reason)
	if e.Suggestion != "" {
		b.WriteString(" (did you mean ")
		b.WriteString(printable(e.Suggestion))
		b.WriteString("?)")
	}
	return b.String()
}

// quote is strconv.Quote, but of a length that fits a console.
func quote(s string) string {
	const longest = 80
	if len(s) > longest {
		return strconv.Quote(s[:longest]) + "…"
	}
	return strconv.Quote(s)
}

// printable is quote without the quotes around it.
func printable(s string) string {
	q := quote(s)
	end := strings.LastIndexByte(q, '"')
	return q[1:end] + q[end+1:]
}
