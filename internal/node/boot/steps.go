//go:build linux

package boot

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
)

// The steps of finding a name, as the console's summary calls them.
const (
	stepDrivers  = "drivers"  // until the network devices have theirs, or are not waited for any longer
	stepMemory   = "memory"   // until the node's own memory was looked into, or is not waited for any longer
	stepNetwork  = "network"  // until the first path is there on which the service can be asked
	stepMetadata = "metadata" // until the service has given the name, and what else is asked for
	stepCleanUp  = "clean-up" // until the network is as it was
)

// A step is one part of a boot, and how long it took.
type step struct {
	Name string
	Took time.Duration
}

// A stopwatch measures steps of which each begins where the one before it ends: no moment is counted twice, nor blamed on
// two. Its methods may be called from several goroutines.
type stopwatch struct {
	now func() time.Time // nil: time.Now

	mu    sync.Mutex
	name  string // of the step that goes on; empty: none
	since time.Time
	steps []step
}

// begin ends the step that goes on, and begins another. A step that was begun before goes on where it stood.
func (s *stopwatch) begin(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now
	if s.now != nil {
		now = s.now
	}
	if at := now(); s.name != name {
		s.add(step{s.name, at.Sub(s.since)})
		s.name, s.since = name, at
	}
}

// follow goes by what the search tells. Nobody asks for more than the name where nameOnly is set.
func (s *stopwatch) follow(e identity.Event, nameOnly bool) {
	switch {
	case e.Kind == identity.EventLink && e.Link != nil && e.Link.Kind == earlynet.PathReady:
		s.pass(stepNetwork, stepMetadata) // another path makes no difference
	case e.Kind == identity.EventNamed && nameOnly, e.Kind == identity.EventCompleted:
		s.begin(stepCleanUp)
	}
}

// pass begins a step if it is the one before that goes on.
func (s *stopwatch) pass(from, to string) {
	s.mu.Lock()
	on := s.name == from
	s.mu.Unlock()
	if on {
		s.begin(to)
	}
}

// end ends the step that goes on, and returns all in the order in which they began.
func (s *stopwatch) end() []step {
	s.begin("")
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.steps)
}

// add adds what a step took. The caller holds the lock.
func (s *stopwatch) add(took step) {
	if took.Name == "" {
		return
	}
	if i := slices.IndexFunc(s.steps, func(t step) bool { return t.Name == took.Name }); i >= 0 {
		s.steps[i].Took += took.Took
		return
	}
	s.steps = append(s.steps, took)
}

// summary is the steps of a whole, and what is left of it: the start of processes, as a rule.
func summary(whole time.Duration, steps []step) string {
	var b strings.Builder
	for _, s := range steps {
		fmt.Fprintf(&b, "%s %s, ", s.Name, ms(s.Took))
		whole -= s.Took
	}
	return b.String() + "the rest " + ms(whole)
}
