// Package watch audits again and again, and tells of it: on a page, as metrics, in the log, and as Events on the nodes.
package watch

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/nametag-boot/nametag/cluster/audit"
	"github.com/nametag-boot/nametag/cluster/memory"
	"github.com/nametag-boot/nametag/cluster/source"
)

// A Watcher audits every interval, and soon after a change that it is told of.
type Watcher struct {
	Readers  []source.Reader
	Auditor  *audit.Auditor
	Store    memory.Store // nil: the memory is in memory only
	Interval time.Duration
	Timeout  time.Duration // of one source
	Log      *slog.Logger
	// Tell is told of every finding that came or went; nil for nobody.
	Tell func(ctx context.Context, f audit.Finding, came bool) error

	mu       sync.Mutex
	report   *audit.Report
	told     map[string]audit.Finding // what came and has not gone
	success  map[audit.Source]time.Time
	finished time.Time
	rounds   map[string]int // by result
	leading  bool
	changed  chan struct{}
	once     sync.Once
}

// quiet is how long changes are gathered before they make a round.
const quiet = 2 * time.Second

// share is how far apart requests to the cloud are, on the average, where one change follows the other: half of what its rate limit
// allows, which is one a second for the whole project.
const share = 2 * time.Second

// gather is how long changes are gathered after a round that made so many requests to the cloud.
func gather(requests int) time.Duration { return max(quiet, time.Duration(requests)*share) }

func (w *Watcher) init() {
	w.once.Do(func() {
		w.changed = make(chan struct{}, 1)
		w.success = map[audit.Source]time.Time{}
		w.rounds = map[string]int{}
		w.told = map[string]audit.Finding{}
	})
}

// Changed asks for a round soon. It never blocks.
func (w *Watcher) Changed() {
	w.init()
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// Run audits until the context ends.
func (w *Watcher) Run(ctx context.Context) {
	w.init()
	w.lead(true)
	defer w.lead(false)
	for ctx.Err() == nil {
		before := w.asked()
		w.round(ctx)
		wait := gather(w.asked() - before)
		next := time.NewTimer(w.Interval)
		select {
		case <-ctx.Done():
		case <-next.C:
		case <-w.changed:
			select {
			case <-ctx.Done():
			case <-next.C:
			case <-time.After(wait):
			}
			select { // those that came meanwhile are in this round
			case <-w.changed:
			default:
			}
		}
		next.Stop()
	}
}

// asked is how many requests were made to clouds so far.
func (w *Watcher) asked() int {
	n := 0
	for _, r := range w.Readers {
		if c, ok := r.(interface{ Asked() int }); ok {
			n += c.Asked()
		}
	}
	return n
}

func (w *Watcher) lead(leading bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.leading = leading
	if !leading {
		w.report = nil // another one tells now
	}
}

// round audits once.
func (w *Watcher) round(ctx context.Context) {
	if err := w.load(ctx); err != nil {
		w.Log.Error("the memory cannot be read; no audit", "error", err)
		w.count("failed")
		return
	}
	snapshot, sources := source.Collect(ctx, w.Readers, w.Timeout)
	if ctx.Err() != nil {
		return
	}
	report := w.Auditor.Audit(snapshot)
	report.Sources = sources
	result := "agree"
	switch {
	case len(report.Failed()) > 0:
		result = "incomplete"
	case len(report.Findings) > 0:
		result = "findings"
	}
	w.mu.Lock()
	w.report = report
	w.finished = time.Now()
	for _, s := range sources {
		if s.State == audit.SourceRead {
			w.success[s.Source] = report.Taken
		}
	}
	w.mu.Unlock()
	w.count(result)
	w.tell(ctx, report)
	if w.Store != nil {
		if err := w.Store.Save(ctx, w.Auditor.Memory); err != nil {
			w.Log.Error("the memory cannot be kept", "error", err)
		}
	}
}

// load reads the memory at every round: somebody may have accepted a name meanwhile. What is known since when is this process's own.
func (w *Watcher) load(ctx context.Context) error {
	if w.Store == nil {
		if w.Auditor.Memory == nil {
			w.Auditor.Memory = &audit.Memory{}
		}
		return nil
	}
	m, err := w.Store.Load(ctx)
	if err != nil {
		return err
	}
	w.Auditor.Memory = m
	return nil
}

func (w *Watcher) count(result string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rounds[result]++
}

// tell logs what came and what went. While a source is not read, what only it could show has not gone.
func (w *Watcher) tell(ctx context.Context, now *audit.Report) {
	fresh := keyed(now)
	for key, f := range fresh {
		if _, known := w.told[key]; known {
			continue
		}
		w.told[key] = f
		w.Log.Warn("found", "id", f.ID, "severity", f.Severity, "subject", f.Subject, "server", f.Server, "what", f.Message)
		w.pass(ctx, f, true)
	}
	if len(now.Failed()) > 0 {
		return
	}
	for key, f := range w.told {
		if _, still := fresh[key]; !still {
			delete(w.told, key)
			w.Log.Info("gone", "id", f.ID, "subject", f.Subject, "server", f.Server)
			w.pass(ctx, f, false)
		}
	}
}

func (w *Watcher) pass(ctx context.Context, f audit.Finding, came bool) {
	if w.Tell == nil || f.Node == "" {
		return
	}
	if err := w.Tell(ctx, f, came); err != nil {
		w.Log.Error("no Event could be made", "node", f.Node, "error", err)
	}
}

// keyed has the findings that count by their key.
func keyed(r *audit.Report) map[string]audit.Finding {
	all := map[string]audit.Finding{}
	for _, f := range r.Findings {
		if f.Severity != audit.Info {
			all[f.Key()] = f
		}
	}
	return all
}
