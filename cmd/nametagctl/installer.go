package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/nametag-boot/nametag/internal/cli"
	"github.com/nametag-boot/nametag/internal/image/jobs"
)

const installerLong = `Put nametag into a Talos installer image that exists already, without Docker and without root.

IMAGE is a reference in a registry, an OCI layout (oci:DIR[:TAG], oci-archive:FILE[:TAG]), what docker save and Talos'
imager write (docker-archive:FILE[:NAME:TAG]), or what skopeo writes to dir:DIR. The result has one layer more: the initramfs (Talos 1.9) or the UKI (1.10 and later) with nametag
as /init, and talos.hostname.wait= on every command line of a UKI. Of an index every architecture's image is amended.
Nothing else about the image changes, and an image that has all of it already stays as it is.

From 1.10 on the platform is part of the UKI: take an installer for hcloud. ghcr.io/siderolabs/installer is for metal.`

const installerExample = `  nametagctl installer ghcr.io/siderolabs/installer:v1.9.1 --push ghcr.io/acme/installer:v1.9.1-nametag
  nametagctl installer factory.talos.dev/hcloud-installer/376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba:v1.12.7 \
    --push ghcr.io/acme/installer:v1.12.7-nametag
  nametagctl installer docker-archive:_out/installer-amd64.tar --archive installer-nametag.tar --wait 2m,then=halt
  nametagctl installer oci:installer --arch arm64 --oci installer-arm64`

// amendTime is the most that reading an installer may take: it may come through a slow network.
const amendTime = time.Hour

func installerCommand() *cobra.Command {
	var j jobs.AmendInstaller
	var o cli.Output
	cmd := &cobra.Command{
		Use:     "installer IMAGE (--oci DIR | --archive FILE | --push IMAGE) [flags]",
		Short:   "Put nametag into a Talos installer image",
		Long:    installerLong,
		Example: installerExample,
		Args:    cli.OneImage,
		RunE: func(cmd *cobra.Command, args []string) error {
			j.Image = args[0]
			return result(cmd, &o, j.Run)
		},
	}
	o.Register(cmd)
	helperFlags(cmd, &j.Helpers)
	limitFlags(cmd, &j.Limits, amendTime)
	waitFlag(cmd, &j.Wait, defaultWait())
	archFlag(cmd, &j.Architectures, "of an index take only these architectures: amd64, arm64; one makes an image of it")
	flags := cmd.Flags()
	flags.StringVar(&j.Layout, "oci", "", "write an OCI layout, in a new folder")
	flags.StringVar(&j.Archive, "archive", "", "write a docker-archive, as docker load takes it")
	flags.StringVar(&j.Tag, "tag", "", "the image's name in the archive (default: that of IMAGE in its registry)")
	flags.StringVar(&j.Push, "push", "", "push to a registry; credentials are those of docker login")
	flags.BoolVar(&j.Force, "force", false, "replace an OCI layout that is there")
	flags.BoolVar(&j.Insecure, "insecure", false, "speak to registries in plain HTTP, or to those whose certificate nobody vouches for")
	flags.BoolVar(&j.DropSignature, "drop-signature", false, "take the signature of a signed UKI away")
	return cmd
}
