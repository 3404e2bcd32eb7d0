// Package command is nametag-audit's command line.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/nametag-boot/nametag/internal/output"
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

// rootCommand is nametag-audit with all its commands.
func rootCommand(version string) *cobra.Command {
	root := auditCommand(version)
	root.AddCommand(acceptCommand(version), catalogueCommand(), schemaCommand(), pinCommand(version), capiCommand(version))
	return root
}

// Run carries out a command line and returns the exit status.
func Run(ctx context.Context, version string, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := rootCommand(version)
	root.SetArgs(args)
	root.SetIn(stdin)
	out := &output.Page{To: stdout}
	root.SetOut(out)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage("%w; '%s --help' lists the flags", err, cmd.CommandPath())
	})
	cmd, err := root.ExecuteContextC(ctx)
	var exit *exitError
	_ = errors.As(err, &exit)
	if out.Err != nil && (exit == nil || exit.err == nil) { // what it found was printed, and cobra prints, too
		exit = &exitError{unprinted(cmd), out.Err}
	}
	switch {
	case exit != nil && exit.err != nil:
		fmt.Fprintf(stderr, "nametag-audit: %v\n", exit.err)
		return exit.status
	case exit != nil:
		return exit.status
	case err == nil:
		return exitAgree
	}
	fmt.Fprintf(stderr, "nametag-audit: %v\n", err)
	return exitUsage
}

// unprinted is the exit status of a command whose words could not be printed: that of its other failures.
func unprinted(cmd *cobra.Command) int {
	for ; cmd != nil; cmd = cmd.Parent() {
		if cmd.Name() == "pin" {
			return exitFindings
		}
	}
	return exitSource
}
