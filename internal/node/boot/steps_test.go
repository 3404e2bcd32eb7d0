//go:build linux

package boot

import (
	"testing"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
)

// A path that is there after 0.06 s, and a service that says 503 for 20 s: that is not the network's.
func TestTheSummaryBlamesWhoTookTheTime(t *testing.T) {
	ready := identity.Event{Kind: identity.EventLink, Link: &earlynet.Event{Kind: earlynet.PathReady}}
	for _, scenario := range []struct {
		name     string
		nameOnly bool
		events   []identity.Event // a second after one another, and one after the last
		says     string
	}{
		{
			"the service is late", true,
			[]identity.Event{ready, {Kind: identity.EventFailed}, {Kind: identity.EventFailed}, {Kind: identity.EventNamed}},
			"drivers 1000 ms, network 1000 ms, metadata 3000 ms, clean-up 1000 ms, the rest 500 ms",
		},
		{
			"all that is known is asked for", false,
			[]identity.Event{ready, {Kind: identity.EventNamed}, {Kind: identity.EventCompleted}},
			"drivers 1000 ms, network 1000 ms, metadata 2000 ms, clean-up 1000 ms, the rest 500 ms",
		},
		{"there never was a path", true, nil, "drivers 1000 ms, network 1000 ms, the rest 500 ms"},
		{
			"a second path comes too late", true,
			[]identity.Event{ready, {Kind: identity.EventNamed}, ready},
			"drivers 1000 ms, network 1000 ms, metadata 1000 ms, clean-up 2000 ms, the rest 500 ms",
		},
	} {
		var at time.Duration
		watch := &stopwatch{now: func() time.Time { return time.Unix(0, 0).Add(at) }}
		later := func() { at += time.Second }
		watch.begin(stepDrivers)
		later()
		watch.begin(stepNetwork)
		for _, e := range scenario.events {
			later()
			watch.follow(e, scenario.nameOnly)
		}
		later()
		if says := summary(at+500*time.Millisecond, watch.end()); says != scenario.says {
			t.Errorf("%s: %s, want %s", scenario.name, says, scenario.says)
		}
	}
}
