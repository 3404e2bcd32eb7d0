package main

import (
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nametag-boot/nametag/internal/cli"
	"github.com/nametag-boot/nametag/internal/image/extension"
	"github.com/nametag-boot/nametag/internal/image/jobs"
	"github.com/nametag-boot/nametag/internal/release/buildinfo"
)

const extensionLong = `Make nametag's system extension for Talos: a container image that Talos' own imager builds into its images.

It is written as an OCI layout (--oci), as a tarball of its files (--tarball), to a registry (--push), or all of these.
With one helper it is an image, with one for each architecture an index of images. The same inputs give the same digest.

Then it prints what to do next: the imager's profile, with the kernel arguments that belong to the extension.

The helpers are nametag-linux-amd64 and nametag-linux-arm64 beside nametagctl, unless --helper names a file or a folder.`

const extensionExample = `  nametagctl extension --oci nametag.oci
  nametagctl extension --push ghcr.io/acme/nametag:v1 --wait 2m,then=halt
  nametagctl extension --talos 1.9 --arch amd64 --tarball nametag.tar
  nametagctl extension --oci nametag.oci --force -o profile > profile.yaml`

func extensionCommand() *cobra.Command {
	j := jobs.MakeExtension{Version: strings.Fields(buildinfo.Line("nametagctl", version))[1]}
	var o cli.Output
	cmd := &cobra.Command{
		Use:     "extension (--oci DIR | --tarball FILE | --push IMAGE) [flags]",
		Short:   "Make the system extension for Talos' imager",
		Long:    extensionLong,
		Example: extensionExample,
		Args:    cli.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if j.Profile = o.Format == "profile"; !j.Profile {
				return result(cmd, &o, j.Run)
			}
			return cli.Run(cmd, func(ctx context.Context) error {
				r, err := j.Run(ctx, console(cmd))
				if err != nil {
					return err
				}
				text, err := r.Profile()
				if err == nil {
					_, err = io.WriteString(cmd.OutOrStdout(), text)
				}
				return err
			})
		},
	}
	o.Register(cmd, "profile")
	helperFlags(cmd, &j.Helpers)
	waitFlag(cmd, &j.Wait, defaultWait())
	archFlag(cmd, &j.Architectures, "only these architectures: amd64, arm64 (default: every one that there is a helper for)")
	flags := cmd.Flags()
	flags.StringVar(&j.Talos, "talos", extension.Default().Tag, "the release of Talos that it is for")
	offer(cmd, "talos", "1.9", "1.10", extension.Default().Tag)
	flags.StringVar(&j.Layout, "oci", "", "write an OCI layout, in a new folder")
	flags.StringVar(&j.Tarball, "tarball", "", "write the files as a tarball; "+jobs.ArchPart+" in its name stands for the architecture")
	flags.StringVar(&j.Push, "push", "", "push to a registry; credentials are those of docker login")
	flags.BoolVar(&j.Force, "force", false, "replace an OCI layout that is there")
	flags.BoolVar(&j.Insecure, "insecure", false, "speak to the registry in plain HTTP, or to one whose certificate nobody vouches for")
	flags.StringVar(&j.Kind, "for", string(extension.DiskImage), "the kind of the profile of -o profile: image or installer")
	offer(cmd, "for", string(extension.DiskImage), string(extension.Installer))
	return cmd
}
