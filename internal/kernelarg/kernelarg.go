// Package kernelarg parts a kernel command line into its arguments.
//
// A line has several readers, and they do not agree. There are two grammars:
//
//   - [Split] is the kernel's own (next_arg in lib/cmdline.c, parse_args in kernel/params.c): white space parts, double
//     quotes hold together, and what stands behind "--" is for init. Who reads so: the kernel, modprobe, and with their own
//     code the generators of an initramfs.
//   - [Fields] is that of Talos, by github.com/siderolabs/go-procfs: white space parts, and nothing else means anything.
//     nametag's own arguments are read so too, by package procfs, since Talos has to find the same.
//
// Nobody else in this module parts a line: whoever is to agree with a reader takes that reader's grammar from here.
package kernelarg

import (
	"strings"
	"unicode"
)

const (
	// MaxLine is how many bytes the kernels of amd64 and arm64 keep: COMMAND_LINE_SIZE less the zero byte at its end
	// (arch/x86/include/asm/setup.h, arch/arm64/include/uapi/asm/setup.h). The rest is cut off without a word.
	MaxLine = 2048 - 1
	// LongestLine is the same for the architecture that keeps the most (s390, and powerpc with its default is no
	// longer). No longer line comes from a kernel.
	LongestLine = 4096 - 1
)

// An Arg is one argument. It is about a line: Start and End say where it stands there.
type Arg struct {
	Start, End int
	Text       string // as it stands on the line

	// Name and Value are what the kernel makes of the text: the quotes around the whole, or around the value, are not part
	// of them. An argument without an "=" has no value.
	Name, Value string
	HasValue    bool

	// Quoted says that the text begins with a quotation mark, Open that one on it has no end. (To the kernel, that one
	// ends with the line.)
	Quoted, Open bool
}

// Is reports whether the argument has that name. To the kernel a dash in one is an underscore (parameq in
// kernel/params.c).
func (a Arg) Is(name string) bool { return underscores(a.Name) == underscores(name) }

func underscores(name string) string { return strings.ReplaceAll(name, "-", "_") }

// Split parts a line as the kernel does. args are those that it reads, rest is what it hands on to init: the argument "--"
// and all behind it, or nothing.
func Split(line string) (args, rest []Arg) {
	for at := 0; at < len(line); {
		if space(line[at]) {
			at++
			continue
		}
		end, open := wordEnd(line, at)
		a := understand(line[at:end])
		a.Start, a.End, a.Open = at, end, open
		args = append(args, a)
		at = end
	}
	for i, a := range args {
		if a.Name == "--" && !a.HasValue {
			return args[:i:i], args[i:]
		}
	}
	return args, nil
}

// wordEnd is where the word ends that begins at start, and whether a quotation mark is open there.
func wordEnd(line string, start int) (end int, open bool) {
	for end = start; end < len(line); end++ {
		switch c := line[end]; {
		case c == '"':
			open = !open
		case space(c) && !open:
			return end, false
		}
	}
	return end, open
}

// space is the kernel's isspace (lib/ctype.c), which has Latin-1 in mind: 0xa0 is a blank, also as a byte of UTF-8.
func space(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' || c == 0xa0 }

// understand finds name and value, as next_arg does.
func understand(text string) Arg {
	a := Arg{Text: text}
	word, quoted := strings.CutPrefix(text, `"`)
	a.Quoted = quoted
	a.Name = word
	// An "=" in front is a letter of the name.
	if i := strings.IndexByte(word[min(1, len(word)):], '='); i >= 0 {
		a.Name, a.Value, a.HasValue = word[:i+1], word[i+2:], true
	}
	// One quotation mark at the end is taken away: the value's, or the one around the whole.
	if value, ok := strings.CutPrefix(a.Value, `"`); ok {
		a.Value = strings.TrimSuffix(value, `"`)
		return a
	}
	switch {
	case !quoted:
	case a.HasValue:
		a.Value = strings.TrimSuffix(a.Value, `"`)
	default:
		a.Name = strings.TrimSuffix(a.Name, `"`)
	}
	return a
}

// Fields parts a line as Talos does. Of an Arg, Name and Value are what stands before and behind the first "=", quotes and
// all.
func Fields(line string) (args []Arg) {
	for at := 0; ; {
		word := strings.TrimLeftFunc(line[at:], unicode.IsSpace)
		if word == "" {
			return args
		}
		at = len(line) - len(word)
		if end := strings.IndexFunc(word, unicode.IsSpace); end >= 0 {
			word = word[:end]
		}
		a := Arg{Start: at, End: at + len(word), Text: word, Quoted: word[0] == '"'}
		a.Name, a.Value, a.HasValue = strings.Cut(word, "=")
		args = append(args, a)
		at = a.End
	}
}

// Named are the arguments of that name, in order; see [Arg.Is].
func Named(args []Arg, name string) (named []Arg) {
	for _, a := range args {
		if a.Is(name) {
			named = append(named, a)
		}
	}
	return named
}

// Texts are the arguments as they stand on the line.
func Texts(args []Arg) []string {
	texts := make([]string, 0, len(args))
	for _, a := range args {
		texts = append(texts, a.Text)
	}
	return texts
}
