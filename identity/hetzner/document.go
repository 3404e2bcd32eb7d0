package hetzner

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/nametag-boot/nametag/identity/metadata"
)

// A document is what the service tells, read as far as nametag needs it: YAML whose top level is a mapping in block
// style, as its generator writes it. Everything of YAML is stepped over correctly; of values, only those are read that
// stand on one line and need no decoding. What is written in another way is refused, never guessed.
type document struct {
	entries []entry
}

// An entry is one key at the top, with the lines that belong to it.
type entry struct {
	node
	below []node
}

// parseDocument reads a body. Where the body's end is not certain it may have been cut anywhere: then the last entry is
// not there, since nothing that follows it shows that it is whole. So a value that is there is the same wherever the
// body was cut.
func parseDocument(body []byte, certain bool) (document, error) {
	if !certain {
		body = body[:bytes.LastIndexByte(body, '\n')+1]
	}
	nodes, err := lex(string(body), certain)
	if err != nil {
		return document{}, err
	}
	var d document
	seen := make(map[string]bool)
	for _, n := range nodes {
		top := n.column == 0 && n.item < 0
		switch {
		case top && seen[n.key]:
			return document{}, fmt.Errorf("%w: %.40q stands there twice", metadata.ErrMalformed, n.key)
		case top:
			seen[n.key] = true
			d.entries = append(d.entries, entry{node: n})
		case len(d.entries) == 0:
			return document{}, fmt.Errorf("%w: it does not begin with a key", metadata.ErrMalformed)
		default:
			last := &d.entries[len(d.entries)-1]
			if last.form != nothing {
				return document{}, fmt.Errorf("%w: %.40q has a value, and more below it", metadata.ErrMalformed, last.key)
			}
			last.below = append(last.below, n)
		}
	}
	if !certain && len(d.entries) > 0 {
		d.entries = d.entries[:len(d.entries)-1]
	}
	return d, nil
}

// find returns the entry of a key.
func (d document) find(key string) (entry, bool) {
	for _, e := range d.entries {
		if e.key == key {
			return e, true
		}
	}
	return entry{}, false
}

// scalar returns the text of a key's value, empty where it has none. There is none to be read if the key is not there.
func (d document) scalar(key string) (text string, there bool, err error) {
	e, there := d.find(key)
	if !there {
		return "", false, nil
	}
	if len(e.below) > 0 || e.form != nothing && e.form != scalar {
		return "", true, fmt.Errorf("%w: %.40q is no plain value", metadata.ErrMalformed, key)
	}
	return e.value, true, nil
}

// The form of a value.
type form uint8

const (
	nothing form = iota // the value, if there is one, stands on the lines below
	scalar              // value is its text
	flow                // value is its text, brackets included
	strange             // what is not read here: several lines, escapes, a tag, an anchor, an alias
)

// A node is one line that is not part of a longer scalar: "- key: value" or parts of that.
type node struct {
	indent int    // column of the first thing on the line
	column int    // of the key, or of the value where there is no key
	item   int    // column of the last dash, or -1
	dashes int    // how many
	key    string // or empty
	form   form
	value  string
}

// maxNodes bounds what a document costs: each line takes many times its size.
const maxNodes = 8 << 10

// lex splits a text into nodes. Lines of a longer scalar, and comments, are none. With a text that was cut, what is open
// at its end is no error.
func lex(text string, whole bool) ([]node, error) {
	text = strings.ReplaceAll(text, "\r\n", "\n")
	if !utf8.ValidString(text) || strings.ContainsFunc(text, forbidden) {
		return nil, fmt.Errorf("%w: bytes that no YAML has", metadata.ErrMalformed)
	}
	l := lexer{deep: -1}
	for line := range strings.Lines(text) {
		if err := l.line(strings.TrimRight(line, " \t\n")); err != nil {
			return nil, err
		}
	}
	if whole && l.open.busy() {
		return nil, fmt.Errorf("%w: a value does not end", metadata.ErrMalformed)
	}
	return l.nodes, nil
}

