package identity

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
)

const (
	// maxInFlight bounds a path's attempts at one time.
	maxInFlight = 3
	// attemptTime bounds one attempt. It is long, because a service that many
	// ask at once may be slow, and asking again makes it no faster.
	attemptTime = 10 * time.Second
	// firstHedge is how long an attempt may be silent before another joins it.
	// The kernel alone would wait a second to repeat a lost SYN, and for ever on
	// a connection that was accepted and forgotten.
	firstHedge = 200 * time.Millisecond
	lastHedge  = 5 * time.Second // the delay doubles up to here
	// maxHold bounds what a service may ask for by Retry-After.
	maxHold = 30 * time.Second
)

// A runner asks over one path until it has a valid answer or is told to stop.
//
// An attempt that fails is repeated after a [backoff]. While attempts are silent
// they are hedged: another one begins beside them, up to maxInFlight. Where there
// are that many, the second oldest is ended to make room. So the oldest has all
// its time, for a service that is slow, and there is always a young one, for a
// service that dropped what came before it was ready.
type runner struct {
	call    *resolver
	wins    chan<- *win
	history *pathHistory
	path    *earlynet.Path
	changed chan struct{} // the network has

	inFlight []*attempt // oldest first
	results  chan *attempt
	backoff  backoff
	hedges   uint8     // since something was last heard
	failing  bool      // the timer runs for a repetition, not for a hedge
	overdue  bool      // an attempt is to begin as soon as there is room
	hold     time.Time // not before this: the service asked for it
	restart  time.Time // back-off and hedging begin anew then; zero: no reason to
	timer    *time.Timer
	next     time.Time // when it fires
}

// An attempt is one Fetch.
type attempt struct {
	began    time.Time
	try      int // its number
	answer   Answer
	proof    Proof
	err      error
	cancel   context.CancelCauseFunc
	replaced bool
}

// Causes of an attempt's end that are not the context's of Resolve.
var (
	errTime     = errors.New("the attempt's time is up")
	errReplaced = errors.New("another attempt took its place")
)

// run ends with running, with the path, or with a win. Attempts are made under ctx.
func (r *runner) run(ctx, running context.Context) {
	r.results = make(chan *attempt, maxInFlight)
	r.next = time.Now().Add(r.history.allowance(time.Now()))
	r.timer = time.NewTimer(time.Until(r.next))
	defer r.timer.Stop()
	defer func() {
		for _, a := range r.inFlight {
			a.cancel(context.Canceled)
		}
	}()
	for {
		select {
		case <-running.Done():
			return
		case <-r.path.Done():
			r.history.gone()
			return
		case <-r.changed:
			r.resetBackoff()
		case <-r.timer.C:
			r.due(ctx)
		case a := <-r.results:
			r.inFlight = slices.DeleteFunc(r.inFlight, func(b *attempt) bool { return a == b })
			if running.Err() != nil {
				a.cancel(context.Canceled)
				return
			}
			err := r.judge(a)
			_, elsewhere := errors.AsType[*NotPresentError](err)
			if err == nil || elsewhere {
				r.win(running, a, err)
				return
			}
			a.cancel(err)
			if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
				continue // a socket noticed the end before the context did; it says nothing of the path
			}
			r.failed(a, err)
			if r.overdue {
				r.due(ctx)
			}
		}
	}
}

// due begins an attempt, or makes room for it first.
func (r *runner) due(ctx context.Context) {
	if len(r.inFlight) == maxInFlight {
		r.overdue = true
		if second := r.inFlight[1]; !second.replaced {
			second.replaced = true
			second.cancel(errReplaced)
		}
		return
	}
	r.overdue, r.failing = false, false
	if now := time.Now(); !r.restart.IsZero() && !now.Before(r.restart) {
		r.restart = time.Time{}
		r.backoff.Reset()
		r.hedges = 0
	}
	delay := min(firstHedge<<r.hedges, lastHedge)
	if delay < lastHedge {
		r.hedges++
	}
	// A quarter more or less, so that machines that began together drift apart.
	r.arm(time.Now().Add(delay*3/4 + r.backoff.random(delay/2)))
	r.begin(ctx)
}

