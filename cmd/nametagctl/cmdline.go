package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nametag-boot/nametag/internal/cli"
	"github.com/nametag-boot/nametag/internal/image/initramfs"
	"github.com/nametag-boot/nametag/internal/image/jobs"
)

const cmdlineLong = `Print the kernel arguments to add for a policy, or check a command line that has them.

Where nametag is the image's /init, as nametagctl initramfs add has it, that is talos.hostname.wait= alone. Where it
stands at a path of its own (--rdinit, or --talos for the path of an extension), the kernel is told to run it too.`

func cmdlineCommand() *cobra.Command {
	var j jobs.CommandLine
	var o cli.Output
	var path string
	var rdinit bool
	cmd := &cobra.Command{
		Use:   "cmdline [flags]",
		Short: "Print the kernel arguments for a policy, or check a command line",
		Long:  cmdlineLong,
		Example: `  nametagctl cmdline --wait 2m,then=halt
  nametagctl cmdline --talos 1.9
  nametagctl cmdline check 'talos.platform=hcloud talos.hostname.wait=90'`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return cli.UnknownCommand(cmd, args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("path") || rdinit && j.Talos == "" {
				j.Path = path
			}
			r, err := j.Run()
			if err != nil {
				return err
			}
			return o.Print(cmd, r)
		},
	}
	flags := cmd.Flags()
	o.Register(cmd)
	waitFlag(cmd, &j.Wait, defaultWait())
	flags.BoolVar(&rdinit, "rdinit", false, "the helper is not the image's /init, but at --path")
	flags.StringVar(&path, "path", "/"+initramfs.DefaultPath, "where the helper stands, with --rdinit")
	flags.StringVar(&j.Talos, "talos", "", "the release of Talos whose extension it is, such as 1.9: --rdinit with its path")
	cmd.AddCommand(cmdlineCheckCommand())
	return cmd
}

const cmdlineCheckLong = `Check a kernel command line for mistakes: a talos.hostname.wait= that is malformed or misspelt, something that makes
nametag do nothing, an rdinit= without its init=/init, and with --image whether what it names is in the image.

LINE may be one argument or several; - reads it from standard input. The exit status is 0 if there is no mistake, 1 if
there is one. Hints are no mistakes.`

func cmdlineCheckCommand() *cobra.Command {
	var j jobs.CheckCommandLine
	var o cli.Output
	cmd := &cobra.Command{
		Use:   "check LINE|- [flags]",
		Short: "Check a kernel command line for mistakes",
		Long:  cmdlineCheckLong,
		Example: `  nametagctl cmdline check 'talos.platform=hcloud talos.hostname.wait=90'
  nametagctl cmdline check --image initramfs-amd64.xz - < /proc/cmdline`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cli.Misusedf("no line given; for example: nametagctl cmdline check - < /proc/cmdline")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			j.Line = strings.Join(args, " ")
			// Before signals are waited for: who types the line, or thinks better of it, is not kept by one that nobody hears.
			if err := j.Read(cmd.InOrStdin()); err != nil {
				return err
			}
			return cli.Run(cmd, func(ctx context.Context) error {
				f, err := j.Run(ctx, console(cmd))
				if err != nil {
					return err
				}
				if err := o.Print(cmd, f); err != nil || f.Right {
					return err
				}
				return &cli.Error{Status: cli.Failed} // all is said
			})
		},
	}
	flags := cmd.Flags()
	o.Register(cmd)
	flags.StringVar(&j.Image, "image", "", "the initramfs that the line is for, or the unified kernel image that has it")
	flags.StringVar(&j.Talos, "talos", "", "the release of Talos whose extension it is for, such as 1.9")
	limitFlags(cmd, &j.Limits, readTime)
	return cmd
}
