//go:build linux

package memory

import (
	"bytes"
	"errors"
	"maps"
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestYAMLAsItIsWritten(t *testing.T) {
	keys := []key{"kind", "hostname", "machine/network/hostname"}
	one := func(k key, v string) []map[key]string { return []map[key]string{{k: v}} }
	inMachine := func(v string) []map[key]string { return one("machine/network/hostname", v) }
	for _, tt := range []struct {
		name, text string
		want       []map[key]string
		err        error
	}{
		{name: "nothing"},
		{name: "comments alone", text: "# a\n  # b\n\n"},
		{name: "the field", text: "version: v1alpha1\nmachine:\n    network:\n        hostname: web-1\n", want: inMachine("web-1")},
		{name: "two blanks, a comment behind it, and CRLF", text: "machine:\r\n  network: # this\r\n    hostname: web-1 # and that\r\n", want: inMachine("web-1")},
		{name: "in quotes", text: "machine:\n  network:\n    hostname: \"web-1\"\n", want: inMachine("web-1")},
		{name: "in single quotes", text: "machine:\n  network:\n    'hostname': 'web-1'\n", want: inMachine("web-1")},
		{name: "a number", text: "machine:\n  network:\n    hostname: 0042\n", want: inMachine("0042")},
		{name: "null", text: "machine:\n  network:\n    hostname: null\n", want: inMachine("")},
		{name: "empty", text: "machine:\n  network:\n    hostname:\n    x: y\n"},
		{name: "behind what is skipped", text: strings.Join([]string{
			"cluster:", "  ca:", "    crt: |-", "      hostname: no", "", "      more", "    key: >", "      x", "  list:", "  - a: b", "    hostname: no",
			"  - - deep", "    - er", "  - |", "    machine:", "  flow: {a: b, c: [d]}", "  empty: []", "  long: this goes", "    on and on", "  quoted: \"this", "    too: \\\" \"",
			"machine:", "  # network:", "  certSANs: []", "  files:", "    - path: /x", "      content: |", "        machine:", "          network:", "            hostname: no",
			"  network:", "    interfaces:", "      - interface: eth0", "        hostname: no", "    hostname: yes-1",
		}, "\n"), want: inMachine("yes-1")},
		{name: "elsewhere", text: "machine:\n  hostname: no\n  network: {}\nnetwork:\n  hostname: no\n"},
		{name: "elsewhere, in block form", text: "machine:\n  hostname: no\nnetwork:\n  hostname: no\n"},
		{name: "a document of its own", text: "version: v1alpha1\nmachine:\n  type: worker\n---\napiVersion: v1alpha1\nkind: HostnameConfig\nhostname: web-1\n", want: []map[key]string{{"kind": "HostnameConfig", "hostname": "web-1"}}},
		{name: "beside a document in another form", text: "{machine: {network: {hostname: no}}}\n---\nkind: HostnameConfig\nhostname: web-1\n...\n", want: []map[key]string{{"kind": "HostnameConfig", "hostname": "web-1"}}, err: errForm},
		{name: "a document that ends inside a block scalar", text: "a: |\n  x\n---\nhostname: web-1\n", want: one("hostname", "web-1")},

		{name: "in flow form", text: "machine: {network: {hostname: web-1}}\n", err: errForm},
		{name: "an alias on the way", text: "a: &a\n  hostname: web-1\nmachine:\n  network: *a\n", err: errForm},
		{name: "a merge", text: "machine:\n  network:\n    <<: x\n", err: errForm},
		{name: "a tag", text: "hostname: !!str web-1\n", err: errForm},
		{name: "twice", text: "hostname: a\nhostname: b\n", err: errForm},
		{name: "twice on the way", text: "machine:\n  network:\n    hostname: a\nmachine:\n  network:\n    hostname: b\n", err: errForm},
		{name: "over several lines", text: "hostname: web\n  -1\n", err: errForm},
		{name: "over several lines, in quotes", text: "hostname: \"web\n  -1\"\n", err: errForm},
		{name: "an escape", text: "hostname: \"web\\x2d1\"\n", err: errForm},
		{name: "a tab", text: "machine:\n\tnetwork:\n\t\thostname: a\n", err: errForm},
		{name: "cut in the middle of a quoted value", text: "hostname: \"web", err: errForm},
		{name: "binary noise", text: "\x7fELF\x02\x01\x00\xff", err: errForm},
		{name: "a scalar", text: "hello\n", err: errForm},
		{name: "a list", text: "- hostname: no\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := scalars([]byte(tt.text), keys...)
			if !errors.Is(err, tt.err) || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%v, %v; want %v, %v", got, err, tt.want, tt.err)
			}
			agree(t, []byte(tt.text), keys)
		})
	}
}

