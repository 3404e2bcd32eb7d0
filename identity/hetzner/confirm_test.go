package hetzner

import (
	"strings"
	"testing"
)

func TestLineOf(t *testing.T) {
	for about, c := range map[string]struct{ document, value string }{
		"a word":                                 {"a: b\nhostname: my-server\n", "my-server"},
		"a number is its text":                   {"hostname: 0x2a\n", "0x2a"},
		"quotes belong to the document":          {"hostname: 'my-server'\n", "my-server"},
		"a comment is none of it":                {"hostname: my-server # ours\n", "my-server"},
		"carriage returns are white space":       {"hostname: my-server\r\nx: y\r\n", "my-server"},
		"the first of two counts":                {"hostname: a\nhostname: b\n", "a"},
		"what stands deeper is another's":        {"network:\n  hostname: a\n", ""},
		"a longer key is another":                {"hostname2: a\n", ""},
		"what stands behind may be anything":     {"hostname: a\nkeys: [\"", "a"},
		"a line without its end is not there":    {"hostname: my-serv", ""},
		"a line that is no YAML is not there":    {"hostname: [a\n", ""},
		"a mapping has no value":                 {"hostname: {a: b}\n", ""},
		"a line that no name needs is not there": {"hostname: " + strings.Repeat("[", 1000) + "\n", ""},
		"an empty document has nothing":          {"", ""},
		"a value of nothing is nobody's value":   {"hostname:\nx: y\n", ""},
	} {
		t.Run(about, func(t *testing.T) {
			value, found := lineOf([]byte(c.document), "hostname")
			if value != c.value || found && value == "" {
				t.Errorf("got %q, %v; want %q", value, found, c.value)
			}
		})
	}
}

// FuzzLineOf: however a document is cut, its value is the same or is not there.
func FuzzLineOf(f *testing.F) {
	for _, s := range []string{exampleDocument, "hostname: my-server\n", "hostname: \"a\\x41\"\nhostname: b\n", "hostname: &a [*a]\n", "hostname: !!binary aaaa\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, document string) {
		whole, there := lineOf([]byte(document), "hostname")
		for n := range min(len(document), 300) {
			value, found := lineOf([]byte(document[:n]), "hostname")
			if found && (!there || value != whole) {
				t.Fatalf("%q of %q, %q of its first %d bytes", whole, document, value, n)
			}
		}
		if strings.ContainsAny(whole, "\n") && !strings.Contains(document, `\`) {
			t.Errorf("several lines: %q", whole)
		}
	})
}
