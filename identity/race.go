package identity

import (
	"context"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
)

// A race asks over every path at once. The first valid answer wins. Nothing
// waits for a slower path, and no path waits for another's failure.
type race struct {
	call      *resolver
	net       network
	histories []*pathHistory // in the order of their first path
	wins      chan *win
	runners   map[*runner]struct{}
	ended     chan *runner
	over      error // that no path can have a name
}

// A win is the first valid answer.
type win struct {
	path    *earlynet.Path
	answer  Answer
	proof   Proof
	proven  time.Duration // when, since the first step
	over    error         // instead of an answer
	release func()        // lets the source free what it holds for answer.More
}

// maxHistories bounds what is remembered of paths that are gone. More than this
// only comes from cards that keep coming back under new names.
const maxHistories = 64

func newRace(r *resolver, net network) *race {
	return &race{
		call:    r,
		net:     net,
		wins:    make(chan *win),
		runners: make(map[*runner]struct{}),
		ended:   make(chan *runner),
	}
}

// run returns the win, or nil when ctx has ended. Every runner has been told to
// stop by then; call.tasks knows when they have.
func (r *race) run(ctx context.Context) *win {
	running, stop := context.WithCancel(ctx)
	defer stop()
	paths, changes := r.net.Paths(), r.net.Changes()
	for {
		select {
		case w := <-r.wins:
			if w.over != nil {
				w.release()
				r.over = w.over
				return nil
			}
			if w.proof == ProofNone {
				r.call.log.add(Event{Kind: EventUnproven, Path: pathInfo(w.path), Err: &UnprovenError{Source: r.call.name, InstanceID: shorten(w.answer.InstanceID, 64), Facts: r.call.facts}})
			}
			now := time.Now() // of the event and of the identity: one moment
			w.proven = now.Sub(r.call.log.start)
			r.call.log.addAt(now, Event{Kind: EventNamed, Path: pathInfo(w.path), Hostname: w.answer.Hostname, Detail: w.answer.Hostname})
			return w
		case <-ctx.Done():
			return nil
		case path, ok := <-paths:
			if !ok {
				paths = nil // the network has ended; what is under way may still win
				continue
			}
			if path == nil {
				r.call.log.add(Event{Kind: EventFailed, Err: errNilPath})
				continue
			}
			r.networkChanged()
			r.start(ctx, running, path)
		case <-changes:
			r.networkChanged()
		case old := <-r.ended:
			delete(r.runners, old)
		}
	}
}

// start runs a path. Attempts get the outer context, so that the winner's
// lives on when the race is over.
func (r *race) start(ctx, running context.Context, path *earlynet.Path) {
	run := &runner{
		call: r.call, wins: r.wins, history: r.history(pathInfo(path)), path: path,
		backoff: r.call.backoff, changed: make(chan struct{}, 1),
	}
	r.runners[run] = struct{}{}
	end := func() {
		select {
		case r.ended <- run:
		case <-running.Done():
		}
	}
	r.call.tasks.Go("asking over "+run.history.name(), func() {
		run.run(ctx, running)
		end()
	}, func(err error) {
		run.history.fail(err)
		r.call.log.add(Event{Kind: EventFailed, Path: run.history.path, Err: err})
		end()
	})
}

// networkChanged has every runner begin anew.
func (r *race) networkChanged() {
	for run := range r.runners {
		select {
		case run.changed <- struct{}{}:
		default:
		}
	}
}

// history returns what is remembered under a path's name. A path that went and
// came back finds its history again, with its allowance of requests.
func (r *race) history(path PathInfo) *pathHistory {
	for _, h := range r.histories {
		if h.name() == path.String() {
			return h
		}
	}
	if len(r.histories) >= maxHistories {
		r.histories = append(r.histories[:0:0], r.histories[1:]...)
	}
	h := &pathHistory{path: path}
	r.histories = append(r.histories, h)
	return h
}

// lastErrors is why there was no name: of each path the last error, then what
// the network says of paths that did not come up.
func (r *race) lastErrors(status []error) []PathError {
	var all []PathError
	now := time.Now()
	for _, h := range r.histories {
		if e, ok := h.lastError(now); ok {
			all = append(all, e)
		}
	}
	for _, err := range status {
		if err != nil {
			all = append(all, PathError{Err: err})
		}
	}
	return all
}
