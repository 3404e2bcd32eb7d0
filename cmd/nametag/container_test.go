//go:build linux

package main

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// As process 1 of a container it is a command like any other, and ends.
func TestAsTheFirstProcessOfAContainer(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: a pid namespace needs root")
	}
	for _, scenario := range []struct{ args, says string }{
		{"-h", "Usage:"},
		{"-help", "Usage:"},
		{"--help", "Usage:"},
		{"help", "Usage:"},
		{"init --help", "--next PATH"},
		{"init -h", "--next PATH"},
		{"version", "nametag"},
		{"-version", "nametag"},
		{"--version", "nametag"},
		{"resolve --help", "Usage:"},
	} {
		t.Run(scenario.args, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), "/proc/self/exe", strings.Fields(scenario.args)...)
			cmd.Env = append(os.Environ(), actAs+"=nametag")
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), scenario.says) {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}
