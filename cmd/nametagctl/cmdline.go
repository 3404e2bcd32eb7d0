package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/nametag-boot/nametag/internal/image/cmdline"
	"github.com/nametag-boot/nametag/internal/image/extension"
	"github.com/nametag-boot/nametag/internal/image/initramfs"
	"github.com/nametag-boot/nametag/internal/image/limit"
	"github.com/nametag-boot/nametag/internal/image/uki"
	"github.com/nametag-boot/nametag/procfs"
)

const cmdlineLong = `Print the kernel arguments to add for a policy, or check a command line that has them.

Where nametag is the image's /init, as nametagctl initramfs add has it, that is talos.hostname.wait= alone. Where it
stands at a path of its own (--rdinit, or --talos for the path of an extension), the kernel is told to run it too.`

// cmdlineFlags are those of printing.
type cmdlineFlags struct {
	wait, talos, path, output string
	rdinit                    bool
}

func cmdlineCommand() *cobra.Command {
	var f cmdlineFlags
	cmd := &cobra.Command{
		Use:   "cmdline [flags]",
		Short: "Print the kernel arguments for a policy, or check a command line",
		Long:  cmdlineLong,
		Example: `  nametagctl cmdline --wait 2m,then=halt
  nametagctl cmdline --talos 1.9
  nametagctl cmdline check 'talos.platform=hcloud talos.hostname.wait=90'`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.wait, "wait", procfs.Default().Value(), "how long a boot waits for the name, and what then: the value of talos.hostname.wait=")
	flags.BoolVar(&f.rdinit, "rdinit", false, "the helper is not the image's /init, but at --path")
	flags.StringVar(&f.path, "path", "/"+initramfs.DefaultPath, "where the helper stands, with --rdinit")
	flags.StringVar(&f.talos, "talos", "", "the release of Talos whose extension it is, such as 1.9: --rdinit with its path")
	flags.StringVar(&f.output, "output", "text", "text or json")
	cmd.AddCommand(cmdlineCheckCommand())
	return cmd
}

func cmdlineUsage(err error) error {
	return &exitError{exitUsage, fmt.Errorf("cmdline: %w", err)}
}

// cmdlineOutput refuses what is neither text nor json.
func cmdlineOutput(output string) error {
	if output != "text" && output != "json" {
		return cmdlineUsage(fmt.Errorf("--output %s: choose text or json", output))
	}
	return nil
}

// talosPath is where an extension for that release of Talos has the helper.
func talosPath(release string) (string, error) {
	t, err := extension.ParseTalos(release)
	if err != nil {
		return "", cmdlineUsage(fmt.Errorf("--talos: %w", err))
	}
	return t.Path(), nil
}

func (f cmdlineFlags) run(cmd *cobra.Command) error {
	if err := cmdlineOutput(f.output); err != nil {
		return err
	}
	policy, err := waitPolicy(f.wait)
	if err != nil {
		return cmdlineUsage(err)
	}
	path := ""
	switch {
	case f.talos != "" && cmd.Flags().Changed("path"):
		return cmdlineUsage(errors.New("--talos and --path both say where the helper stands: give one"))
	case f.talos != "":
		if path, err = talosPath(f.talos); err != nil {
			return err
		}
	case f.rdinit || cmd.Flags().Changed("path"):
		path = f.path
	}
	if strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' }) {
		return cmdlineUsage(fmt.Errorf("--path %q: a kernel argument has no blanks, quotation marks or letters beyond ASCII", path))
	}
	arguments := cmdline.Arguments(policy, path)
	line := strings.Join(arguments, " ")
	if f.output == "json" {
		return initramfsJSON(cmd.OutOrStdout(), struct {
			Arguments []string `json:"arguments"`
			Line      string   `json:"line"`
		}{arguments, line})
	}
	fmt.Fprintln(cmd.OutOrStdout(), line)
	return nil
}

const cmdlineCheckLong = `Check a kernel command line for mistakes: a talos.hostname.wait= that is malformed or misspelt, something that makes
nametag do nothing, an rdinit= without its init=/init, and with --image whether what it names is in the image.

LINE may be one argument or several; - reads it from standard input. The exit status is 0 if there is no mistake, 1 if
there is one. Hints are no mistakes.`

