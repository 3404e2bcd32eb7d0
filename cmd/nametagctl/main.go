// Command nametagctl is the workstation's side of nametag: it puts the node's binary into images, shows what it does on
// an embedded fake Hetzner network, and runs any command there. A command here is its flags; what it does is in
// internal/image/jobs and in internal/testvm.
package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/nametag-boot/nametag/internal/cli"
	"github.com/nametag-boot/nametag/internal/release/buildinfo"
)

func main() {
	os.Exit(cli.Execute(rootCommand(), os.Args[1:], os.Stdout, os.Stderr))
}

const rootLong = `Put nametag into images, show what it does, run commands on a fake Hetzner network.

The exit status of every command is 0 where it did what it does; 1 where it failed, or where cmdline check found a
mistake; and 2 where the command line is not understood. lab ends as the command that it runs, or with 125, 126 or 127.`

const rootExample = `  nametagctl demo
  nametagctl extension --oci nametag.oci
  nametagctl cmdline check 'talos.platform=hcloud talos.hostname.wait=2m'`

// rootCommand is nametagctl with all its commands.
func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:     "nametagctl",
		Short:   "Put nametag into images, show what it does, run commands on a fake Hetzner network",
		Long:    rootLong,
		Example: rootExample,
		Version: buildinfo.Line("nametagctl", version),
	}
	root.AddCommand(commands()...)
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "demo", "extension", "version":
			cmd.ValidArgsFunction = cobra.NoFileCompletions // no file is wanted where no argument is
		}
	}
	return cli.Prepare(root)
}

// commands are all that nametagctl can do.
func commands() []*cobra.Command {
	return append([]*cobra.Command{
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
	}, clusterCommands()...)
}
