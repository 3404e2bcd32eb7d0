package hetzner

import (
	"errors"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/nametag-boot/nametag/identity/metadata"
)

func TestDocument(t *testing.T) {
	for about, c := range map[string]struct{ document, value string }{
		"a word":                                 {"a: b\nhostname: my-server\n", "my-server"},
		"a number is its text":                   {"hostname: 0x2a\n", "0x2a"},
		"single quotes":                          {"hostname: 'my-server'\n", "my-server"},
		"double quotes":                          {"hostname: \"my-server\"\n", "my-server"},
		"a quoted key":                           {"\"hostname\": my-server\n", "my-server"},
		"a comment is none of it":                {"hostname: my-server # ours\n", "my-server"},
		"a comment after quotes":                 {"hostname: 'my-server' # ours\n", "my-server"},
		"carriage returns are the line's end":    {"hostname: my-server\r\nx: y\r\n", "my-server"},
		"no end of line at the document's end":   {"hostname: my-server", "my-server"},
		"a document's start":                     {"---\nhostname: my-server\n", "my-server"},
		"what stands deeper is another's":        {"network:\n  hostname: a\nhostname: my-server\n", "my-server"},
		"in a list":                              {"network:\n- hostname: a\nhostname: my-server\n", "my-server"},
		"in a folded plain scalar":               {"a: b\n  hostname\n  \"c\nhostname: my-server\n", "my-server"},
		"in a literal":                           {"a: |\n  hostname: a\n\n  'x\nhostname: my-server\n", "my-server"},
		"in a literal of an item":                {"a:\n- |\n hostname: a\n  \"x\nhostname: my-server\n", "my-server"},
		"in double quotes":                       {"a: \"x\\\n  hostname: y\\\"\n  z\"\nhostname: my-server\n", "my-server"},
		"in single quotes":                       {"a: 'x\n  hostname: ''y''\n  z'\nhostname: my-server\n", "my-server"},
		"in brackets":                            {"a: [x,\n  hostname: y, \"]\", it's]\nhostname: my-server\n", "my-server"},
		"behind an anchor":                       {"a: &x\n- b\nc: &y \"d\n  hostname: e\"\nhostname: my-server\n", "my-server"},
		"a quote amid a plain word opens none":   {"a:\n- it's\n- x \"y\nhostname: my-server\n", "my-server"},
		"a quote that a folded line begins with": {"a: b\n  'c\nhostname: my-server\n", "my-server"},
		"a longer key is another":                {"hostname2: a\nhostname: my-server\n", "my-server"},
		"a value of nothing is empty":            {"hostname:\nx: y\n", ""},
		"so is null":                             {"hostname: null\n", ""},
		"and quotes with nothing in them":        {"hostname: ''\n", ""},
	} {
		t.Run(about, func(t *testing.T) {
			d, err := parseDocument([]byte(c.document), true)
			value, there, valueErr := d.scalar("hostname")
			if value != c.value || !there || err != nil || valueErr != nil {
				t.Errorf("got %q, %v, %v, %v; want %q", value, there, err, valueErr, c.value)
			}
			var reference struct{ Hostname string }
			if err := yaml.Unmarshal([]byte(c.document), &reference); err != nil || reference.Hostname != c.value {
				t.Errorf("the reference has %q, %v", reference.Hostname, err)
			}
		})
	}
	for about, document := range map[string]string{
		"twice":                             "hostname: a\nhostname: b\n",
		"twice, once quoted":                "hostname: a\n'hostname': a\n",
		"over two lines":                    "hostname: my\n  server\n",
		"over two lines, quoted":            "hostname: 'my\n  server'\n",
		"a list":                            "hostname:\n- a\n",
		"a list on its line":                "hostname: [a]\n",
		"a mapping":                         "hostname:\n  a: b\n",
		"a literal":                         "hostname: |\n  a\n",
		"escapes":                           "hostname: \"\\x61\"\n",
		"quotes in quotes":                  "hostname: 'a''b'\n",
		"a tag":                             "hostname: !!binary YQ==\n",
		"an anchor":                         "hostname: &a b\n",
		"an alias":                          "a: &a b\nhostname: *a\n",
		"a second document":                 "a: b\n---\nhostname: a\n",
		"a document's end":                  "a: b\n...\nhostname: a\n",
		"a directive":                       "%YAML 1.1\n---\nhostname: a\n",
		"tabs":                              "a:\n\tb: c\nhostname: a\n",
		"amid quotes":                       "a: \"b\nhostname: a\n\"\n",
		"amid quotes that stand deeper":     "a:\n  b: \"c\nhostname: a\n  d\"\n",
		"amid brackets":                     "a: [b,\nhostname: a\n]\n",
		"amid quotes that do not end":       "hostname: a\nb: \"c\n",
		"a value, and then a list":          "hostname: a\n- b\n",
		"two keys on a line":                "hostname: a: b\n",
		"a carriage return amid the line":   "a: b\rhostname: c\nhostname: d\n",
		"a NUL":                             "hostname: a\x00\n",
		"a byte order mark":                 "\ufeffhostname: a\n",
		"no UTF-8":                          "hostname: a\xff\n",
		"text after quotes":                 "hostname: 'a'b\n",
		"a line that is no entry":           "hostname: a\nb\n",
		"a set":                             "? hostname\n",
		"no mapping":                        "- hostname: a\n",
		"more lines than there is room for": strings.Repeat("a:\n- b\n", maxNodes),
		"a mapping in braces":               "{hostname: a}\n",
	} {
		t.Run(about+" is refused", func(t *testing.T) {
			d, err := parseDocument([]byte(document), true)
			if err == nil {
				var value string
				if value, _, err = d.scalar("hostname"); err == nil {
					t.Errorf("got %q", value)
				}
			}
			if !errors.Is(err, metadata.ErrMalformed) && !errors.Is(err, metadata.ErrTooLarge) || len(err.Error()) > 300 {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestDocumentCutAtEveryByte: what is there is right, wherever the document is cut, and what is not is said to be missing.
func TestDocumentCutAtEveryByte(t *testing.T) {
	whole := map[string]string{"hostname": "my-server", "instance-id": "42", "region": "eu-central", "availability-zone": "hel1-dc2", "public-ipv4": "203.0.113.7"}
	named := 0
	for n := range len(exampleDocument) + 1 {
		d, err := parseDocument([]byte(exampleDocument[:n]), false)
		if err != nil {
			t.Errorf("cut after %d bytes: %v", n, err)
		}
		for key, want := range whole {
			if got, there, err := d.scalar(key); there && (got != want || err != nil) {
				t.Errorf("cut after %d bytes: %s is %q, %v", n, key, got, err)
			}
		}
		if e, there := d.find("private-networks"); there {
			t.Errorf("cut after %d bytes: the last key is there, with %v", n, e)
		}
		if who, err := parseWitness([]byte(exampleDocument[:n]), false); err == nil {
			named++
			if who.name != "my-server" || who.id != "42" {
				t.Errorf("cut after %d bytes: %q, %q", n, who.name, who.id)
			}
		} else if !errors.Is(err, metadata.ErrUncertain) {
			t.Errorf("cut after %d bytes: %v", n, err)
		}
	}
	if named == 0 {
		t.Error("never named")
	}
}

// FuzzDocument: what is read is what a whole YAML decoder reads, and the same or not there however the document is cut.
func FuzzDocument(f *testing.F) {
	for _, s := range []string{
		exampleDocument, "hostname: my-server\n", "hostname: \"a\\x41\"\nhostname: b\n", "hostname: &a [*a]\n", "hostname: !!binary aaaa\n",
		"a: [\"x\", 'y', {z: [}, ]\nhostname: b\n", "a: |2-\n   x\n  hostname: y\nhostname: z\n", "a:\n- - b: c\n    d: 'e\n f'\nhostname: x # y\n",
		"'hostname': x\n\"a b\": y\n", "a: b\n  c: d\nhostname: e\n", "hostname: x\n#\n  y\n", "a: \"\\\"\nhostname: b\n", "a: >\n\n\nhostname: b\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := parseDocument([]byte(text), true)
		if err != nil {
			return
		}
		value, there, err := d.scalar("hostname")
		if err != nil {
			return
		}
		var reference map[string]yaml.Node
		if yaml.Unmarshal([]byte(text), &reference) == nil {
			node, has := reference["hostname"]
			want := node.Value
			if node.Tag == "!!null" {
				want = ""
			}
			if has != there || value != want {
				t.Errorf("got %q, %v; the reference has %q, %v", value, there, want, has)
			}
		}
		for n := range min(len(text), 300) {
			cut, err := parseDocument([]byte(text[:n]), false)
			if err != nil {
				continue
			}
			if part, had, err := cut.scalar("hostname"); had && err == nil && part != value {
				t.Fatalf("%q of %q, %q of its first %d bytes", value, text, part, n)
			}
		}
	})
}
