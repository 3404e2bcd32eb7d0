// Package pin makes a Talos node's name its own for good: it writes the name that the node has into its machine
// configuration, as an explicit hostname. From then on a rename in the cloud changes nothing.
package pin

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A Form is where a machine configuration has an explicit hostname.
type Form string

// The forms.
const (
	Field    Form = "machine.network.hostname" // of every version; since 1.12 the older way
	Document Form = "HostnameConfig"           // a document of its own, since 1.12
)

// A configuration is a machine configuration, to be changed in its text: what is not touched stays as it is byte for byte,
// comments and documents of kinds that nobody here knows included.
type configuration struct {
	text []byte
	docs []document
}

// A document is one of the stream.
type document struct {
	start, end int // of its text in the stream, without the separators
	root       *yaml.Node
	kind       string
}

// parse reads the stream.
func parse(text []byte) (*configuration, error) {
	c := &configuration{text: text}
	for at := 0; at <= len(text); {
		end, next := len(text), len(text)+1
		for line := at; line < len(text); {
			eol := bytes.IndexByte(text[line:], '\n')
			stop := len(text)
			if eol >= 0 {
				stop = line + eol + 1
			}
			if l := bytes.TrimRight(text[line:stop], " \r\n"); bytes.Equal(l, []byte("---")) || bytes.HasPrefix(l, []byte("--- #")) {
				if line > at || at > 0 || line == 0 {
					end, next = line, stop
					break
				}
			}
			line = stop
		}
		d := document{start: at, end: end}
		var node yaml.Node
		switch err := yaml.Unmarshal(text[at:end], &node); {
		case err != nil:
			return nil, fmt.Errorf("the machine configuration is no YAML: %w", err)
		case node.Kind == yaml.DocumentNode && len(node.Content) == 1 && node.Content[0].Kind == yaml.MappingNode:
			d.root = node.Content[0]
			if k := child(d.root, "kind"); k != nil {
				d.kind = k.Value
			}
			c.docs = append(c.docs, d)
		}
		at = next
	}
	if len(c.docs) == 0 {
		return nil, errors.New("the machine configuration has no document")
	}
	return c, nil
}

// child is the value of a key of a mapping, nil where there is none.
func child(mapping *yaml.Node, key string) *yaml.Node {
	if mapping == nil || mapping.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return mapping.Content[i+1]
		}
	}
	return nil
}

func path(root *yaml.Node, keys ...string) *yaml.Node {
	for _, k := range keys {
		root = child(root, k)
	}
	return root
}

// main is the document that has no kind: the one of the first form.
func (c *configuration) main() *document { return c.of("") }

func (c *configuration) of(kind string) *document {
	for i := range c.docs {
		if c.docs[i].kind == kind {
			return &c.docs[i]
		}
	}
	return nil
}

// Hostname is the explicit hostname of a machine configuration, "" where there is none, and its form.
func Hostname(text []byte) (string, Form, error) {
	c, err := parse(text)
	if err != nil {
		return "", "", err
	}
	name, form := c.hostname()
	return name, form, nil
}

func (c *configuration) hostname() (string, Form) {
	if d := c.of(string(Document)); d != nil {
		if v := child(d.root, "hostname"); v != nil && v.Value != "" {
			return v.Value, Document
		}
	}
	if d := c.main(); d != nil {
		if v := path(d.root, "machine", "network", "hostname"); v != nil && v.Value != "" {
			return v.Value, Field
		}
	}
	return "", ""
}

// form is the one in which an explicit hostname is written: the one that the configuration has already. A HostnameConfig beside
// the field, or beside features.stableHostname, is refused by Talos.
func (c *configuration) form(version string) (Form, error) {
	if c.of(string(Document)) != nil {
		return Document, nil
	}
	d := c.main()
	if d == nil {
		return "", errors.New("the machine configuration has no document without a kind: it is not whole")
	}
	if v := path(d.root, "machine", "features", "stableHostname"); v != nil && v.Value == "true" {
		return Field, nil
	}
	if v := path(d.root, "machine", "network", "hostname"); v != nil {
		return Field, nil
	}
	has, err := hasDocument(version)
	if err != nil {
		return "", err
	}
	if has {
		return Document, nil
	}
	return Field, nil
}