// begin starts one attempt with its own bound.
func (r *runner) begin(ctx context.Context) {
	a := &attempt{began: time.Now()}
	ctx, a.cancel = context.WithCancelCause(ctx)
	r.inFlight = append(r.inFlight, a)
	a.try = r.history.begin(a.began)
	if a.try == 1 {
		r.tell(EventTrying, a, nil)
	} else {
		r.tell(EventAttempt, a, nil)
	}
	bound := time.AfterFunc(attemptTime, func() { a.cancel(errTime) })
	results := r.results
	done := func(err error) {
		bound.Stop()
		cause := context.Cause(ctx)
		_, told := errors.AsType[RetryAfterer](err) // then it is an answer, if a late one
		if err != nil && !told && (errors.Is(cause, errTime) || errors.Is(cause, errReplaced)) {
			err = silence(time.Since(a.began), err, cause)
		}
		a.err = err
		results <- a
	}
	r.call.tasks.Go("an attempt over "+r.history.name(), func() {
		var err error
		a.answer, err = r.call.src.Fetch(ctx, r.path)
		done(err)
	}, done)
}

// judge is nil if the attempt's answer is valid.
func (r *runner) judge(a *attempt) error {
	if a.err != nil {
		return a.err
	}
	var err error
	a.proof, err = r.call.verify(a.answer)
	return err
}

// win hands the answer over, or what ends the race without one; its context stays open until it is released.
func (r *runner) win(running context.Context, a *attempt, over error) {
	w := &win{path: r.path, answer: a.answer, proof: a.proof, over: over, release: func() { a.cancel(context.Canceled) }}
	select {
	case r.wins <- w:
	case <-running.Done():
		w.release()
	}
}

// tell tells of an attempt, and when the next one is due.
func (r *runner) tell(kind EventKind, a *attempt, err error) {
	next := r.next
	if r.overdue {
		next = time.Now()
	}
	r.call.log.add(Event{Kind: kind, Path: pathInfo(r.path), Try: a.try, Next: next.Sub(r.call.log.start), Err: err})
}

// failed records why, sets the time of the next attempt and tells both.
func (r *runner) failed(a *attempt, err error) {
	kind := EventAttempt
	if r.history.fail(err) {
		kind = EventFailed
	}
	r.plan(a, err)
	r.tell(kind, a, err)
}

// plan sets the time of the next attempt after one that failed.
func (r *runner) plan(a *attempt, err error) {
	_, silent := errors.AsType[*SilenceError](err)
	if a.replaced && silent {
		return // its successor is about to begin
	}
	r.overdue = false
	if !silent {
		r.hedges = 0
	}
	now := time.Now()
	if later, ok := errors.AsType[RetryAfterer](err); ok {
		if wait := min(later.RetryAfter(), maxHold); wait > 0 {
			// Those who were all told the same time come back one by one.
			r.hold = now.Add(wait + r.backoff.random(wait/2+1))
		}
	}
	if r.failing {
		r.arm(r.next) // hedged attempts fail together: that is one step of the back-off, not three
		return
	}
	r.failing = true
	r.arm(now.Add(r.backoff.Next()))
}

// arm sets the timer: for at, or for the restart if that comes first, but
// never for a time at which the service asked to be left alone.
func (r *runner) arm(at time.Time) {
	if !r.restart.IsZero() && r.restart.Before(at) {
		at = r.restart
	}
	if at.Before(r.hold) {
		at = r.hold
	}
	r.next = at
	r.timer.Reset(time.Until(at))
}

// resetBackoff has back-off and hedging begin anew, since something in the network
// has changed. What began a moment ago gets its time first, and the path's allowance
// keeps a flood of changes from becoming one of requests.
func (r *runner) resetBackoff() {
	if !r.restart.IsZero() || r.overdue {
		return
	}
	now := time.Now()
	r.restart = now.Add(r.history.allowance(now))
	if n := len(r.inFlight); n > 0 {
		if young := r.inFlight[n-1].began.Add(firstHedge); r.restart.Before(young) {
			r.restart = young
		}
	}
	r.arm(r.next)
}
