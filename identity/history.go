package identity

import (
	"errors"
	"sync"
	"time"
)

// errGone is the end of a path that had not failed until then.
var errGone = errors.New("the link or its address went away")

// A pathHistory is what is known under the name of a path, over all paths that had
// it one after the other.
type pathHistory struct {
	path PathInfo // the first of them

	mu    sync.Mutex
	quota quota
	tries int
	since time.Time // begin of the first attempt after which nothing was heard; zero: none
	err   error     // the last one
	said  string    // its cause, when the observer was last told
}

// name is what it is known under.
func (h *pathHistory) name() string { return h.path.String() }

// allowance takes one new beginning from the path's quota, and returns how long to wait
// before it.
func (h *pathHistory) allowance(now time.Time) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.quota.reserve(now)
}

// begin counts an attempt and returns its number.
func (h *pathHistory) begin(now time.Time) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tries++
	if h.since.IsZero() {
		h.since = now
	}
	return h.tries
}

// fail records an error and reports whether it is to be told as new: where its cause is another than the last one's. Which of
// two requests met it first, and how long there was silence, makes no difference.
func (h *pathHistory) fail(err error) (differs bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err = err
	cause := "silence"
	if _, silent := errors.AsType[*SilenceError](err); !silent {
		h.since = time.Time{}
		cause = innermost(err).Error()
	}
	differs = cause != h.said
	h.said = cause
	return differs
}

func innermost(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

// gone records that the path has ended. What went wrong before says more.
func (h *pathHistory) gone() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.since = time.Time{}
	if h.err == nil {
		h.err = errGone
	}
}

// lastError is what there is to say of the path at the end.
func (h *pathHistory) lastError(now time.Time) (PathError, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := PathError{Path: h.path, Tries: h.tries, Err: h.err}
	silent, ok := errors.AsType[*SilenceError](e.Err)
	if silence := now.Sub(h.since); !h.since.IsZero() && (ok || e.Err == nil) {
		e.Err = &SilenceError{After: silence}
		if ok {
			e.Err = &SilenceError{After: silence, Stage: silent.Stage}
		}
	}
	return e, e.Err != nil
}

// A quota is an allowance that fills up with time: it lets the first few pass at
// once and a flood at a steady, low rate. The zero value is full.
type quota struct {
	free time.Time // when the allowance will be full again
}

const (
	quotaBurst = 5
	quotaEvery = 2 * time.Second
)

// reserve takes one and returns how long to wait before using it.
func (q *quota) reserve(now time.Time) time.Duration {
	if q.free.Before(now) {
		q.free = now
	}
	q.free = q.free.Add(quotaEvery)
	// Reservations that were never used, by paths that ended before, are not charged to the next path of that name.
	if most := now.Add((quotaBurst + 1) * quotaEvery); q.free.After(most) {
		q.free = most
	}
	return max(0, q.free.Sub(now)-quotaBurst*quotaEvery)
}
