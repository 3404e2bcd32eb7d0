// Command nametagctl is the workstation's side of nametag: it puts the node's binary into images, shows what it does on
// an embedded fake Hetzner network, and runs any command there.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/nametag-boot/nametag/internal/image/extension"
	"github.com/nametag-boot/nametag/internal/image/helper"
	"github.com/nametag-boot/nametag/internal/release/buildinfo"
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

const rootLong = `Put nametag into images, show what it does, run commands on a fake Hetzner network.

The exit status of every command is 0 where it did what it does; 1 where it failed, or where cmdline check found a
mistake; and 2 where the command line is not understood. lab ends as the command that it runs, or with 125, 126 or 127.`

const rootExample = `  nametagctl demo
  nametagctl extension --oci nametag.oci
  nametagctl cmdline check 'talos.platform=hcloud talos.hostname.wait=2m'`

// exitStatuses is what the help of a command says that has no statuses of its own.
const exitStatuses = "The exit status is 0 where it is done, 1 where it failed, 2 where the command line is not understood."

// rootCommand is nametagctl with all its commands.
func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "nametagctl",
		Short:         "Put nametag into images, show what it does, run commands on a fake Hetzner network",
		Long:          rootLong,
		Example:       rootExample,
		Version:       buildinfo.Line("nametagctl", version),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &exitError{exitUsage, fmt.Errorf("%w; '%s --help' lists the flags", err, cmd.CommandPath())}
	})
	root.AddCommand(commands()...)
	root.AddCommand(clusterCommands()...)
	tellStatuses(root.Commands())
	complete(root)
	return root
}

// choices are what a shell offers for the flags of these names, whichever command has them.
var choices = map[string][]string{
	"output":              {"text", "json"},
	"arch":                helper.Architectures(),
	"shape":               {"public", "private", "ipv6-only", "dead"},
	"compression":         {"auto", "none", "gzip", "xz", "zstd", "lz4"},
	"metadata-until-then": behaviourNames,
	"for":                 {string(extension.DiskImage), string(extension.Installer)},
	"wait":                {"30s", "2m", "5m", "forever"},
	"talos":               {"1.9", "1.10", extension.Default().Tag},
}

// complete tells the completions what they cannot know of themselves: the values of flags, and that no file is wanted
// where no argument is.
func complete(cmd *cobra.Command) {
	for flag, values := range choices {
		if cmd.Flags().Lookup(flag) == nil {
			continue
		}
		if flag == "output" && cmd.Name() == "extension" {
			values = append(slices.Clone(values), "profile")
		}
		// It fails only where a flag is told twice.
		_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	switch cmd.Name() {
	case "demo", "extension", "version":
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	}
	for _, c := range cmd.Commands() {
		complete(c)
	}
}

// tellStatuses puts the exit statuses into the help, and so into the manual, of every command that does not tell its own.
func tellStatuses(all []*cobra.Command) {
	for _, cmd := range all {
		tellStatuses(cmd.Commands())
		if !cmd.Runnable() || cmd.Hidden || strings.Contains(cmd.Long, "exit status") {
			continue
		}
		cmd.Long = cmp.Or(cmd.Long, cmd.Short+".") + "\n\n" + exitStatuses
	}
}

func run(args []string) int {
	root := rootCommand()
	root.SetArgs(args)
	out := &standardOutput{to: os.Stdout}
	root.SetOut(out)

	err := misunderstood(root, args)
	if err == nil {
		err = root.Execute()
	}
	if err == nil && out.err != nil { // most of what is printed is printed by calls whose error nobody looks at
		err = &exitError{exitFailed, out.err}
	}
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

// standardOutput remembers that something could not be written: who is to read it must not take nothing for an answer.
type standardOutput struct {
	to  io.Writer
	err error
}

func (o *standardOutput) Write(b []byte) (int, error) {
	n, err := o.to.Write(b)
	if err != nil {
		// Not wrapped: that the disk is full where the output goes says nothing about the files of the command.
		o.err = fmt.Errorf("%v", err) //nolint:errorlint // see above
		err = o.err
	}
	return n, err
}

// misunderstood finds what cobra takes without a word: to it, a word that is no command of a group such as uki asks for
// the group's help, and that is no failure. A script would go on without its image having been touched.
func misunderstood(root *cobra.Command, args []string) error {
	if len(args) > 0 && strings.HasPrefix(args[0], cobra.ShellCompRequestCmd) {
		return nil // a shell asks for completions
	}
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd(args...)
	help := len(args) > 0 && args[0] == "help"
	if help {
		args = args[1:]
	}
	cmd, rest, err := root.Find(args)
	if err != nil { // of no arguments it finds no fault
		return unknownCommand(root, args[0])
	}
	if cmd.Runnable() && !help || !cmd.HasSubCommands() {
		return nil
	}
	for _, word := range rest {
		if word == "-h" || word == "--help" {
			return nil
		}
	}
	for _, word := range rest {
		if !strings.HasPrefix(word, "-") {
			return unknownCommand(cmd, word)
		}
	}
	return nil
}

// unknownCommand refuses a word that is no command of the group.
func unknownCommand(group *cobra.Command, word string) error {
	text := fmt.Sprintf("%q is no command of %s", word, group.CommandPath())
	group.SuggestionsMinimumDistance = 2
	if like := group.SuggestionsFor(word); len(like) > 0 {
		text += " (did you mean " + strings.Join(like, " or ") + "?)"
	}
	return &exitError{exitUsage, fmt.Errorf("%s; '%s --help' lists them", text, group.CommandPath())}
}

// noArguments refuses every argument.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return &exitError{exitUsage, fmt.Errorf("%s takes no arguments, and this is one: %q; '%s --help' shows how", cmd.Name(), args[0], cmd.CommandPath())}
}

// untilSignal is a context that a signal ends. The second signal ends the process itself, should the first not have got
// through to what it waits for.
func untilSignal(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(parent, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// regular refuses what is no regular file before it is opened: opening a pipe waits, and no signal ends that.
func regular(name string) error {
	st, err := os.Stat(name)
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	return err
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
