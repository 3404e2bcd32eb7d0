package identity

import (
	"math/rand/v2"
	"time"
)

// The bounds of the back-off of Resolve, chosen by the figures in docs/retry.md.
const (
	firstBound = 100 * time.Millisecond
	lastBound  = 10 * time.Second
)

// A backoff says how long to wait after each failure: a random time between
// nothing and a bound that doubles from Base up to Cap ("full jitter"). After an
// outage that hit many machines at once, this spreads their requests evenly
// instead of in waves. The zero value is what Resolve uses on each path. It is
// not safe for concurrent use.
type backoff struct {
	Base time.Duration           // the first bound; 0 is firstBound
	Cap  time.Duration           // the last bound; 0 is lastBound
	Rand func(n int64) (r int64) // 0 ≤ r < n; nil is math/rand/v2, which never blocks
	step uint8                   // how often the bound has doubled
}

// Next returns the time to wait now, and doubles the bound for the next call.
func (b *backoff) Next() time.Duration {
	base, limit := b.Base, b.Cap
	if base <= 0 {
		base = firstBound
	}
	if limit <= 0 {
		limit = lastBound
	}
	bound := base << b.step
	if bound >= limit || bound < base { // reached, or overflown
		bound = limit
	} else {
		b.step++
	}
	return b.random(bound) + 1
}

// Reset starts again at Base.
func (b *backoff) Reset() { b.step = 0 }

// random is a time from nothing up to, and without, limit.
func (b *backoff) random(limit time.Duration) time.Duration {
	if b.Rand == nil {
		return rand.N(limit)
	}
	return time.Duration(b.Rand(int64(limit)))
}
