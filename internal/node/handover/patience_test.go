//go:build linux

package handover

import (
	"testing"
	"time"
)

// A machine whose host is busy counts as its processes' time what the host has given to others.
func TestProcessorTimeCountsForLessThanTimeInWhichNothingHappens(t *testing.T) {
	const limit = time.Second
	p := &patience{proc: -1, limit: limit} // of no process: nothing happens
	beats := 1
	for ; !p.beat(0); beats++ {
	}
	if want := int(limit / heartbeat); beats != want {
		t.Errorf("nothing happened for %d beats, not %d", beats, want)
	}
	if worked := (work{cpu: 4 * limit, ready: true}); p.spent(worked) {
		t.Errorf("%v of processor time are too much for a limit of %v", worked.cpu, limit)
	}
	if worked := (work{cpu: 10 * limit, ready: true}); !p.spent(worked) {
		t.Errorf("%v of processor time are not too much for a limit of %v", worked.cpu, limit)
	}
}
