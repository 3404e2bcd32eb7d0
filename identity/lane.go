package identity

import (
	"errors"
	"sync"
	"time"
)

// errGone is the end of a path that had not failed until then.
var errGone = errors.New("the link or its address went away")

// A lane is what is known under the name of a path, over all paths that had it
// one after the other.
type lane struct {
	path PathInfo // the first of them

	mu    sync.Mutex
	quota quota
	tries int
	since time.Time // begin of the first attempt after which nothing was heard; zero: none
	err   error     // the last one
	said  string    // its cause, when the observer was last told
}

// name is what it is known under.
func (l *lane) name() string { return l.path.String() }

// allowance takes from the lane's quota.
func (l *lane) allowance(now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.quota.take(now)
}

// begin counts an attempt and returns its number.
func (l *lane) begin(now time.Time) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tries++
	if l.since.IsZero() {
		l.since = now
	}
	return l.tries
}

// fail records an error and reports whether it is news. It is news when its cause is another than the last one's: which of two
// requests met it first, and for how long there was silence, is none.
func (l *lane) fail(err error) (news bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
	cause := "silence"
	if _, silent := errors.AsType[*SilenceError](err); !silent {
		l.since = time.Time{}
		cause = innermost(err).Error()
	}
	news = cause != l.said
	l.said = cause
	return news
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
func (l *lane) gone() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.since = time.Time{}
	if l.err == nil {
		l.err = errGone
	}
}

// lastError is what there is to say of the lane at the end.
func (l *lane) lastError(now time.Time) (PathError, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := PathError{Path: l.path, Tries: l.tries, Err: l.err}
	silent, ok := errors.AsType[*SilenceError](e.Err)
	if silence := now.Sub(l.since); !l.since.IsZero() && (ok || e.Err == nil) {
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

// take takes one and returns how long to wait before using it.
func (q *quota) take(now time.Time) time.Duration {
	if q.free.Before(now) {
		q.free = now
	}
	q.free = q.free.Add(quotaEvery)
	// What was taken and never used, by paths that went before their time came, is no debt of the next one's.
	if most := now.Add((quotaBurst + 1) * quotaEvery); q.free.After(most) {
		q.free = most
	}
	return max(0, q.free.Sub(now)-quotaBurst*quotaEvery)
}
