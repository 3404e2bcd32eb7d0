// Command nametagctl is the workstation's side of nametag: it puts the node's binary into images, shows what it does on
// an embedded fake Hetzner network, and runs any command there.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

// The exit statuses of nametagctl itself. A command that the lab ran keeps its own.
const (
	exitOK     = 0
	exitFailed = 1   // the command did what it does, and the outcome is bad
	exitUsage  = 2   // the command line is not understood
	exitLab    = 125 // the lab itself failed, as opposed to the command in it
)

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	root := &cobra.Command{
		Use:           "nametagctl",
		Short:         "Put nametag into images, show what it does, run commands on a fake Hetzner network",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetArgs(args)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &exitError{exitUsage, fmt.Errorf("%w; '%s --help' lists the flags", err, cmd.CommandPath())}
	})
	root.AddCommand(commands()...)

	err := root.Execute()
	if err == nil {
		return exitOK
	}
	var exit *exitError
	if errors.As(err, &exit) {
		if exit.err != nil {
			fmt.Fprintf(os.Stderr, "nametagctl: %v\n", exit.err)
		}
		return exit.status
	}
	fmt.Fprintf(os.Stderr, "nametagctl: %v\n", err)
	return exitUsage // what cobra itself refuses: an unknown command, a missing argument
}

// commands are all that nametagctl can do.
func commands() []*cobra.Command {
	return []*cobra.Command{
		cmdlineCommand(),
		demoCommand(),
		demoBootCommand(),
		demoServiceCommand(),
		extensionCommand(),
		initramfsCommand(),
		installerCommand(),
		labCommand(),
		manualCommand(),
		ukiCommand(),
		versionCommand(),
	}
}

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
