package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nametag-boot/nametag/internal/cli"
	"github.com/nametag-boot/nametag/internal/testvm/demo"
	"github.com/nametag-boot/nametag/internal/testvm/lab"
)

const labLong = `Run a command in a fresh network namespace whose NIC eth0 is down and plugged into a fake Hetzner cloud.

The cloud has a DHCP server and the metadata service with its whole document tree, as Hetzner Cloud shows them to a
server. The command finds the server's DMI facts, its serial number among them, in the folder $NAMETAG_DMI, where
nametag looks. Nothing leaves the machine. It runs as root, and without root where the system allows user namespaces; on
Linux only. What the command leaves running in the background ends with it.

The exit status is the command's; 125 when the lab itself fails, 126 when the command cannot be run, 127 when it is not
found, and 2 when the command line is not understood.`

const labExample = `  nametagctl lab -- nametag resolve --nic eth0
  nametagctl lab --rtt 20ms --loss 0.2 --pcap lab.pcap -- nametag resolve --nic eth0
  nametagctl lab --metadata-after 3s -- sh -c 'ip link set eth0 up; udhcpc -i eth0 -n; curl http://169.254.169.254/hetzner/v1/metadata'`

func labCommand() *cobra.Command {
	o := lab.Default()
	cmd := &cobra.Command{
		Use:     "lab [flags] -- COMMAND [ARG…]",
		Short:   "Run a command on a fake Hetzner network",
		Long:    labLong,
		Example: labExample,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cli.Misusedf("no command given; for example: nametagctl lab -- nametag resolve --nic eth0")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if err := o.Check(); err != nil {
				return cli.Misused(err)
			}
			err := lab.Run(o, args)
			var exit *lab.ExitError
			if errors.As(err, &exit) {
				return &cli.Error{Status: exit.Status, Err: exit.Err}
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.SetInterspersed(false) // the command's own flags are its own, also without --
	flags.StringVar(&o.Hostname, "hostname", o.Hostname, "the server's name")
	flags.StringVar(&o.InstanceID, "instance-id", o.InstanceID, "the server's instance id")
	flags.StringVar(&o.Tree, "tree", "", "a folder whose files the metadata service serves in place of Hetzner's documents: another cloud's")
	flags.DurationVar(&o.RTT, "rtt", 0, "round-trip time between the node and the cloud")
	flags.Float64Var(&o.Loss, "loss", 0, "share of frames that are lost, in each direction: 0.2 is a fifth")
	flags.Float64Var(&o.Duplicate, "duplicate", 0, "share of frames that arrive twice")
	flags.Float64Var(&o.Reorder, "reorder", 0, "share of frames that are overtaken by later ones")
	flags.Float64Var(&o.Corrupt, "corrupt", 0, "share of frames with a flipped bit")
	flags.DurationVar(&o.MetadataAfter, "metadata-after", 0, "the metadata service answers rightly only after this time")
	flags.StringVar(&o.MetadataUntil, "metadata-until-then", o.MetadataUntil, "what it does before: "+strings.Join(lab.Behaviours(), ", ")+", or an HTTP status such as 503")
	offer(cmd, "metadata-until-then", lab.Behaviours()...)
	flags.StringSliceVar(&o.Shapes, "shape", o.Shapes, "the network behind eth0, eth1, …: public, private, ipv6-only or dead; may be repeated")
	offer(cmd, "shape", lab.Shapes()...)
	flags.StringVar(&o.Pcap, "pcap", "", "record every frame to this file")
	flags.Uint64Var(&o.Seed, "seed", 0, "seed of what is lost, doubled and reordered")
	return cmd
}

const demoLong = `Boot a server twice on a fake Hetzner network whose metadata service is unreachable for the first 3 s.

First as Talos v1.9.1 does it: ask once, invent a name, start the service. Then with nametag. Both boots are real
processes in namespaces of their own: the hostname is the kernel's, and the service reads it once, when it starts. It
needs Linux.

The exit status is 0 only when the service of the second boot started under the server's true name.`

func demoCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "demo",
		Short:   "Two boots on a fake Hetzner network: without nametag, then with it",
		Long:    demoLong,
		Example: "  nametagctl demo",
		Args:    cli.NoArguments,
		RunE: func(*cobra.Command, []string) error {
			if err := demo.Run(os.Stdout); err != nil {
				return &cli.Error{Status: cli.Failed, Err: err}
			}
			return nil
		},
	}
}

// The inside of demo: it sets the hostname of wherever it runs.
func demoBootCommand() *cobra.Command {
	return &cobra.Command{
		Use: demo.BootCommand + " {without|with}", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			err := demo.Boot(cmd.Context(), args[0], os.Stdout)
			switch {
			case errors.Is(err, demo.ErrInside):
				return cli.Misused(err)
			case err != nil:
				return &cli.Error{Status: cli.Failed, Err: err}
			}
			return nil
		},
	}
}

// It stands in for etcd: it says under which name it would join its cluster.
func demoServiceCommand() *cobra.Command {
	return &cobra.Command{
		Use: demo.ServiceCommand, Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			name, err := os.Hostname()
			if err != nil {
				return &cli.Error{Status: cli.Failed, Err: err}
			}
			fmt.Fprintln(cmd.OutOrStdout(), name)
			return nil
		},
	}
}
