//go:build linux

package main

import (
	"bytes"
	"strings"
	"testing"
)

// said is what a command prints, on standard output and on standard error.
func said(t *testing.T, args ...string) (exit int, stdout, stderr string) {
	t.Helper()
	var out, complaint bytes.Buffer
	exit = run(t.Context(), args, &out, &complaint)
	return exit, out.String(), complaint.String()
}

func TestHelpOfACommandIsTheCommandsOwn(t *testing.T) {
	for _, command := range []string{"resolve", "apply", "status", "pin", "init"} {
		_, own, _ := said(t, command, "--help")
		exit, got, complaint := said(t, "help", command)
		if exit != exitOK || got != own || !strings.HasPrefix(got, "nametag "+command+" ") || complaint != "" {
			t.Errorf("help %s: %d, %q, %q", command, exit, got, complaint)
		}
	}
	_, all, _ := said(t, "help")
	for _, args := range [][]string{{"help", "help"}, {"help", "--help"}, {"-h"}, {"--help"}} {
		if exit, got, complaint := said(t, args...); exit != exitOK || got != all || complaint != "" {
			t.Errorf("%q: %d, %q, %q", args, exit, got, complaint)
		}
	}
	if exit, got, complaint := said(t, "help", "recover"); exit != exitUsage || got != "" || !strings.Contains(complaint, `"recover"`) {
		t.Errorf("of no command: %d, %q, %q", exit, got, complaint)
	}
}

func TestTheVersionHasItsUsualNames(t *testing.T) {
	_, version, _ := said(t, "version")
	for _, arg := range []string{"-v", "--version", "-version"} {
		if exit, got, complaint := said(t, arg); exit != exitOK || got != version || !strings.HasPrefix(got, "nametag ") || complaint != "" {
			t.Errorf("%s: %d, %q, %q", arg, exit, got, complaint)
		}
	}
}
