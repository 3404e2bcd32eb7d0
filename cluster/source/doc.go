// Package source reads what package audit compares, from the real things: the hcloud API, etcd, Kubernetes, Cluster API and
// Talos. Every source is optional, only reads, is bounded in time and has an error of its own: one that fails takes
// nothing from the others.
package source

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nametag-boot/nametag/cluster/audit"
)

// A Reader reads one source. Read fills in the parts of a snapshot that are the source's; the snapshot is empty.
type Reader interface {
	Source() audit.Source
	Read(ctx context.Context, into *audit.Snapshot) error
}

// DefaultTimeout bounds the reading of one source.
const DefaultTimeout = 30 * time.Second

// errNotServed is a source that is not there and was not asked for by name: it is off, and no failure.
var errNotServed = errors.New("not served here")

// Collect reads all sources at the same time, each for at most timeout (0 is DefaultTimeout). Two readers of one source, such
// as two projects, are both read; the source counts as read when both were.
func Collect(ctx context.Context, readers []Reader, timeout time.Duration) (*audit.Snapshot, []audit.SourceReport) {
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	whole := &audit.Snapshot{Taken: time.Now().UTC(), Read: map[audit.Source]bool{}}
	parts := make([]audit.Snapshot, len(readers))
	errs := make([]error, len(readers))
	took := make([]time.Duration, len(readers))
	var all sync.WaitGroup
	for i, r := range readers {
		all.Go(func() {
			ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no whole answer in %s", timeout))
			defer cancel()
			started := time.Now()
			errs[i] = r.Read(ctx, &parts[i])
			if errs[i] != nil && ctx.Err() != nil && !errors.Is(errs[i], context.Cause(ctx)) {
				errs[i] = fmt.Errorf("%w: %w", context.Cause(ctx), errs[i])
			}
			took[i] = time.Since(started)
		})
	}
	all.Wait()
	reports := map[audit.Source]*audit.SourceReport{}
	for _, s := range audit.Sources() {
		reports[s] = &audit.SourceReport{Source: s, State: audit.SourceOff}
	}
	for i, r := range readers {
		report := reports[r.Source()]
		report.Took = max(report.Took, took[i])
		switch {
		case errors.Is(errs[i], errNotServed):
			continue
		case errs[i] != nil:
			report.State, report.Error = audit.SourceFailed, errs[i].Error()
			whole.Incomplete = true
		case report.State != audit.SourceFailed:
			report.State = audit.SourceRead
		}
		report.Objects += parts[i].Objects(r.Source())
	}
	for i, r := range readers {
		if reports[r.Source()].State == audit.SourceRead {
			whole.Add(&parts[i])
			whole.Read[r.Source()] = true
		}
	}
	var ordered []audit.SourceReport
	for _, s := range audit.Sources() {
		ordered = append(ordered, *reports[s])
	}
	return whole, ordered
}

// Asked are the sources that any of the readers reads.
func Asked(readers []Reader) []audit.Source {
	var asked []audit.Source
	for _, r := range readers {
		if !slices.Contains(asked, r.Source()) {
			asked = append(asked, r.Source())
		}
	}
	return asked
}
