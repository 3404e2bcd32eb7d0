package uki

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nametag-boot/nametag/internal/kernelarg"
)

// MaxCommandLine is how many bytes of it the kernel keeps, on amd64 and arm64.
const MaxCommandLine = kernelarg.MaxLine

// Arguments is what is to be done to a kernel command line, in this order. The zero value does nothing.
type Arguments struct {
	Remove  []string // names: every argument of that name goes
	Replace []string // arguments: each takes the place of the first of its name, the others go; at the end where there is none
	Append  []string // arguments: each comes to the end, unless it is there already
}

// Apply does it. Done twice it changes nothing more. What is to come to the end stands before a "--", behind which the
// kernel reads no argument. The line's own quoting is left alone, and one that needs no change comes back as it was.
func (a Arguments) Apply(line string) (string, error) {
	mine, rest, err := split(line)
	if err != nil {
		return "", err
	}
	before := slices.Concat(mine, rest)
	for _, list := range [][]string{a.Remove, a.Replace, a.Append} {
		for _, word := range list {
			if err := checkWord(word); err != nil {
				return "", err
			}
		}
	}
	for _, name := range a.Remove {
		mine = slices.DeleteFunc(mine, func(w string) bool { return sameName(w, name) })
	}
	for _, word := range a.Replace {
		at := slices.IndexFunc(mine, func(w string) bool { return sameName(w, word) })
		if at < 0 {
			mine = append(mine, word)
			continue
		}
		mine[at] = word
		tail := slices.DeleteFunc(slices.Clone(mine[at+1:]), func(w string) bool { return sameName(w, word) })
		mine = append(mine[:at+1], tail...)
	}
	for _, word := range a.Append {
		if !slices.Contains(mine, word) {
			mine = append(mine, word)
		}
	}
	words := slices.Concat(mine, rest)
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
func Split(text string) ([]string, error) {
	mine, rest, err := split(text)
	return slices.Concat(mine, rest), err
}

// split parts a line into what the kernel reads and what it leaves to init. The kernel takes a quotation mark without an
// end for one that ends with the line; here that is refused, since more is to come behind it.
func split(line string) (mine, rest []string, err error) {
	own, others := kernelarg.Split(line)
	for _, a := range slices.Concat(own, others) {
		if a.Open {
			return nil, nil, fmt.Errorf("a quotation mark in %q has no end", a.Text)
		}
	}
	return kernelarg.Texts(own), kernelarg.Texts(others), nil
}

// sameName reports whether two arguments are of one name, to the kernel.
func sameName(word, other string) bool {
	args, rest := kernelarg.Split(other)
	if args = slices.Concat(args, rest); len(args) != 1 {
		return false
	}
	own, _ := kernelarg.Split(word)
	return len(kernelarg.Named(own, args[0].Name)) == 1
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
	words, _, err := split(word) // a "--" is none of ours
	if err != nil {
		return err
	}
	if len(words) != 1 || words[0] != word {
		return fmt.Errorf("%q is not one kernel argument", word)
	}
	for i := range len(word) {
		if word[i] < ' ' || word[i] > '~' {
			return fmt.Errorf("%q has a character that is not printable ASCII", word)
		}
	}
	return nil
}
