package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/nametag-boot/nametag/internal/cli"
	"github.com/nametag-boot/nametag/internal/release/buildinfo"
)

// version is set by the linker in a release build.
var version string

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cli.NoArguments,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintln(cmd.OutOrStdout(), buildinfo.Line("nametagctl", version))
		},
	}
}
