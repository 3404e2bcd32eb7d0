package main

import (
	"github.com/spf13/cobra"

	"github.com/nametag-boot/nametag/internal/cli"
	"github.com/nametag-boot/nametag/internal/image/jobs"
)

const ukiLong = `Show a unified kernel image, or write it again with another command line and with nametag in its initramfs.

A unified kernel image (UKI) is an EFI program that holds a kernel, its initramfs and its command line: what Talos 1.10
and later boots, vmlinuz.efi in its installer image.`

func ukiCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "uki",
		Short: "Show a unified kernel image, or put nametag into one",
		Long:  ukiLong,
		Example: `  nametagctl uki inspect vmlinuz.efi
  nametagctl uki edit vmlinuz.efi --nametag --wait 2m --out vmlinuz-nametag.efi`,
	}
	cmd.AddCommand(ukiInspectCommand(), ukiEditCommand())
	return cmd
}

func ukiInspectCommand() *cobra.Command {
	var j jobs.InspectUKI
	var o cli.Output
	cmd := &cobra.Command{
		Use:   "inspect IMAGE [flags]",
		Short: "Show a unified kernel image: every command line, its initramfs, who signed it, its sections",
		Example: `  nametagctl uki inspect vmlinuz.efi
  nametagctl uki inspect -o json vmlinuz.efi | jq -r '.command_lines[].text'`,
		Args: cli.OneImage,
		RunE: func(cmd *cobra.Command, args []string) error {
			j.Image = args[0]
			return result(cmd, &o, j.Run)
		},
	}
	o.Register(cmd)
	limitFlags(cmd, &j.Limits, readTime)
	return cmd
}

const ukiEditLong = `Write a unified kernel image again, with other kernel arguments, another initramfs, or nametag added to the one it has.
In place, unless --out names another file; either way the file is written as a whole or not at all.

Arguments are changed on every command line that the image has: one of Talos has two, of which the second is that of
the profile which resets a node. They stand before a "--", where the kernel still reads them. An image without a command
line of its own is given one only by --cmdline: it takes the place of the loader's.

No edit leaves a signature valid, so a signed image is refused without --drop-signature. PCR signatures (.pcrsig) stay
and do not match any more; what is sealed to them does not open until they are made anew.`

func ukiEditCommand() *cobra.Command {
	var j jobs.EditUKI
	var o cli.Output
	var line string
	cmd := &cobra.Command{
		Use:   "edit IMAGE [flags]",
		Short: "Change the kernel arguments and the initramfs of a unified kernel image",
		Long:  ukiEditLong,
		Example: `  nametagctl uki edit vmlinuz.efi --nametag --wait 2m --out vmlinuz-nametag.efi
  nametagctl uki edit vmlinuz.efi --append "console=ttyS0,115200 panic=10"
  nametagctl uki edit vmlinuz.efi --initrd initramfs-nametag.zst --drop-signature --out unsigned.efi`,
		Args: cli.OneImage,
		RunE: func(cmd *cobra.Command, args []string) error {
			j.Image = args[0]
			if cmd.Flags().Changed("cmdline") {
				j.CommandLine = &line
			}
			return result(cmd, &o, j.Run)
		},
	}
	flags := cmd.Flags()
	o.RegisterFile(cmd, &j.Out, outUsage)
	flags.StringArrayVar(&j.Append, "append", nil, "kernel arguments to add, unless they are there; may be repeated")
	flags.StringArrayVar(&j.Replace, "replace", nil, "kernel arguments that take the place of those of the same name; may be repeated")
	flags.StringArrayVar(&j.Remove, "remove", nil, "names of kernel arguments to take away; may be repeated")
	flags.StringVar(&line, "cmdline", "", "the whole command line of an image that has none of its own")
	waitFlag(cmd, &j.Wait, "")
	flags.Lookup("wait").Usage += " (default with --nametag: " + defaultWait() + ", where there is none)"
	flags.BoolVar(&j.Nametag, "nametag", false, "add nametag to the initramfs, as /init")
	flags.BoolVar(&j.RDInit, "rdinit", false, "with --nametag: leave /init as it is, and tell the kernel by rdinit=")
	helperFlags(cmd, &j.Helpers)
	flags.StringVar(&j.Initrd, "initrd", "", "put this file in the place of the initramfs")
	flags.BoolVar(&j.DropSignature, "drop-signature", false, "take the signature of a signed image away")
	limitFlags(cmd, &j.Limits, readTime)
	return cmd
}
