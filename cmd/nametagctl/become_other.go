//go:build !unix

package main

import (
	"os"
	"os/exec"
)

// become runs that program and ends as it does. It comes back only where that failed.
func become(program string, argv []string) error {
	cmd := exec.Command(program, argv[1:]...) //nolint:noctx // it ends by itself
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	if cmd.ProcessState != nil {
		os.Exit(cmd.ProcessState.ExitCode())
	}
	return err
}