// A lexer goes through a text line by line.
type lexer struct {
	nodes []node
	open  scanner // a quoted or bracketed value that goes on over the line's end
	deep  int     // lines beyond this column belong to the scalar above; -1: none do
}

// malformed says what is wrong with a line.
func malformed(why, line string) error {
	return fmt.Errorf("%w: %s: %.40q", metadata.ErrMalformed, why, line)
}

// line takes the next line, without the white space at its end.
func (l *lexer) line(line string) error {
	column := len(line) - len(strings.TrimLeft(line, " "))
	switch {
	case l.open.busy():
		return l.goOn(line, column)
	case line == "":
		return nil
	case column > l.deep && l.deep >= 0:
		if line[column] != '#' {
			l.nodes[len(l.nodes)-1].form = strange
		}
		return nil
	case line[column] == '#', len(l.nodes) == 0 && line == "---":
		return nil
	}
	if err := l.allowed(line, column); err != nil {
		return err
	}
	return l.add(line, column)
}

// goOn takes a line of a quoted or bracketed value.
func (l *lexer) goOn(line string, column int) error {
	if line != "" && column == 0 && line[0] != '\t' {
		return malformed("it stands amid a quoted value or brackets", line)
	}
	if rest, done := l.open.feed(line); done && !commentOnly(rest) {
		return malformed("it goes on after its value", line)
	}
	return nil
}

// allowed refuses what is no line of the one mapping that is read here.
func (l *lexer) allowed(line string, column int) error {
	switch {
	case line[column] == '\t':
		return malformed("a tab indents it", line)
	case column == 0 && (strings.HasPrefix(line, "---") || strings.HasPrefix(line, "...") || line[0] == '%'):
		return malformed("a second document", line)
	case len(l.nodes) == maxNodes:
		return metadata.ErrTooLarge
	}
	return nil
}

// add takes a line that is a node.
func (l *lexer) add(line string, column int) error {
	n, rest, ok := split(line, column)
	if !ok {
		return malformed("neither a key nor an item", line)
	}
	var err error
	if l.open, err = n.read(rest); err != nil {
		return malformed(err.Error(), line)
	}
	l.deep = -1
	if !l.open.busy() && (n.form == scalar || n.form == strange) {
		if l.deep = n.item; n.key != "" {
			l.deep = n.column
		}
	}
	l.nodes = append(l.nodes, n)
	return nil
}

// forbidden are the control characters that YAML has only as escapes, and what breaks a line for some and not for others.
func forbidden(r rune) bool {
	return r < ' ' && r != '\n' && r != '\t' || 0x7f <= r && r <= 0x9f || r == 0x2028 || r == 0x2029 || r == 0xfeff
}

// split takes dashes and key off a line, up to its value.
func split(line string, column int) (n node, rest string, ok bool) {
	n = node{indent: column, column: column, item: -1}
	rest = line[column:]
	for rest == "-" || strings.HasPrefix(rest, "- ") {
		n.item = len(line) - len(rest)
		n.dashes++
		rest = strings.TrimLeft(rest[1:], " ")
		n.column = len(line) - len(rest)
	}
	if key, value, found := cutKey(rest); found {
		n.key = key
		return n, value, key != ""
	}
	return n, rest, n.item >= 0
}

// cutKey splits "key: value".
func cutKey(s string) (key, value string, found bool) {
	if s == "" || strings.ContainsRune("[{}],#&*!|>%@`?", rune(s[0])) {
		return "", "", false
	}
	if s[0] == '"' || s[0] == '\'' {
		q := scanner{quote: s[0]}
		rest, done := q.feed(s[1:])
		after, colon := strings.CutPrefix(strings.TrimLeft(rest, " "), ":")
		if !done || !colon || after != "" && after[0] != ' ' && after[0] != '\t' {
			return "", "", false
		}
		key = s[1 : len(s)-len(rest)-1]
		if strings.ContainsAny(key, `\'`) {
			return "", after, true // no key of ours, and not to be mistaken for one
		}
		return key, strings.TrimLeft(after, " \t"), true
	}
	for i := range len(s) {
		switch {
		case s[i] == '#' && i > 0 && (s[i-1] == ' ' || s[i-1] == '\t'):
			return "", "", false
		case s[i] == ':' && (i+1 == len(s) || s[i+1] == ' ' || s[i+1] == '\t'):
			return strings.TrimRight(s[:i], " \t"), strings.TrimLeft(s[i+1:], " \t"), true
		}
	}
	return "", "", false
}