// agree checks that the library, where it reads the text at all, finds what was found. (It stops at the first document that
// it cannot read, and so does Talos.)
func agree(t *testing.T, text []byte, keys []key) {
	t.Helper()
	found, _ := scalars(text, keys...)
	if len(found) == 0 {
		return
	}
	var want []map[key]string
	for d := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var doc map[string]any
		var node yaml.Node
		if err := d.Decode(&node); err != nil {
			break
		}
		if node.Decode(&doc) != nil {
			continue
		}
		values := map[key]string{}
		for _, k := range keys {
			if v, ok := lookUp(&node, strings.Split(string(k), "/")); ok {
				values[k] = v
			}
		}
		if len(values) > 0 {
			want = append(want, values)
		}
	}
	// Each that was found must be among those that the library has, in order.
	for _, f := range found {
		i := -1
		for j, w := range want {
			if maps.Equal(f, w) {
				i = j
				break
			}
		}
		if i < 0 {
			if wellFormed(text) {
				t.Fatalf("%q: found %v, the library has %v", text, found, want)
			}
			return
		}
		want = want[i+1:]
	}
}

func wellFormed(text []byte) bool {
	for d := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var doc any
		if err := d.Decode(&doc); err != nil {
			return err.Error() == "EOF"
		}
	}
}

// lookUp finds the scalar at a path, as a string field gets it.
func lookUp(n *yaml.Node, path []string) (string, bool) {
	for n.Kind == yaml.DocumentNode || n.Kind == yaml.AliasNode {
		if n.Kind == yaml.AliasNode {
			n = n.Alias
			continue
		}
		n = n.Content[0]
	}
	if len(path) == 0 {
		if n.Kind != yaml.ScalarNode || n.Tag == "!!null" && n.Value == "" {
			return "", false
		}
		var s string
		if n.Decode(&s) != nil {
			return "", false
		}
		return s, true
	}
	if n.Kind != yaml.MappingNode {
		return "", false
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == path[0] {
			return lookUp(n.Content[i+1], path[1:])
		}
	}
	return "", false
}

func FuzzYAML(f *testing.F) {
	for _, s := range []string{
		"machine:\n  network:\n    hostname: web-1\n", "kind: HostnameConfig\nhostname: 'x'\n---\na: |\n  b\n", "a:\n- b: c\n  d: \"e\n  f\"\nhostname: g # h\n",
		"a: >-\n  b\n\n  c\nhostname: d\n", "- - a\n  - b\n- c: {d: e}\n", "hostname:\n  x\n", "hostname: a: b\n", "? a\n: b\n", "a:\n    b: c\n  d: e\nhostname: f\n",
	} {
		f.Add([]byte(s))
	}
	keys := []key{"kind", "hostname", "machine/network/hostname"}
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 4096 {
			return
		}
		agree(t, text, keys)
	})
}

// What a program writes is read, whatever is in it.
func FuzzYAMLThatAProgramWrites(f *testing.F) {
	f.Add("web-1", "a\nb", "- x", "4711", true)
	f.Add("", "#", "a: b", "null", false)
	f.Fuzz(func(t *testing.T, hostname, a, b, id string, block bool) {
		doc := map[string]any{
			"addresses": []any{map[string]any{"address": a, b: "x", "list": []string{a, b, a}}, a},
			"metadata":  map[string]any{"hostname": hostname, "instanceId": id, "tags": map[string]string{a: b}},
			"zzz":       b,
		}
		text, err := yaml.Marshal(doc)
		if err != nil {
			return
		}
		var again map[string]any
		if yaml.Unmarshal(text, &again) != nil {
			return
		}
		keys := []key{"metadata/hostname", "metadata/instanceId"}
		agree(t, text, keys)
		if found, err := scalars(text, keys...); plainly(hostname, a, b, id) && (err != nil || len(found) != 1 || found[0][keys[0]] != hostname || found[0][keys[1]] != id) {
			t.Fatalf("%q: %v, %v", text, found, err)
		}
	})
}

// plainly says whether the texts are such as names and addresses are.
func plainly(texts ...string) bool {
	for _, s := range texts {
		if s == "" || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789.-/") != "" || strings.HasPrefix(s, "-") {
			return false
		}
	}
	return true
}
