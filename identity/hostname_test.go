package identity

import (
	"errors"
	"strings"
	"testing"
)

func TestValidateHostname(t *testing.T) {
	long := func(n int) string { return strings.Repeat("a", n) }
	for _, c := range []struct{ about, name, rule string }{
		{"a server's name", "my-server", ""},
		{"a Talos node of CAPI", "example-controlplane-3d3d26d1-69c5k", ""},
		{"a name with its domain", "db1.example.com", ""},
		{"one letter", "a", ""},
		{"a leading digit (RFC 1123)", "3com", ""},
		{"a number alone", "42", ""},
		{"upper case is kept", "My-Server.Example.COM", ""},
		{"a label of 63 bytes", long(63), ""},
		{"a name of 253 bytes", strings.Repeat(long(62)+".", 4) + "a", ""},
		{"punycode", "xn--bcher-kva.example", ""},

		{"nothing", "", "empty"},
		{"a label of 64 bytes", long(64), "label 1 has 64 bytes"},
		{"a second label of 64 bytes", "a." + long(64), "label 2 has 64 bytes"},
		{"a name of 254 bytes", strings.Repeat(long(62)+".", 4) + "aa", "254 bytes"},
		{"a body without end", long(1 << 16), "65536 bytes"},
		{"a dot alone", ".", "label 1 is empty"},
		{"a leading dot", ".a", "label 1 is empty"},
		{"two dots in a row", "a..b", "label 2 is empty"},
		{"a trailing dot", "a.example.", "ends with a dot"},
		{"a leading hyphen", "-a", "hyphen"},
		{"a trailing hyphen in the domain", "a.b-.c", "label 2 begins or ends with a hyphen"},
		{"an underscore", "my_server", "'_' at byte 2"},
		{"a space", "my server", "' '"},
		{"a line break inside", "my\nserver", "control character (0x0a) at byte 2"},
		{"a carriage return", "my-server\r", "control character (0x0d)"},
		{"NUL", "my\x00server", "control character (0x00)"},
		{"a byte order mark", "\ufeffmy-server", "not ASCII (0xef) at byte 0"},
		{"Unicode", "bücher", "not ASCII"},
		{"a Unicode hyphen", "my‐server", "not ASCII"},
		{"HTML", "<html>", "'<'"},
		{"a path", "../../etc/passwd", "label 1 is empty"},
		{"a path below", "a/b", "'/'"},
		{"a shell's delight", "a;reboot", "';'"},
		{"an IPv4 address", "10.0.0.1", "IPv4 address"},
		{"an IPv6 address", "fe80::1", "IPv6 address"},
		{"half an address", "10.1", "last label is a number"},
		{"localhost", "localhost", "localhost"},
		{"localhost in capitals", "LOCALHOST.localdomain", "localhost"},
		{"below localhost", "a.localhost", "localhost"},
	} {
		t.Run(c.about, func(t *testing.T) {
			err := ValidateHostname(c.name)
			if c.rule == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			var e *NameError
			if !errors.As(err, &e) || !strings.Contains(e.Rule, c.rule) {
				t.Fatalf("got %v, want a rule about %q", err, c.rule)
			}
			if text := err.Error(); len(text) > 400 || strings.ContainsAny(text, "\n\r\x00") {
				t.Errorf("not safe to print: %d bytes, %q", len(text), text)
			}
		})
	}
}

// FuzzValidateHostname holds the rule against another way to put it.
func FuzzValidateHostname(f *testing.F) {
	for _, s := range []string{"a", "my-server.example.com", "a..b", "-", "10.0.0.1", "\x00", strings.Repeat("a", 300)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if err := ValidateHostname(name); err != nil {
			if len(err.Error()) > 1000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		if len(name) > 253 || len(name) == 0 {
			t.Errorf("%d bytes accepted", len(name))
		}
		for label := range strings.SplitSeq(name, ".") {
			inner := strings.Trim(label, "-")
			if label == "" || len(label) > 63 || len(inner) == 0 || label[0] != inner[0] || label[len(label)-1] != inner[len(inner)-1] {
				t.Errorf("label %q accepted", label)
			}
			if strings.Trim(label, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") != "" {
				t.Errorf("label %q accepted", label)
			}
		}
	})
}
