package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/nametag-boot/nametag/internal/cli"
	"github.com/nametag-boot/nametag/internal/image/helper"
	"github.com/nametag-boot/nametag/internal/image/jobs"
	"github.com/nametag-boot/nametag/internal/image/limit"
	"github.com/nametag-boot/nametag/procfs"
)

// helperFlags say where the helpers are. Commands that put a helper somewhere share them.
func helperFlags(cmd *cobra.Command, h *jobs.Helpers) {
	h.Carried = carried
	flags := cmd.Flags()
	flags.StringVar(&h.Path, "helper", "", "the helper's binary, or a folder of them (default: beside nametagctl, else the one that a release carries)")
	flags.StringVar(&h.AMD64, "helper-amd64", "", "the helper for amd64")
	flags.StringVar(&h.ARM64, "helper-arm64", "", "the helper for arm64")
}

// limitFlags bound what reading an image may cost. Every command that reads one has them.
func limitFlags(cmd *cobra.Command, l *limit.Limits, most time.Duration) {
	*l = limit.Default()
	l.Time = most
	flags := cmd.Flags()
	flags.Var((*limit.Size)(&l.Unpacked), limit.UnpackedFlag[2:], "the most that one image may unpack to")
	flags.Var((*limit.Count)(&l.Entries), limit.EntriesFlag[2:], "the most files, folders and links in one image")
	flags.Var((*limit.Count)(&l.Steps), limit.StepsFlag[2:], "the most names that the paths and links of one image lead by")
	flags.Var((*limit.Duration)(&l.Time), limit.TimeFlag[2:], "the most time to read one image")
}

// waitFlag is the policy that goes into an image.
func waitFlag(cmd *cobra.Command, wait *string, value string) {
	cmd.Flags().StringVar(wait, "wait", value, "how long a boot waits for the name, and what then: the value of talos.hostname.wait=")
	offer(cmd, "wait", "30s", "2m", "5m", "forever")
}

// archFlag chooses architectures.
func archFlag(cmd *cobra.Command, architectures *[]string, usage string) {
	cmd.Flags().StringSliceVar(architectures, "arch", nil, usage)
	offer(cmd, "arch", helper.Architectures()...)
}

// offer tells a shell the values of a flag.
func offer(cmd *cobra.Command, flag string, values ...string) {
	// It fails only where a flag is told twice.
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

// defaultWait is the policy unless told otherwise.
func defaultWait() string { return procfs.Default().Value() }

// console is a command's.
func console(cmd *cobra.Command) jobs.Console {
	c := jobs.Console{In: cmd.InOrStdin(), Out: cmd.OutOrStdout(), Err: cmd.ErrOrStderr()}
	if s, ok := c.Out.(*cli.Screen); ok {
		c.Out = s.Unwrap() // an image is no text
	}
	return c
}

// result runs a job and prints its result in the form that was asked for.
func result[R cli.Result](cmd *cobra.Command, o *cli.Output, run func(context.Context, jobs.Console) (R, error)) error {
	o.Hint(cmd)
	return cli.Run(cmd, func(ctx context.Context) error {
		r, err := run(ctx, console(cmd))
		if err != nil {
			return err
		}
		return o.Print(cmd, r)
	})
}
