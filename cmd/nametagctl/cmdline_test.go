//go:build linux

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nametag-boot/nametag/internal/cli"
)

func TestCmdlinePrintsWhatToAdd(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, "talos.hostname.wait=5m"},
		{[]string{"--wait", "2m,then=halt"}, "talos.hostname.wait=2m,then=halt"},
		{[]string{"--rdinit"}, "talos.hostname.wait=5m rdinit=/usr/lib/firmware/nametag/nametag init=/init"},
		{[]string{"--path", "/nametag"}, "talos.hostname.wait=5m rdinit=/nametag init=/init"},
		{[]string{"--talos", "1.9"}, "talos.hostname.wait=5m rdinit=/lib/firmware/nametag/nametag init=/init"},
		{[]string{"--talos", "v1.12.7"}, "talos.hostname.wait=5m rdinit=/usr/lib/firmware/nametag/nametag init=/init"},
	} {
		out, _, err := execute(t, cmdlineCommand(), append([]string{}, tt.args...)...)
		if err != nil || strings.TrimSpace(out) != tt.want {
			t.Errorf("%q: %q, %v", tt.args, out, err)
		}
	}
	out, _, err := execute(t, cmdlineCommand(), "--rdinit", "--output", "json")
	var printed struct {
		Arguments []string
		Line      string
	}
	if err != nil || json.Unmarshal([]byte(out), &printed) != nil || len(printed.Arguments) != 3 || strings.Join(printed.Arguments, " ") != printed.Line {
		t.Errorf("%s, %v", out, err)
	}
	for says, args := range map[string][]string{
		"did you mean 90s?":   {"--wait", "90"},
		"makes nametag do":    {"--wait", "off"},
		"--talos:":            {"--talos", "soon"},
		"give one":            {"--talos", "1.9", "--path", "/x"},
		"choose text or json": {"--output", "xml"},
		"has no blanks":       {"--path", "/name tag"},
	} {
		_, _, err := execute(t, cmdlineCommand(), args...)
		fails(t, err, cli.Usage, says)
	}
}

func TestCmdlineCheckTellsByItsExitStatus(t *testing.T) {
	t.Parallel()
	image := filepath.Join(t.TempDir(), "initramfs")
	writeImage(t, image)
	for _, tt := range []struct {
		name   string
		args   []string
		status int
		says   string
	}{
		{"right", []string{"check", "talos.hostname.wait=2m talos.platform=hcloud"}, cli.OK, "no mistake found"},
		{"right, in pieces", []string{"check", "talos.hostname.wait=2m", "talos.platform=hcloud"}, cli.OK, "no mistake found"},
		{"a mistake", []string{"check", "talos.hostname.wait=90"}, cli.Failed, "did you mean 90s?"},
		{"nothing in the image", []string{"check", "--image", image, "talos.hostname.wait=2m"}, cli.Failed, "nametagctl initramfs add"},
		{"a path that dangles", []string{"check", "--image", image, "talos.hostname.wait=2m rdinit=/x init=/init"}, cli.Failed, "the kernel panics"},
		{"another release's path", []string{"check", "--talos", "1.9", "talos.hostname.wait=2m rdinit=/usr/lib/firmware/nametag/nametag init=/init"}, cli.Failed, "rdinit=/lib/firmware"},
		{"nothing that a terminal obeys", []string{"check", "talos.hostname.wait=2m rdinit=/\x1b[2J init=/init initrd=\x1b]0;x"}, cli.OK, `\u001b]0;x`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, _, err := execute(t, cmdlineCommand(), tt.args...)
			if tt.status == cli.OK && err != nil {
				t.Errorf("it failed: %v", err)
			} else if tt.status != cli.OK {
				fails(t, err, tt.status, "")
			}
			if !strings.Contains(out, tt.says) || strings.Contains(out, "\x1b") {
				t.Errorf("it says %q, want %q", out, tt.says)
			}
		})
	}
	t.Run("from standard input, as JSON", func(t *testing.T) {
		cmd := cmdlineCommand()
		cmd.SetIn(strings.NewReader("talos.hostname.wait=2m talos.hostname=x\n"))
		out, _, err := execute(t, cmd, "check", "--output", "json", "-")
		fails(t, err, cli.Failed, "")
		var printed struct {
			Right    bool
			Findings []struct {
				Mistake  bool
				Argument string
			}
		}
		if json.Unmarshal([]byte(out), &printed) != nil || printed.Right || len(printed.Findings) != 1 || printed.Findings[0].Argument != "talos.hostname=x" {
			t.Errorf("%s", out)
		}
	})
	t.Run("what is no command line", func(t *testing.T) {
		cmd := cmdlineCommand()
		cmd.SetIn(strings.NewReader(strings.Repeat("x", 1<<20)))
		_, _, err := execute(t, cmd, "check", "-")
		fails(t, err, cli.Failed, "no command line")
		_, _, err = execute(t, cmdlineCommand(), "check")
		fails(t, err, cli.Usage, "no line given")
		_, _, err = execute(t, cmdlineCommand(), "check", "--image", os.DevNull, "x")
		fails(t, err, cli.Failed, "not a regular file")
	})
}
