package identity

import (
	"context"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
)

// A race asks over every path at once. The first valid answer wins. Nothing
// waits for a slower path, and no path waits for another's failure.
type race struct {
	*resolver
	net     network
	lanes   []*lane // in the order of their first path
	wins    chan *win
	runners map[*runner]struct{}
	ended   chan *runner
	over    error // that no path can have a name
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

// maxLanes bounds what is remembered of paths that are gone. More than this
// only comes from cards that keep coming back under new names.
const maxLanes = 64

func newRace(r *resolver, net network) *race {
	return &race{
		resolver: r,
		net:      net,
		wins:     make(chan *win),
		runners:  make(map[*runner]struct{}),
		ended:    make(chan *runner),
	}
}

// run returns the win, or nil when ctx has ended. Every runner has been told to
// stop by then; resolver.tasks knows when they have.
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
				r.log.add(Event{Kind: EventUnproven, Path: pathInfo(w.path), Err: &UnprovenError{Source: r.name, InstanceID: shorten(w.answer.InstanceID, 64), Facts: r.facts}})
			}
			now := time.Now() // of the event and of the identity: one moment
			w.proven = now.Sub(r.log.start)
			r.log.addAt(now, Event{Kind: EventNamed, Path: pathInfo(w.path), Hostname: w.answer.Hostname, Detail: w.answer.Hostname})
			return w
		case <-ctx.Done():
			return nil
		case path, ok := <-paths:
			if !ok {
				paths = nil // the network has ended; what is under way may still win
				continue
			}
			if path == nil {
				r.log.add(Event{Kind: EventFailed, Err: errNilPath})
				continue
			}
			r.nudge()
			r.start(ctx, running, path)
		case _, ok := <-changes:
			if !ok {
				changes = nil
				continue
			}
			r.nudge()
		case old := <-r.ended:
			delete(r.runners, old)
		}
	}
}

// start runs a path. Attempts get the outer context, so that the winner's
// lives on when the race is over.
func (r *race) start(ctx, running context.Context, path *earlynet.Path) {
	run := &runner{race: r, lane: r.lane(pathInfo(path)), path: path, backoff: r.backoff, nudged: make(chan struct{}, 1)}
	r.runners[run] = struct{}{}
	end := func() {
		select {
		case r.ended <- run:
		case <-running.Done():
		}
	}
	r.tasks.Go("asking over "+run.lane.name(), func() {
		run.run(ctx, running)
		end()
	}, func(err error) {
		run.lane.fail(err)
		r.log.add(Event{Kind: EventFailed, Path: run.lane.path, Err: err})
		end()
	})
}

// nudge tells every runner that the network has changed.
func (r *race) nudge() {
	for run := range r.runners {
		select {
		case run.nudged <- struct{}{}:
		default:
		}
	}
}

// lane returns what is remembered under a path's name. A path that went and
// came back finds its lane again, with its allowance of requests.
func (r *race) lane(path PathInfo) *lane {
	for _, l := range r.lanes {
		if l.name() == path.String() {
			return l
		}
	}
	if len(r.lanes) >= maxLanes {
		r.lanes = append(r.lanes[:0:0], r.lanes[1:]...)
	}
	l := &lane{path: path}
	r.lanes = append(r.lanes, l)
	return l
}

// lastErrors is why there was no name: of each lane the last error, then what
// the network says of paths that did not come up.
func (r *race) lastErrors(status []error) []PathError {
	var all []PathError
	now := time.Now()
	for _, l := range r.lanes {
		if e, ok := l.lastError(now); ok {
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
