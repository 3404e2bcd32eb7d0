// Package command is nametag-audit's command line.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// The exit statuses.
const (
	exitAgree    = 0 // all agree
	exitFindings = 1 // there are findings at or above --fail-on
	exitUsage    = 2 // the command line is not understood
	exitSource   = 3 // a source could not be read
)

// An exitError ends the process with a status; without an error, in silence.
type exitError struct {
	status int
	err    error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.status)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func usage(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// Run carries out a command line and returns the exit status.
func Run(ctx context.Context, version string, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := auditCommand(version)
	root.AddCommand(acceptCommand(version), catalogueCommand(), schemaCommand(), pinCommand(version), capiCommand(version))
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage("%w; '%s --help' lists the flags", err, cmd.CommandPath())
	})
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitAgree
	}
	var exit *exitError
	if errors.As(err, &exit) {
		if exit.err != nil {
			fmt.Fprintf(stderr, "nametag-audit: %v\n", exit.err)
		}
		return exit.status
	}
	fmt.Fprintf(stderr, "nametag-audit: %v\n", err)
	return exitUsage
}
