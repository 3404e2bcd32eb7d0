package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/nametag-boot/nametag/internal/cli"
	"github.com/nametag-boot/nametag/internal/image/initramfs"
	"github.com/nametag-boot/nametag/internal/image/jobs"
)

const initramfsLong = `Put nametag into an initramfs, show what is in one, take nametag out again.

An initramfs is one or more archives behind each other, each a cpio archive as it is or compressed by gzip, xz, zstd or
lz4; early microcode may come first. nametag is appended as one more; what is there already is copied byte for byte.

IMAGE may be -, the standard input; the result then goes to the standard output, and the report to standard error.`

func initramfsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "initramfs",
		Short: "Put nametag into an initramfs, show what is in one, take it out again",
		Long:  initramfsLong,
		Example: `  nametagctl initramfs add initramfs-amd64.xz --out initramfs-nametag.xz
  nametagctl initramfs inspect initramfs-nametag.xz
  nametagctl initramfs remove initramfs-nametag.xz`,
	}
	cmd.AddCommand(initramfsAddCommand(), initramfsInspectCommand(), initramfsRemoveCommand())
	return cmd
}

// readTime is the most that reading a file may take, unless told otherwise.
const readTime = 10 * time.Minute

const outUsage = "write the result there and leave IMAGE as it is"

const initramfsAddLong = `Append an archive with nametag to an initramfs. In place, unless --out names another file; either way the file is
written as a whole or not at all.

/init becomes nametag, and what it was becomes /init.next, which nametag executes in the end. With --rdinit /init stays
what it is, and nametag stands at a path of its own: then the kernel must be told. Either way nametag does nothing without
its kernel argument; the arguments to add are printed.

Done twice, nothing changes. Another helper replaces the one that was added before.`

func initramfsAddCommand() *cobra.Command {
	var j jobs.AddToInitramfs
	var o cli.Output
	cmd := &cobra.Command{
		Use:   "add IMAGE [flags]",
		Short: "Append nametag to an initramfs",
		Long:  initramfsAddLong,
		Example: `  nametagctl initramfs add initramfs-amd64.xz --out initramfs-nametag.xz
  nametagctl initramfs add --rdinit initramfs-amd64.xz`,
		Args: cli.OneImage,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !j.RDInit && cmd.Flags().Changed("path") {
				return cli.Misusedf("--path belongs to --rdinit; without it the helper is /init")
			}
			j.Image = args[0]
			return initramfsResult(cmd, &o, j.Image, j.Out, j.Run)
		},
	}
	flags := cmd.Flags()
	o.RegisterFile(cmd, &j.Out, outUsage)
	helperFlags(cmd, &j.Helpers)
	limitFlags(cmd, &j.Limits, readTime)
	flags.BoolVar(&j.RDInit, "rdinit", false, "leave /init as it is; the kernel is told by rdinit=")
	flags.StringVar(&j.Path, "path", "/"+initramfs.DefaultPath, "where the helper stands, with --rdinit")
	flags.StringVar(&j.Compression, "compression", "auto", "of what is appended: none, gzip, xz, zstd, lz4, or auto: as the image has it, and an xz stream that packs nothing behind xz")
	offer(cmd, "compression", "auto", "none", "gzip", "xz", "zstd", "lz4")
	return cmd
}

// initramfsResult is result for a command whose image may go to the standard output: the report then goes elsewhere.
func initramfsResult(cmd *cobra.Command, o *cli.Output, image, out string, run func(context.Context, jobs.Console) (*jobs.InitramfsResult, error)) error {
	if out != jobs.Stdio && (out != "" || image != jobs.Stdio) {
		return result(cmd, o, run)
	}
	o.Hint(cmd)
	return cli.Run(cmd, func(ctx context.Context) error {
		r, err := run(ctx, console(cmd))
		if err != nil {
			return err
		}
		return o.PrintTo(cmd.ErrOrStderr(), r)
	})
}

func initramfsInspectCommand() *cobra.Command {
	var j jobs.InspectInitramfs
	var o cli.Output
	cmd := &cobra.Command{
		Use:   "inspect IMAGE [flags]",
		Short: "Show an initramfs: its archives, its files with their sizes, and whether nametag is in it",
		Example: `  nametagctl initramfs inspect initramfs-amd64.xz
  nametagctl initramfs inspect -o json initramfs-amd64.xz | jq .segments`,
		Args: cli.OneImage,
		RunE: func(cmd *cobra.Command, args []string) error {
			j.Image, j.Files = args[0], o.Format == "json"
			return result(cmd, &o, j.Run)
		},
	}
	o.Register(cmd)
	limitFlags(cmd, &j.Limits, readTime)
	return cmd
}

func initramfsRemoveCommand() *cobra.Command {
	var j jobs.RemoveFromInitramfs
	var o cli.Output
	cmd := &cobra.Command{
		Use:   "remove IMAGE [flags]",
		Short: "Take away what add has appended, byte for byte",
		Example: `  nametagctl initramfs remove initramfs-nametag.xz
  nametagctl initramfs remove initramfs-nametag.xz --out initramfs-amd64.xz`,
		Args: cli.OneImage,
		RunE: func(cmd *cobra.Command, args []string) error {
			j.Image = args[0]
			return initramfsResult(cmd, &o, j.Image, j.Out, j.Run)
		},
	}
	o.RegisterFile(cmd, &j.Out, outUsage)
	limitFlags(cmd, &j.Limits, readTime)
	return cmd
}
