//go:build linux

package qemu

import (
	"fmt"
	"sync"
	"time"
)

// timeArguments tells a kernel for amd64 how fast its processor's time stamp counter runs. That is this machine's own
// counter (QEMU's cpu_get_ticks), which the guest would have to measure against timers that are emulated: where this
// machine is busy it comes out wrong, by a factor of twenty at times, and every wait of the guest with it.
var timeArguments = sync.OnceValue(func() string {
	if rdtsc() == 0 {
		return "" // another architecture, whose counter tells its frequency
	}
	// The shortest of several readings of both clocks is one that nothing came in between.
	read := func() (ticks uint64, at time.Time) {
		best := time.Hour
		for range 100 {
			before := time.Now()
			now := rdtsc()
			after := time.Now()
			if d := after.Sub(before); d < best {
				best, ticks, at = d, now, before.Add(d/2)
			}
		}
		return ticks, at
	}
	ticks, began := read()
	time.Sleep(100 * time.Millisecond)
	later, ended := read()
	khz := float64(later-ticks) / ended.Sub(began).Seconds() / 1000
	return fmt.Sprintf("tsc_early_khz=%.0f", khz)
})