// read sets form and value from what stands behind the key. The scanner it returns is busy if the value goes on.
func (n *node) read(s string) (open scanner, err error) {
	for s != "" && (s[0] == '&' || s[0] == '!') { // an anchor or a tag
		n.form = strange
		i := strings.IndexAny(s, " \t")
		if i < 0 {
			n.form = nothing // of what stands on the lines below
			return open, nil
		}
		s = strings.TrimLeft(s[i:], " \t")
	}
	was := n.form
	n.form = scalar
	switch {
	case s == "", s[0] == '#':
		n.form = nothing
	case s[0] == '"', s[0] == '\'':
		open.quote = s[0]
		rest, done := open.feed(s[1:])
		if !done {
			n.form = strange
			return open, nil
		}
		if !commentOnly(rest) {
			return open, errAfter
		}
		n.value = s[1 : len(s)-len(rest)-1]
		if s[0] == '"' && strings.Contains(n.value, `\`) || s[0] == '\'' && strings.Contains(n.value, "'") {
			n.form = strange
		}
	case s[0] == '[', s[0] == '{':
		n.form = flow
		rest, done := open.feed(s)
		if !done {
			n.form = strange
			return open, nil
		}
		if !commentOnly(rest) {
			return open, errAfter
		}
		n.value = s[:len(s)-len(rest)]
	case strings.ContainsRune("|>*@`%]},", rune(s[0])), strings.HasPrefix(s, "- "), strings.HasPrefix(s, "? "), s == "-", s == "?":
		n.form = strange
	default:
		n.plain(s)
	}
	if was == strange {
		n.form = strange
	}
	return open, nil
}

// plain sets form and value from a word without quotes: YAML's plain scalar, of which a line is read.
func (n *node) plain(s string) {
	for i := 1; i < len(s); i++ {
		if s[i] == '#' && (s[i-1] == ' ' || s[i-1] == '\t') {
			s = s[:i]
		}
	}
	n.value = strings.TrimRight(s, " \t")
	if strings.Contains(n.value, ": ") || strings.Contains(n.value, ":\t") || strings.HasSuffix(n.value, ":") {
		n.form = strange
	}
	if slices.Contains([]string{"~", "null", "Null", "NULL"}, n.value) {
		n.value = ""
	}
}

var errAfter = errors.New("it goes on after its value")

// commentOnly reports whether nothing that counts stands behind a value.
func commentOnly(rest string) bool {
	trimmed := strings.TrimLeft(rest, " \t")
	return trimmed == "" || trimmed[0] == '#' && len(trimmed) < len(rest)
}

// A scanner finds the end of a value in quotes or brackets, over several lines.
type scanner struct {
	quote byte // that is open, or 0
	depth int  // of brackets
	last  byte // the last byte that is no blank, in brackets
}

func (s *scanner) busy() bool { return s.quote != 0 || s.depth > 0 }

// feed goes on with a line, and returns what stands behind the value's end.
func (s *scanner) feed(line string) (rest string, done bool) {
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case s.quote == '"' && c == '\\':
			i++
			continue
		case s.quote == '\'' && c == '\'' && i+1 < len(line) && line[i+1] == '\'':
			i++
			continue
		case s.quote != 0:
			if c == s.quote {
				s.quote, s.last = 0, c
			}
		case c == ' ', c == '\t':
			continue
		case c == '#' && (i == 0 || line[i-1] == ' ' || line[i-1] == '\t'):
			return "", false
		case (c == '"' || c == '\'') && strings.IndexByte("[{,:", s.last) >= 0:
			s.quote = c // elsewhere it is a letter of a plain word
		default:
			switch c {
			case '[', '{':
				s.depth++
			case ']', '}':
				s.depth--
			}
			s.last = c
		}
		if !s.busy() {
			return line[i+1:], true
		}
	}
	return "", false
}
