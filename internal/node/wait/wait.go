//go:build linux

// Package wait has the two waits that the rooms of a node have in common, each with a bound.
package wait

import (
	"context"
	"time"
)

// Sleep waits for d, and reports whether ctx let it. Where both have ended, it did not.
func Sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// For waits for what comes from ch, no longer than atMost, and reports whether it came. What is there when the time is up
// has come. Of a channel that was closed comes the zero value.
func For[T any](ch <-chan T, atMost time.Duration) (v T, came bool) {
	t := time.NewTimer(atMost)
	defer t.Stop()
	select {
	case v = <-ch:
		return v, true
	case <-t.C:
	}
	select {
	case v = <-ch:
		return v, true
	default:
		return v, false
	}
}
