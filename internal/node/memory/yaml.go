//go:build linux

package memory

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A reader of YAML as programs write it, and most people: block mappings of plain or quoted scalars. It finds a few values
// by their path and looks at nothing else. What it does find is what any other reader finds, and where a document has a
// form that it does not know (flow mappings, anchors, keys in angle brackets), it says so and finds nothing in it. A whole
// YAML library would cost each start of the node's binary more than the rest of this.

// errForm is what a document in another form is to this reader.
var errForm = errors.New("it is written in a form of YAML that is not read here")

// key is a path in a document, such as machine/network/hostname.
type key string

// scalars returns, for each document of text, the values of the keys that stand in it. A document that cannot be read has
// none; the error then says so, beside what the others have.
func scalars(text []byte, keys ...key) (found []map[key]string, err error) {
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	if !utf8.Valid(text) || bytes.ContainsFunc(text, unfit) {
		return nil, fmt.Errorf("%w: it is not text, or has other ends of lines", errForm)
	}
	d := newDocument(keys)
	end := func() {
		if d.failed {
			err = errForm
		} else if len(d.found) > 0 {
			found = append(found, d.found)
		}
		d = newDocument(keys)
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case marks(line, "---"):
			end()
			if rest := withoutComment(line[3:]); rest != "" {
				d.failed = true
			}
		case marks(line, "..."):
			end()
		case !d.failed:
			d.line(line)
		}
	}
	end()
	return found, err
}

// unfit reports what YAML takes for the end of a line beside the usual one, or does not take at all.
func unfit(r rune) bool {
	return r < ' ' && r != '\t' && r != '\n' || r >= 0x7f && r <= 0x9f || r == '\u2028' || r == '\u2029' || r == '\ufeff'
}

// marks reports whether a line begins or ends a document, which nothing else can look like (YAML 1.2.2, 9.1.2).
func marks(line, marker string) bool {
	rest, ok := strings.CutPrefix(line, marker)
	return ok && (rest == "" || rest[0] == ' ' || rest[0] == '\t')
}

// level is one of the nested nodes that a line stands in: a key of a mapping, or the dash of a sequence's entry.
type level struct {
	indent int
	name   string
	dash   bool
	empty  bool // nothing stands behind the colon: what follows may be nested, or a scalar
	plain  bool // a plain scalar stands there, which may go on
	seen   []string
}

// document is one document while it is read.
type document struct {
	keys   []key
	found  map[key]string
	levels []level
	top    []string // the keys of the document's own mapping
	block  int      // a block scalar goes on while lines are indented by more than that; -1: there is none
	quote  byte     // a quoted scalar goes on over lines
	failed bool
}

func newDocument(keys []key) *document {
	return &document{keys: keys, found: map[key]string{}, block: -1}
}

// line reads one line.
func (d *document) line(line string) {
	content := strings.TrimLeft(line, " ")
	indent := len(line) - len(content)
	switch {
	case d.quote != 0:
		d.closeQuote(line)
		return
	case strings.TrimLeft(content, "\t") == "":
		return
	case d.block >= 0 && indent >= d.block:
		return
	}
	d.block = -1
	switch content[0] {
	case '#':
		return
	case '\t', '%':
		d.failed = true
		return
	}
	d.node(content, indent)
}

// node reads what stands at an indentation: an entry of a sequence, or a key with its value.
func (d *document) node(content string, indent int) {
	d.leave(indent)
	if content == "-" || strings.HasPrefix(content, "- ") {
		if n := len(d.levels); n > 0 && d.levels[n-1].indent == indent && d.levels[n-1].dash {
			d.levels = d.levels[:n-1]
		}
		if !d.opens() {
			d.failed = true
			return
		}
		d.levels = append(d.levels, level{indent: indent, dash: true, empty: true})
		rest := strings.TrimLeft(content[1:], " ")
		switch {
		case rest == "" || rest[0] == '#':
		case strings.HasPrefix(rest, "\t"):
			d.failed = true
		case isKey(rest) || rest == "-" || strings.HasPrefix(rest, "- "):
			d.node(rest, indent+len(content)-len(rest))
		default:
			d.value(rest, indent)
		}
		return
	}
	name, value, ok := cutKey(content)
	if !ok {
		d.goesOn(content, indent)
		return
	}
	if n := len(d.levels); n > 0 && d.levels[n-1].indent == indent {
		d.levels = d.levels[:n-1]
	}
	if !d.opens() {
		d.failed = true
		return
	}
	seen := &d.top
	if n := len(d.levels); n > 0 {
		seen = &d.levels[n-1].seen
	}
	if d.wanted(name) {
		if slices.Contains(*seen, name) {
			d.failed = true // twice: another reader refuses that
			return
		}
		*seen = append(*seen, name)
	}
	d.levels = append(d.levels, level{indent: indent, name: name, empty: true})
	d.value(value, indent)
}

