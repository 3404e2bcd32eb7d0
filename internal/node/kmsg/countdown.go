//go:build linux

package kmsg

import (
	"context"
	"fmt"
	"time"

	"github.com/nametag-boot/nametag/internal/node/wait"
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
	for left := d; left > 0; {
		c.Say(Error, fmt.Sprintf("%s: %s in %v", why, what, left))
		next := nextWord(left)
		if !wait.Sleep(ctx, left-next) {
			return ctx.Err()
		}
		left = next
	}
	return ctx.Err()
}

// nextWord is what is left when it speaks again, given what is left now.
func nextWord(left time.Duration) time.Duration {
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
