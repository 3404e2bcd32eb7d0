package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// Output is the flag -o, --output: in what form a command prints. Other forms than text and json are a command's own.
type Output struct {
	Format string
	own    []string
	file   *string // where -o named a file once, and --out does now
	hint   string
}

// Result is what a command prints.
type Result interface {
	// Text writes it for people.
	Text(w io.Writer) error
}

// Register gives a command the flag, with the forms that are its own.
func (o *Output) Register(cmd *cobra.Command, own ...string) {
	o.Format, o.own = "text", own
	cmd.Flags().VarP(o, "output", "o", "the form of what is printed: "+strings.Join(o.Forms(), ", "))
	// It fails only where a flag is told twice.
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(o.Forms(), cobra.ShellCompDirectiveNoFileComp))
}

// RegisterFile is Register, and gives the command --out for the file that it writes. -o FILE, which meant that once, still
// does where it cannot be a form, and says how it is written now.
func (o *Output) RegisterFile(cmd *cobra.Command, file *string, usage string) {
	o.Register(cmd)
	o.file = file
	cmd.Flags().StringVar(file, "out", "", usage)
}

// Forms are those that there are.
func (o *Output) Forms() []string { return append([]string{"text", "json"}, o.own...) }

// String is the form.
func (o *Output) String() string { return o.Format }

// Type is what a help calls such a value.
func (o *Output) Type() string { return "form" }

// Set takes a form.
func (o *Output) Set(value string) error {
	switch {
	case slices.Contains(o.Forms(), value):
		o.Format = value
		return nil
	case o.file != nil && strings.ContainsAny(value, "./-_0123456789"):
		*o.file = value
		o.hint = fmt.Sprintf("hint: -o is the form of what is printed (%s); the file is --out %s", strings.Join(o.Forms(), ", "), value)
		return nil
	}
	forms, also := o.Forms(), ""
	if o.file != nil {
		also = "; the file is named by --out"
	}
	return fmt.Errorf("choose %s or %s%s", strings.Join(forms[:len(forms)-1], ", "), forms[len(forms)-1], also)
}

// Hint says on standard error what is written in another way now.
func (o *Output) Hint(cmd *cobra.Command) {
	if o.hint != "" {
		fmt.Fprintln(cmd.ErrOrStderr(), o.hint)
	}
}

// Print prints a result in the form that was asked for.
func (o *Output) Print(cmd *cobra.Command, r Result) error { return o.PrintTo(cmd.OutOrStdout(), r) }

// PrintTo is Print to another place.
func (o *Output) PrintTo(w io.Writer, r Result) error {
	if o.Format == "json" {
		return JSON(w, r)
	}
	return r.Text(w)
}

// JSON writes a document for programs.
func JSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
