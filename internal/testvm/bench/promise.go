//go:build linux

package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm/cloud"
)

// A promise is something that must hold, and what was measured.
type promise struct {
	what, measured string
	held           bool
}

// What the binary that ships on a node may cost, in bytes.
const (
	maxBinary = 12 << 20
	maxPacked = 4 << 20
	maxPeak   = 24 << 20
)

// promises are those that the figures have something to say about.
func promises(f *figures) []promise {
	var all []promise
	add := func(what string, held bool, measured string, args ...any) {
		all = append(all, promise{what, fmt.Sprintf(measured, args...), held})
	}
	const rtt = 20 * time.Millisecond

	if s, ok := f.series(cloud.Public, 0, 0); ok {
		mine, ok := s.row(nametag)
		var name float64
		if ok {
			name = median(mine.times())
		}
		if bare, there := s.row(bareLinkLocal); ok && there {
			x := name / median(bare.times())
			add("public, no round-trip time: at most 1.5 × the bare link-local prototype", x <= 1.5, "%.2f ×", x)
		}
		if static, there := s.row(bareStatic); ok && there {
			x := name / median(static.times())
			add("wanted: at most 1.15 × the same prototype, linked statically", x <= 1.15, "%.2f ×, %.1f ms more", x, name-median(static.times()))
		}
		if other, there := s.row(dhclientCurl); ok && there {
			x := median(other.times()) / name
			add("and at least 5 × faster than dhclient + curl", x >= 5, "%.1f ×", x)
		}
		if best, there := s.bestPeer(); ok && there {
			x := median(best.times()) / name
			add("and at least 5 × faster than the best other client", x >= 5, "%.1f × (%s)", x, best.Client)
		}
	}
	if mine, ok := f.start(startNametag); ok {
		if http, ok := f.start(startHTTP); ok {
			x := median(mine.Runs) / median(http.Runs)
			add("a start: at most 1.15 × that of a program that imports net/http alone", x <= 1.15, "%.2f ×", x)
		}
	}
	for _, shape := range []cloud.Shape{cloud.Public, cloud.Private} {
		s, ok := f.series(shape, rtt, 0)
		mine, there := s.row(nametag)
		if !ok || !there {
			continue
		}
		x := median(mine.times()) / s.limit(mine)
		add(fmt.Sprintf("%s, %s: at most 1.15 × %d round trips", shape, rtt, mine.Trips), x <= 1.15, "%.2f ×", x)
	}
	if s, ok := f.series(flagship.shape, flagship.rtt, flagship.loss); ok {
		if mine, ok := s.row(nametag); ok {
			p99 := percentile(mine.times(), 99)
			add(fmt.Sprintf("public, %s, %.0f %% loss each way: 99th percentile of %d runs under 1 s", flagship.rtt, 100*flagship.loss, promisedRuns),
				p99 < 1000 && len(mine.Failed) == 0 && len(mine.Name) >= promisedRuns, "%s ms, %d runs, %d without a name", short(p99), len(mine.Name), len(mine.Failed))
		}
	}
	if i := slices.IndexFunc(f.Clients, func(c clientFigures) bool { return c.Name == nametag }); i >= 0 {
		c := f.Clients[i]
		add("the binary: at most 12 MiB", c.Size <= maxBinary, "%s MiB", mib(c.Size))
		if c.Packed > 0 {
			add("as zstd: at most 4 MiB", c.Packed <= maxPacked, "%s MiB", mib(c.Packed))
		}
		if c.Peak > 0 {
			add("peak resident memory: at most 24 MiB", c.Peak <= maxPeak, "%s MiB", mib(c.Peak))
		}
	}
	return all
}

// bestPeer is the row of the client with the lowest median that is not one of ours.
func (s series) bestPeer() (best row, ok bool) {
	for _, r := range s.Rows {
		if ours(r.Client) || len(r.Name) == 0 {
			continue
		}
		if !ok || median(r.times()) < median(best.times()) {
			best, ok = r, true
		}
	}
	return best, ok
}
