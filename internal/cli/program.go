package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// Statuses is what the help of a command says that has no exit statuses of its own.
const Statuses = "The exit status is 0 where it is done, 1 where it failed, 2 where the command line is not understood."

// Prepare completes the root of a program: its errors are ours to print, every command's help tells its exit statuses.
func Prepare(root *cobra.Command) *cobra.Command {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetVersionTemplate("{{.Version}}\n")
	root.CompletionOptions.HiddenDefaultCmd = true
	root.Flags().BoolP("version", "v", false, "print the version")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return Misusedf("%w; '%s --help' lists the flags", err, cmd.CommandPath())
	})
	tellStatuses(root.Commands())
	judge(root.Commands())
	return root
}

// judge makes an error of a command a failure, unless it says something else. What is left without a status is cobra's own:
// a missing argument, say.
func judge(all []*cobra.Command) {
	for _, cmd := range all {
		judge(cmd.Commands())
		run := cmd.RunE
		if run == nil {
			continue
		}
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			err := run(cmd, args)
			var known *Error
			if err != nil && !errors.As(err, &known) {
				err = &Error{Failed, err}
			}
			return err
		}
	}
}

// tellStatuses puts the exit statuses into the help, and so into the manual, of every command that does not tell its own.
func tellStatuses(all []*cobra.Command) {
	for _, cmd := range all {
		tellStatuses(cmd.Commands())
		if !cmd.Runnable() || cmd.Hidden || strings.Contains(cmd.Long, "exit status") {
			continue
		}
		cmd.Long = cmp.Or(cmd.Long, cmd.Short+".") + "\n\n" + Statuses
	}
}

// Execute runs a program by its arguments and returns its exit status.
func Execute(root *cobra.Command, args []string, stdout, stderr io.Writer) int {
	out, complaints := NewScreen(stdout), NewScreen(stderr)
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(complaints)

	cmd, err := root, misunderstood(root, args)
	if err == nil {
		cmd, err = root.ExecuteC()
		var known *Error
		if err != nil && !errors.As(err, &known) {
			err = Misused(err)
		}
	}
	var silent *Error // what it found stands in what it printed
	if werr := out.Close(); werr != nil && (err == nil || errors.As(err, &silent) && silent.Err == nil) {
		err = &Error{Failed, fmt.Errorf("printing: %w", werr)} // most of what is printed is printed by calls whose error nobody looks at
	}
	if err == nil {
		return OK
	}
	complain(cmd, err, out, complaints)
	return Status(err)
}

// complain prints an error: a line for people, and where a command was asked for JSON, an object beside it.
func complain(cmd *cobra.Command, err error, out, complaints io.Writer) {
	var silent *Error
	if errors.As(err, &silent) && silent.Err == nil {
		return
	}
	name := cmd.Root().Name()
	command := strings.TrimPrefix(strings.TrimPrefix(cmd.CommandPath(), name), " ")
	text := Message(err)
	if flag := cmd.Flags().Lookup("output"); flag != nil && flag.Value.String() == "json" {
		failure := Failure{Message: text, Command: command, Status: Status(err)}
		var over interface{ RaisedBy() string }
		if errors.As(err, &over) {
			failure.RaisedBy = over.RaisedBy()
		}
		_ = JSON(out, struct {
			Error Failure `json:"error"`
		}{failure})
	}
	if command != "" {
		command += ": "
	}
	fmt.Fprintf(complaints, "%s: %s%s\n", name, command, text)
}

// Failure is the error of a command that was asked for JSON, the member "error" of the object that it prints.
type Failure struct {
	Message  string `json:"message"`
	Command  string `json:"command,omitempty"`
	Status   int    `json:"exit_status"`
	RaisedBy string `json:"raised_by,omitempty"` // the flag that raises the limit that was reached
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
		return UnknownCommand(root, args[0])
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
			return UnknownCommand(cmd, word)
		}
	}
	return nil
}

// UnknownCommand refuses a word that is no command of the group.
func UnknownCommand(group *cobra.Command, word string) error {
	text := fmt.Sprintf("%q is no command of %s", word, group.CommandPath())
	group.SuggestionsMinimumDistance = 2
	if like := group.SuggestionsFor(word); len(like) > 0 {
		text += " (did you mean " + strings.Join(like, " or ") + "?)"
	}
	return Misusedf("%s; '%s --help' lists them", text, group.CommandPath())
}

// NoArguments refuses every argument.
func NoArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return Misusedf("%s takes no arguments, and this is one: %q; '%s --help' shows how", cmd.Name(), args[0], cmd.CommandPath())
}

// OneImage refuses everything but one IMAGE.
func OneImage(cmd *cobra.Command, args []string) error {
	if len(args) == 1 {
		return nil
	}
	return Misusedf("give one IMAGE; '%s --help' shows how", cmd.CommandPath())
}