func cmdlineCheckCommand() *cobra.Command {
	var image, talos, output string
	var most limitFlags
	cmd := &cobra.Command{
		Use:   "check LINE|- [flags]",
		Short: "Check a kernel command line for mistakes",
		Long:  cmdlineCheckLong,
		Example: `  nametagctl cmdline check 'talos.platform=hcloud talos.hostname.wait=90'
  nametagctl cmdline check --image initramfs-amd64.xz - < /proc/cmdline`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmdlineUsage(errors.New("no line given; for example: nametagctl cmdline check - < /proc/cmdline"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return checkCmdline(cmd, strings.Join(args, " "), image, talos, output, most.budget())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&image, "image", "", "the initramfs that the line is for, or the unified kernel image that has it")
	flags.StringVar(&talos, "talos", "", "the release of Talos whose extension it is for, such as 1.9")
	flags.StringVar(&output, "output", "text", "text or json")
	most.register(cmd)
	return cmd
}

// maxCmdline is more than any kernel takes.
const maxCmdline = 64 << 10

func checkCmdline(cmd *cobra.Command, line, image, talos, output string, budget *limit.Budget) error {
	failed := func(err error) error {
		return &exitError{exitFailed, fmt.Errorf("cmdline check: %w", err)}
	}
	if err := cmdlineOutput(output); err != nil {
		return err
	}
	if line == "-" {
		b, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), maxCmdline+1))
		if err != nil {
			return failed(err)
		}
		if len(b) > maxCmdline {
			return failed(fmt.Errorf("standard input has more than %d bytes: that is no command line", maxCmdline))
		}
		line = string(b)
	}
	var o cmdline.Options
	if talos != "" {
		path, err := talosPath(talos)
		if err != nil {
			return err
		}
		o.Path = path
	}
	// Not before: who types the line, or thinks better of it, is not kept by a signal that nobody waits for.
	ctx, stop := untilSignal(cmd.Context())
	defer stop()
	if image != "" {
		im, done, err := checkedImage(ctx, cmd, image, budget)
		if err != nil {
			return failed(err)
		}
		defer done()
		o.Image = im
	}

	findings := cmdline.Check(line, o)
	bad := slices.ContainsFunc(findings, func(f cmdline.Finding) bool { return f.Mistake })
	out := cmd.OutOrStdout()
	if output == "json" {
		if err := initramfsJSON(out, struct {
			Right    bool              `json:"right"`
			Findings []cmdline.Finding `json:"findings"`
		}{!bad, append([]cmdline.Finding{}, findings...)}); err != nil {
			return failed(err)
		}
	} else {
		for _, f := range findings {
			fmt.Fprintln(out, cmdlineSentence(f))
		}
		if !bad {
			fmt.Fprintln(out, "no mistake found")
		}
	}
	if bad {
		return &exitError{exitFailed, nil} // all is said
	}
	return nil
}

// checkedImage opens an initramfs, or the one of a unified kernel image.
func checkedImage(ctx context.Context, cmd *cobra.Command, name string, budget *limit.Budget) (*initramfs.Image, func(), error) {
	if !isEFI(name) {
		file, im, err := openImage(ctx, name, budget, cmd.ErrOrStderr())
		return im, func() { _ = file.Close() }, err
	}
	m, file, err := uki.OpenFile(name)
	if err != nil {
		return nil, nil, err
	}
	im, err := func() (*initramfs.Image, error) {
		found := m.Find(".initrd")
		if len(found) == 0 {
			return nil, fmt.Errorf("%s: it has no initramfs", name)
		}
		data := m.Data(found[0])
		return readInitramfs(ctx, data, data.Size(), name, budget, cmd.ErrOrStderr())
	}()
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	return im, func() { _ = file.Close() }, nil
}

// isEFI says whether a file is an EFI program. What cannot be read is none.
func isEFI(name string) bool {
	if regular(name) != nil {
		return false
	}
	f, err := os.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	var magic [2]byte
	_, err = io.ReadFull(f, magic[:])
	return err == nil && string(magic[:]) == "MZ"
}

// cmdlineSentence is a finding in one line that is safe on a terminal.
func cmdlineSentence(f cmdline.Finding) string {
	s := "hint: "
	if f.Mistake {
		s = "mistake: "
	}
	if f.Argument != "" && !strings.HasPrefix(f.Problem, f.Argument) { // procfs names the argument itself
		s += f.Argument + ": "
	}
	s += f.Problem
	if f.Remedy != "" {
		s += "; " + f.Remedy
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}