// leave drops the levels that a node at an indentation is not in.
func (d *document) leave(indent int) {
	for n := len(d.levels); n > 0 && d.levels[n-1].indent > indent; n = len(d.levels) {
		d.levels = d.levels[:n-1]
	}
}

// opens reports whether a nested node may stand in the innermost level. (In the document itself there may be one mapping.)
func (d *document) opens() bool {
	if len(d.levels) == 0 {
		return true
	}
	return d.levels[len(d.levels)-1].empty
}

// goesOn takes a line that begins nothing: a plain scalar may go on over several lines, indented by more than its key.
func (d *document) goesOn(content string, indent int) {
	n := len(d.levels)
	if n == 0 || indent <= d.levels[n-1].indent {
		d.failed = true
		return
	}
	l := &d.levels[n-1]
	switch {
	case l.plain && !strings.Contains(content, ": ") && !strings.HasSuffix(content, ":"):
		delete(d.found, d.path()) // not a value that is read here
		if d.isWanted() {
			d.failed = true
		}
	case l.empty && !l.plain && !d.isWanted():
		d.value(content, l.indent)
	default:
		d.failed = true
	}
}

// value reads what stands behind a key's colon or an entry's dash.
func (d *document) value(text string, indent int) {
	l := &d.levels[len(d.levels)-1]
	if strings.Trim(text, " \t") == "" || text[0] == '#' {
		return // nested, or nothing
	}
	l.empty = false
	switch text[0] {
	case '|', '>':
		if !isBlockHeader(text) || d.isWanted() {
			d.failed = true
		}
		d.block = indent + 1
	case '"', '\'':
		d.quoted(text)
	case '{', '[':
		// Empty, or closed on its line with nothing in it that needs more than counting, where nothing is looked for.
		rest := withoutComment(text)
		if empty := rest == "{}" || rest == "[]"; !empty && (d.leads() || !isFlow(rest)) {
			d.failed = true
		}
	case '&', '*', '!', '@', '`', '%', '}', ']', ',', '\t':
		d.failed = true
	default:
		d.plain(text)
	}
}

// quoted takes a value in quotes.
func (d *document) quoted(text string) {
	value, rest, ok := unquote(text)
	switch {
	case !ok:
		// It goes on over lines, which no value that is looked for does.
		if d.failed = d.isWanted(); !d.failed {
			d.quote = text[0]
			d.closeQuote(text[1:])
		}
	case withoutComment(rest) != "":
		d.failed = true
	default:
		d.keep(value)
	}
}

// plain takes a value that stands as it is.
func (d *document) plain(text string) {
	indicator := strings.IndexByte("?:-", text[0]) >= 0 && (len(text) == 1 || text[1] == ' ')
	value := withoutComment(text)
	if indicator || strings.Contains(value, ": ") || strings.HasSuffix(value, ":") || strings.Contains(value, "\t") {
		d.failed = true
		return
	}
	d.levels[len(d.levels)-1].plain = true
	if isNull(value) {
		value = ""
	}
	d.keep(value)
}

// keep keeps the value of the innermost key, if it is one that is wanted.
func (d *document) keep(value string) {
	if d.isWanted() {
		d.found[d.path()] = value
	}
}

// path is the innermost key's.
func (d *document) path() key {
	names := make([]string, 0, len(d.levels))
	for _, l := range d.levels {
		if l.dash || strings.Contains(l.name, "/") {
			return ""
		}
		names = append(names, l.name)
	}
	return key(strings.Join(names, "/"))
}

func (d *document) isWanted() bool { return slices.Contains(d.keys, d.path()) }

// leads reports whether the innermost key is one that is wanted, or on the way to one.
func (d *document) leads() bool { return d.leadsTo(d.path()) }

func (d *document) leadsTo(path key) bool {
	return path != "" && slices.ContainsFunc(d.keys, func(k key) bool {
		return k == path || strings.HasPrefix(string(k), string(path)+"/")
	})
}

