//go:build linux

package kmsg

import (
	"context"
	"fmt"
	"time"
)

// Countdown says why something drastic comes, and how soon, until it is due:
// "no name after 2m0s: reboot in 10s". It speaks at every full minute, at 30, 10
// and the last 5 seconds, which stays within what the kernel takes. It returns nil
// when the time is up, at once if d is not positive, or the context's error.
func (c *Console) Countdown(ctx context.Context, d time.Duration, why, what string) error {
	if d <= 0 {
		c.Errorf("%s: %s now", why, what)
		return ctx.Err()
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for left := d; left > 0; {
		c.Say(Error, fmt.Sprintf("%s: %s in %v", why, what, left))
		next := mark(left)
		timer.Reset(left - next)
		select {
		case <-timer.C:
			left = next
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return ctx.Err()
}

// mark is the next moment to speak at, given what is left: the longest below it.
func mark(left time.Duration) time.Duration {
	switch {
	case left > time.Minute:
		return (left - 1).Truncate(time.Minute)
	case left > 30*time.Second:
		return 30 * time.Second
	case left > 10*time.Second:
		return 10 * time.Second
	case left > 5*time.Second:
		return 5 * time.Second
	default:
		return (left - 1).Truncate(time.Second)
	}
}
