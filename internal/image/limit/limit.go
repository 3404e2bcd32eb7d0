// Package limit bounds what it may cost to read one file, whatever the file says of itself.
//
// A small file can unpack to more than a disk holds, name a million files, or lead a reader round in links. Readers count
// on a [Budget] what they do for a file; the first thing that is too much ends the reading with an [*Exceeded], which
// names the limit and the flag that raises it.
package limit

import (
	"cmp"
	"context"
	"fmt"
	"time"
)

// Limits are the most that one file may cost. A zero field stands for that of [Default].
type Limits struct {
	// Unpacked is in bytes: all that the file unpacks to, and all that is written for it on the way.
	Unpacked int64
	// Entries is how many files, folders and links there are in it.
	Entries int64
	// Steps is how many names are walked by, on the way to all of its entries; a symbolic link adds those that it leads
	// by. Every 16 bytes of a name are a step more.
	Steps int64
	// Time is how long all of it takes.
	Time time.Duration
}

// Default is far above any image that boots, and far below what a workstation would notice for long: the largest
// distributions' have a gigabyte, thirty thousand entries, and a step for each part of their paths.
func Default() Limits {
	return Limits{Unpacked: 4 << 30, Entries: 1 << 18, Steps: 1 << 23, Time: 10 * time.Minute}
}

// The flags that raise each limit.
const (
	UnpackedFlag = "--max-unpacked"
	EntriesFlag  = "--max-entries"
	StepsFlag    = "--max-steps"
	TimeFlag     = "--max-time"
)

// Exceeded says which limit ended the reading.
type Exceeded struct {
	What string // what there is too much of, such as "it unpacks to more than 4 GiB"
	Flag string // the flag that raises the limit
}

func (e *Exceeded) Error() string {
	return e.What + ": no more is read of one file, unless " + e.Flag + " allows it"
}

// RaisedBy is the flag that raises the limit.
func (e *Exceeded) RaisedBy() string { return e.Flag }

// A Budget is what is left for one file. The zero value has the default limits. It is for one goroutine.
type Budget struct {
	Limits Limits

	unpacked, entries, names, steps int64
}

// Unpack takes n bytes.
func (b *Budget) Unpack(n int64) error {
	limit := cmp.Or(b.Limits.Unpacked, Default().Unpacked)
	if b.unpacked += n; n < 0 || b.unpacked < 0 || b.unpacked > limit {
		return &Exceeded{"it unpacks to more than " + (*Size)(&limit).words(), UnpackedFlag}
	}
	return nil
}

// Left is how many bytes may still be unpacked.
func (b *Budget) Left() int64 {
	return max(0, cmp.Or(b.Limits.Unpacked, Default().Unpacked)-b.unpacked)
}

// Entry takes one entry.
func (b *Budget) Entry() error {
	limit := cmp.Or(b.Limits.Entries, Default().Entries)
	if b.entries++; b.entries > limit {
		return &Exceeded{fmt.Sprintf("it has more than %d entries", limit), EntriesFlag}
	}
	return nil
}

// nameBytes is how many bytes of names and links there may be for each entry that there may be.
const nameBytes = 64

// Name takes n bytes of an entry's name, or of what a link says.
func (b *Budget) Name(n int) error {
	limit := cmp.Or(b.Limits.Entries, Default().Entries) * nameBytes
	if b.names += int64(n); b.names > limit {
		return &Exceeded{fmt.Sprintf("the names in it take more than %d bytes", limit), EntriesFlag}
	}
	return nil
}

// Walk takes n steps.
func (b *Budget) Walk(n int64) error {
	limit := cmp.Or(b.Limits.Steps, Default().Steps)
	if b.steps += n; b.steps > limit {
		return &Exceeded{fmt.Sprintf("its paths and links lead by more than %d names", limit), StepsFlag}
	}
	return nil
}

// Steps is what one name on a path costs.
func Steps(name string) int64 { return 1 + int64(len(name)/16) }

// WithTime is a context that ends when the time for a file is up. Its cause is an *Exceeded then.
func (l Limits) WithTime(ctx context.Context) (context.Context, context.CancelFunc) {
	d := cmp.Or(l.Time, Default().Time)
	return context.WithTimeoutCause(ctx, d, &Exceeded{fmt.Sprintf("it takes more than %v", d), TimeFlag})
}