// hasDocument reports whether a version of Talos, such as v1.12.7, knows the kind HostnameConfig.
func hasDocument(version string) (bool, error) {
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	if len(parts) < 2 {
		return false, fmt.Errorf("%q is no version of Talos", version)
	}
	major, err := strconv.Atoi(parts[0])
	if err != nil {
		return false, fmt.Errorf("%q is no version of Talos", version)
	}
	minor, err := strconv.Atoi(parts[1])
	if err != nil {
		return false, fmt.Errorf("%q is no version of Talos", version)
	}
	return major > 1 || major == 1 && minor >= 12, nil
}

// Set gives the configuration with the explicit hostname, for a node that runs that version of Talos.
func Set(text []byte, name, version string) ([]byte, error) {
	c, err := parse(text)
	if err != nil {
		return nil, err
	}
	form, err := c.form(version)
	if err != nil {
		return nil, err
	}
	var changed []byte
	switch {
	case form == Field:
		changed, err = c.setField(name)
	case c.of(string(Document)) != nil:
		changed = c.replace(c.of(string(Document)), hostnameConfig("hostname: "+name))
	default:
		changed = c.add(hostnameConfig("hostname: " + name))
	}
	if err != nil {
		return nil, err
	}
	return changed, c.onlyTheName(changed, name)
}

// Clear gives the configuration without an explicit hostname. auto is what a HostnameConfig is left with, stable or off: Talos takes
// none that says nothing.
func Clear(text []byte, auto string) ([]byte, error) {
	c, err := parse(text)
	if err != nil {
		return nil, err
	}
	var changed []byte
	switch _, form := c.hostname(); form {
	case Document:
		changed = c.replace(c.of(string(Document)), hostnameConfig("auto: "+auto))
	case Field:
		changed, err = c.cutField()
	default:
		return text, nil
	}
	if err != nil {
		return nil, err
	}
	return changed, c.onlyTheName(changed, "")
}

func hostnameConfig(what string) string {
	return "apiVersion: v1alpha1\nkind: HostnameConfig\n" + what + "\n"
}

// replace puts another text in the place of a document.
func (c *configuration) replace(d *document, text string) []byte {
	return slices.Concat(c.text[:d.start], []byte(text), c.text[d.end:])
}

// add puts a document at the end.
func (c *configuration) add(text string) []byte {
	end := c.text
	if len(end) > 0 && end[len(end)-1] != '\n' {
		end = append(slices.Clone(end), '\n')
	}
	return slices.Concat(end, []byte("---\n"+text))
}

// setField writes machine.network.hostname.
func (c *configuration) setField(name string) ([]byte, error) {
	d := c.main()
	machine := child(d.root, "machine")
	if machine == nil || machine.Kind != yaml.MappingNode || len(machine.Content) == 0 || machine.Style&yaml.FlowStyle != 0 {
		return nil, errors.New("the machine configuration has no section machine to write to")
	}
	network := child(machine, "network")
	if network == nil {
		column := machine.Content[0].Column - 1
		return c.insert(d, machine.Content[0].Line, fmt.Sprintf("%snetwork:\n%shostname: %s\n", spaces(column), spaces(2*max(column, 2)), name)), nil
	}
	if v := child(network, "hostname"); v != nil {
		return c.overwrite(d, v, name)
	}
	switch {
	case network.Kind == yaml.MappingNode && network.Style&yaml.FlowStyle == 0 && len(network.Content) > 0:
		first := network.Content[0]
		return c.insert(d, first.Line, spaces(first.Column-1)+"hostname: "+name+"\n"), nil
	case len(network.Content) == 0 && (network.Kind == yaml.MappingNode || network.Tag == "!!null"):
		// network: {} or network: with nothing behind it
		for i := 0; i+1 < len(machine.Content); i += 2 {
			if machine.Content[i+1] == network {
				key := machine.Content[i]
				column := key.Column - 1
				line := fmt.Sprintf("%snetwork:\n%shostname: %s\n", spaces(column), spaces(2*max(column, 2)), name)
				start, end := c.line(d, key.Line)
				return slices.Concat(c.text[:start], []byte(line), c.text[end:]), nil
			}
		}
	}
	return nil, errors.New("machine.network is written in braces: write it as a block, or set the hostname there by hand")
}