// wanted reports whether a key of that name, in the innermost level, is wanted or on the way to one that is. A merge key
// (<<) may bring one in.
func (d *document) wanted(name string) bool {
	path := key(name)
	if len(d.levels) > 0 {
		path = d.path() + "/" + path
		if d.path() == "" {
			return false
		}
	}
	if name == "<<" {
		d.failed = true
	}
	return d.leadsTo(path)
}

// closeQuote looks for the end of a quoted scalar that began on an earlier line.
func (d *document) closeQuote(line string) {
	for i := 0; i < len(line); i++ {
		switch {
		case d.quote == '"' && line[i] == '\\':
			i++
		case line[i] == d.quote && d.quote == '\'' && i+1 < len(line) && line[i+1] == '\'':
			i++
		case line[i] == d.quote:
			d.quote = 0
			if rest := withoutComment(line[i+1:]); rest != "" {
				d.failed = true
			}
			return
		}
	}
}

// cutKey cuts "name: value" into both. ok is false for what is no simple key.
func cutKey(content string) (name, value string, ok bool) {
	if content == "" {
		return "", "", false
	}
	if content[0] == '"' || content[0] == '\'' {
		name, rest, ok := unquote(content)
		if !ok {
			return "", "", false
		}
		value, ok := cutColon(strings.TrimLeft(rest, " "))
		return name, value, ok
	}
	n := strings.IndexFunc(content, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("_-./<", r)
	})
	if n > 0 && !strings.HasPrefix(content, "- ") {
		if value, ok := cutColon(content[n:]); ok {
			return content[:n], value, true
		}
	}
	return otherKey(content)
}

// cutColon cuts the colon of a key off.
func cutColon(s string) (value string, ok bool) {
	rest, ok := strings.CutPrefix(s, ":")
	if !ok || rest != "" && rest[0] != ' ' {
		return "", false
	}
	return strings.TrimLeft(rest, " "), true
}

// otherKey is a plain key of any letters: none that is looked for, so that only its end has to be found.
func otherKey(content string) (name, value string, ok bool) {
	if strings.ContainsAny(content[:1], "\"'?:{}[],&*!|>%@`#") || strings.Contains(content, " #") || strings.Contains(content, "\t") {
		return "", "", false
	}
	name, value, ok = strings.Cut(content, ": ")
	if !ok {
		if name, ok = strings.CutSuffix(content, ":"); !ok {
			return "", "", false
		}
	}
	return name, strings.TrimLeft(value, " "), !strings.HasSuffix(name, ":")
}

func isKey(content string) bool {
	_, _, ok := cutKey(content)
	return ok
}

// unquote reads a quoted scalar that ends on its line, and returns what follows.
func unquote(text string) (value, rest string, ok bool) {
	if text[0] == '\'' {
		var b strings.Builder
		for i := 1; i < len(text); i++ {
			switch {
			case text[i] != '\'':
				b.WriteByte(text[i])
			case i+1 < len(text) && text[i+1] == '\'':
				b.WriteByte('\'')
				i++
			default:
				return b.String(), text[i+1:], true
			}
		}
		return "", "", false
	}
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			// Of the escapes, those that Go has too, with the same meaning; a host name needs none.
			value, err := strconv.Unquote(text[:i+1])
			return value, text[i+1:], err == nil && !strings.Contains(text[:i+1], `\`)
		}
	}
	return "", "", false
}

// withoutComment returns what stands before a comment, without the blanks around it.
func withoutComment(s string) string {
	if i := strings.Index(s, " #"); i >= 0 {
		s = s[:i]
	}
	return strings.Trim(s, " \t")
}

// isBlockHeader reports whether a block scalar begins: | or > with its indicators.
func isBlockHeader(text string) bool {
	return strings.Trim(withoutComment(text)[1:], "+-") == ""
}

// isFlow reports whether a flow collection without quotes is closed where the text ends.
func isFlow(text string) bool {
	depth := 0
	for i, c := range []byte(text) {
		switch c {
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 && i < len(text)-1 {
				return false
			}
		case '"', '\'', '#', '&', '*', '!', '|', '>', '%', '@', '`', '?':
			return false
		}
	}
	return depth == 0
}

func isNull(s string) bool { return s == "~" || s == "null" || s == "Null" || s == "NULL" }
