package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/nametag-boot/nametag/internal/image/limit"
)

// limitFlags bound what reading an image may cost. Every command that reads one has them.
type limitFlags struct {
	unpacked       limit.Size
	entries, steps int64
	time           time.Duration
}

func (f *limitFlags) register(cmd *cobra.Command) {
	most := limit.Default()
	f.unpacked = limit.Size(most.Unpacked)
	flags := cmd.Flags()
	flags.Var(&f.unpacked, limit.UnpackedFlag[2:], "the most that one image may unpack to")
	flags.Int64Var(&f.entries, limit.EntriesFlag[2:], most.Entries, "the most files, folders and links in one image")
	flags.Int64Var(&f.steps, limit.StepsFlag[2:], most.Steps, "the most names that the paths and links of one image lead by")
	flags.DurationVar(&f.time, limit.TimeFlag[2:], most.Time, "the most time to read one image")
}

func (f *limitFlags) limits() limit.Limits {
	return limit.Limits{Unpacked: int64(f.unpacked), Entries: f.entries, Steps: f.steps, Time: f.time}
}

// budget is a fresh one, for one file.
func (f *limitFlags) budget() *limit.Budget { return &limit.Budget{Limits: f.limits()} }