// cutField takes machine.network.hostname away, with its line.
func (c *configuration) cutField() ([]byte, error) {
	d := c.main()
	network := path(d.root, "machine", "network")
	v := child(network, "hostname")
	if network.Style&yaml.FlowStyle != 0 {
		return nil, errors.New("machine.network is written in braces: take the hostname away by hand")
	}
	start, end := c.line(d, v.Line)
	if len(network.Content) > 2 {
		return slices.Concat(c.text[:start], c.text[end:]), nil
	}
	// It was all that network had, and a key without a value would stay: it gets one.
	machine := path(d.root, "machine")
	for i := 0; i+1 < len(machine.Content); i += 2 {
		if machine.Content[i].Value == "network" {
			keyStart, keyEnd := c.line(d, machine.Content[i].Line)
			key := bytes.TrimRight(c.text[keyStart:keyEnd], " \r\n")
			return slices.Concat(c.text[:keyStart], key, []byte(" {}\n"), c.text[keyEnd:start], c.text[end:]), nil
		}
	}
	return nil, errors.New("machine.network was not found again")
}

// overwrite puts another scalar in the place of one.
func (c *configuration) overwrite(d *document, v *yaml.Node, name string) ([]byte, error) {
	start, end := c.line(d, v.Line)
	line := string(c.text[start:end])
	at := v.Column - 1
	if at > len(line) {
		return nil, errors.New("the hostname was not found in its line")
	}
	old := v.Value
	switch v.Style {
	case yaml.DoubleQuotedStyle:
		old = `"` + v.Value + `"`
	case yaml.SingleQuotedStyle:
		old = `'` + v.Value + `'`
	}
	if !strings.HasPrefix(line[at:], old) {
		return nil, errors.New("the hostname is written in a way that is not understood: set it by hand")
	}
	return slices.Concat(c.text[:start], []byte(line[:at]+name+line[at+len(old):]), c.text[end:]), nil
}

// insert puts text before a line of a document.
func (c *configuration) insert(d *document, line int, text string) []byte {
	start, _ := c.line(d, line)
	return slices.Concat(c.text[:start], []byte(text), c.text[start:])
}

// line is where a line of a document, counted from 1, begins and ends in the stream.
func (c *configuration) line(d *document, n int) (start, end int) {
	start = d.start
	for range n - 1 {
		start += bytes.IndexByte(c.text[start:d.end], '\n') + 1
	}
	if eol := bytes.IndexByte(c.text[start:d.end], '\n'); eol >= 0 {
		return start, start + eol + 1
	}
	return start, d.end
}

func spaces(n int) string { return strings.Repeat(" ", n) }

// onlyTheName reads both texts and makes sure that they mean the same but for the hostname.
func (c *configuration) onlyTheName(changed []byte, name string) error {
	got, _, err := Hostname(changed)
	if err != nil {
		return fmt.Errorf("the changed configuration: %w", err)
	}
	if got != name {
		return fmt.Errorf("the changed configuration has the hostname %q, want %q", got, name)
	}
	before, err := nameless(c.text)
	if err != nil {
		return err
	}
	after, err := nameless(changed)
	if err != nil {
		return err
	}
	if !reflect.DeepEqual(before, after) {
		return errors.New("the change would touch more than the hostname; nothing was done")
	}
	return nil
}

// nameless is what a configuration means without its hostname.
func nameless(text []byte) ([]map[string]any, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var docs []map[string]any
	for {
		var doc map[string]any
		err := decoder.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return nil, err
		}
		if doc == nil || doc["kind"] == string(Document) {
			continue
		}
		if machine, ok := doc["machine"].(map[string]any); ok {
			network, _ := machine["network"].(map[string]any)
			delete(network, "hostname")
			if len(network) == 0 {
				delete(machine, "network")
			}
		}
		docs = append(docs, doc)
	}
}

// Diff shows the lines that differ and no other: those around them may be secrets.
func Diff(before, after []byte) string {
	a, b := strings.SplitAfter(string(before), "\n"), strings.SplitAfter(string(after), "\n")
	head := 0
	for head < len(a) && head < len(b) && a[head] == b[head] {
		head++
	}
	tail := 0
	for tail < len(a)-head && tail < len(b)-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	if head == len(a) && head == len(b) {
		return ""
	}
	var out strings.Builder
	fmt.Fprintf(&out, "@@ line %d @@\n", head+1)
	for _, part := range []struct {
		sign  string
		lines []string
	}{{"-", a[head : len(a)-tail]}, {"+", b[head : len(b)-tail]}} {
		for _, l := range part.lines {
			if l != "" {
				out.WriteString(part.sign + strings.TrimSuffix(l, "\n") + "\n")
			}
		}
	}
	return out.String()
}
