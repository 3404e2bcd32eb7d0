package uki

import (
	"fmt"
	"slices"
	"strings"
)

// MaxCommandLine is how many bytes of it the kernel keeps, on amd64 and arm64: COMMAND_LINE_SIZE less the zero byte
// (arch/x86/include/asm/setup.h, arch/arm64/include/uapi/asm/setup.h). It cuts off the rest without a word.
const MaxCommandLine = 2047

// Arguments is what is to be done to a kernel command line, in this order. The zero value does nothing.
type Arguments struct {
	Remove  []string // names: every argument of that name goes
	Replace []string // arguments: each takes the place of the first of its name, the others go; at the end where there is none
	Append  []string // arguments: each comes to the end, unless it is there already
}

// Apply does it. Done twice it changes nothing more. What is to come to the end stands before a "--", behind which the
// kernel reads no argument. The line's own quoting is left alone, and one that needs no change comes back as it was.
func (a Arguments) Apply(line string) (string, error) {
	words, err := split(line)
	if err != nil {
		return "", err
	}
	before := slices.Clone(words)
	mine, rest := words, []string(nil)
	if i := slices.Index(words, "--"); i >= 0 {
		mine, rest = slices.Clone(words[:i]), words[i:]
	}
	for _, list := range [][]string{a.Remove, a.Replace, a.Append} {
		for _, word := range list {
			if err := checkWord(word); err != nil {
				return "", err
			}
		}
	}
	for _, name := range a.Remove {
		mine = slices.DeleteFunc(mine, func(w string) bool { return key(w) == key(name) })
	}
	for _, word := range a.Replace {
		at := slices.IndexFunc(mine, func(w string) bool { return key(w) == key(word) })
		if at < 0 {
			mine = append(mine, word)
			continue
		}
		mine[at] = word
		tail := slices.DeleteFunc(slices.Clone(mine[at+1:]), func(w string) bool { return key(w) == key(word) })
		mine = append(mine[:at+1], tail...)
	}
	for _, word := range a.Append {
		if !slices.Contains(mine, word) {
			mine = append(mine, word)
		}
	}
	words = slices.Concat(mine, rest)
	if slices.Equal(words, before) {
		return line, nil
	}
	line = strings.Join(words, " ")
	if len(line) > MaxCommandLine {
		return "", fmt.Errorf("the command line would have %d bytes, and the kernel cuts it off after %d", len(line), MaxCommandLine)
	}
	return line, nil
}

// Split parts what a person typed into arguments, as the kernel does.
func Split(text string) ([]string, error) { return split(text) }

// split parts a line where the kernel does: at white space outside of double quotes (lib/cmdline.c, next_arg).
func split(line string) ([]string, error) {
	var words []string
	start, quoted := -1, false
	for i := range len(line) {
		switch c := line[i]; {
		case (c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\v' || c == '\f') && !quoted:
			if start >= 0 {
				words = append(words, line[start:i])
				start = -1
			}
			continue
		case c == '"':
			quoted = !quoted
		}
		if start < 0 {
			start = i
		}
	}
	if quoted {
		return nil, fmt.Errorf("a quotation mark in %q has no end", line[max(start, 0):])
	}
	if start >= 0 {
		words = append(words, line[start:])
	}
	return words, nil
}

// key is the name of an argument. To the kernel a dash in it is an underscore (kernel/params.c, parameqn).
func key(word string) string {
	name, _, _ := strings.Cut(strings.Trim(word, `"`), "=")
	return strings.ReplaceAll(name, "-", "_")
}

// CheckWords says which of them is no argument that Apply takes.
func CheckWords(words []string) error {
	for _, word := range words {
		if err := checkWord(word); err != nil {
			return err
		}
	}
	return nil
}

func checkWord(word string) error {
	words, err := split(word)
	if err != nil {
		return err
	}
	if len(words) != 1 || words[0] != word || word == "--" {
		return fmt.Errorf("%q is not one kernel argument", word)
	}
	for i := range len(word) {
		if word[i] < ' ' || word[i] > '~' {
			return fmt.Errorf("%q has a character that is not printable ASCII", word)
		}
	}
	return nil
}
