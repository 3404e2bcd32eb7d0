package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/nametag-boot/nametag/internal/cli"
)

// manualCommand writes the man pages of all commands, for a release.
func manualCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "manual FOLDER",
		Short:  "Write man pages into a folder",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			root.DisableAutoGenTag = true
			// The date is SOURCE_DATE_EPOCH's, so that the same source gives the same bytes.
			header := &doc.GenManHeader{Section: "1", Source: "nametag", Manual: "User Commands"}
			if err := doc.GenManTree(root, header, args[0]); err != nil {
				return &cli.Error{Status: cli.Failed, Err: err}
			}
			return nil
		},
	}
}
