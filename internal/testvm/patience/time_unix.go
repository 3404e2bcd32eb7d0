//go:build unix

package patience

import (
	"time"

	"golang.org/x/sys/unix"
)

// ownTime is the processor time that this thread has had.
func ownTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return 0 // every kernel has this clock; without it the wait above ends by its own bound
	}
	return time.Duration(t.Nano())
}
