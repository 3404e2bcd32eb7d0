//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The examples of the helps use what nametag prints. Where nametag fails and prints nothing, they must do nothing: a machine
// whose hostname is set to "" is worse off than before.
func TestExamplesSurviveOurFailure(t *testing.T) {
	for _, c := range []struct{ about, nametag, called string }{
		{"nametag fails", "exit 3", ""},
		{"nametag prints a name", "echo my-server", "my-server\n"},
	} {
		t.Run(c.about, func(t *testing.T) {
			_, examples, found := strings.Cut(resolveUsage, "\nExample:\n")
			if !found {
				t.Fatal("the help has no example")
			}
			bin := t.TempDir()
			called := filepath.Join(bin, "called")
			for name, script := range map[string]string{"nametag": c.nametag, "hostname": `printf '%s\n' "$@" >>"` + called + `"`} {
				if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil { //nolint:gosec // a program
					t.Fatal(err)
				}
			}
			sh := exec.Command("sh", "-c", examples)
			sh.Env = []string{"PATH=" + bin + ":/usr/bin:/bin"}
			out, _ := sh.CombinedOutput() // its status is the example's own affair
			got, err := os.ReadFile(called)
			if err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			if string(got) != c.called {
				t.Errorf("hostname was called with %q, want %q\n%s", got, c.called, out)
			}
		})
	}
}
