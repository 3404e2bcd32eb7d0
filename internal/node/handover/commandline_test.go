//go:build linux

package handover

import (
	"strings"
	"testing"

	goprocfs "github.com/siderolabs/go-procfs/procfs"
)

func TestAmend(t *testing.T) {
	for _, tt := range []struct{ name, line, want string }{
		{"the line's end moves behind the name", "quiet console=ttyS0\n", "quiet console=ttyS0 talos.hostname=my-server\n"},
		{"a line without an end gets one", "quiet", "quiet talos.hostname=my-server\n"},
		{"an empty line", "\n", "talos.hostname=my-server\n"},
		{"no line at all", "", "talos.hostname=my-server\n"},
		{"spaces stay as they are", "a  b \n", "a  b  talos.hostname=my-server\n"},
		{"what is meant for init stays before", "a -- b\n", "a -- b talos.hostname=my-server\n"},
		{"neighbours are not mistaken for it", "talos.hostname.wait=2m xtalos.hostname=a\n", "talos.hostname.wait=2m xtalos.hostname=a talos.hostname=my-server\n"},
		{"a boot loader's own end of the line", "quiet\n\n", "quiet talos.hostname=my-server\n"},
		{"the end of a line amid it is a blank", "a\nb\n", "a\nb talos.hostname=my-server\n"},
		{"a line as long as the kernel's buffer", strings.Repeat("x", 2047) + "\n", strings.Repeat("x", 2047) + " talos.hostname=my-server\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := amend(tt.line, "my-server")
			if err != nil || got != tt.want {
				t.Fatalf("%v: %q, want %q", err, got, tt.want)
			}
			if name := goprocfs.NewCmdline(got).Get(parameter).First(); name == nil || *name != "my-server" {
				t.Errorf("Talos' own parser reads %v", name)
			}
		})
	}
	for _, tt := range []struct{ name, line, hostname, says string }{
		{"the operator's name stands", "talos.hostname=other\n", "my-server", "talos.hostname=other"},
		{"no name", "quiet\n", "", ""},
		{"a name that would be two arguments", "quiet\n", "a talos.config=b", ""},
		{"a command line with a zero byte", "a\x00b\n", "my-server", "zero byte"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := amend(tt.line, tt.hostname); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

func TestShort(t *testing.T) {
	for name, want := range map[string]string{"a.b.c": "a", "a": "a", "": ""} {
		if got := short(name); got != want {
			t.Errorf("%q: %q", name, got)
		}
	}
}
