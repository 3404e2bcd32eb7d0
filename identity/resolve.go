package identity

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity/dmi"
	"github.com/nametag-boot/nametag/internal/safely"
)

const (
	// moreTime bounds what the rest of an identity may cost once the name is known.
	moreTime = 100 * time.Millisecond
	// grace is how long after the end of its context and of its connections an
	// attempt is waited for. It is below the 10 ms in which Resolve is to
	// return, and long for what only has to notice.
	grace = 8 * time.Millisecond
	// openAgain is how long a network is left alone that could not be opened.
	openAgain = time.Second
)

// A resolver is one call of Resolve.
type resolver struct {
	Resolver
	src      guarded
	name     string // src's
	facts    dmi.Facts
	presence Presence
	own      string  // this machine's instance id, as the firmware has it; may be empty
	faults   []error // of the source, before it was asked
	log      *timeline
	end      context.CancelFunc // of what the network runs under
	tasks    safely.Group       // every goroutine that was started
}

func (r *resolver) resolve(ctx context.Context) (*Identity, error) {
	var err error
	r.name, err = r.src.Name()
	r.fault(err)
	if r.look(); r.presence == PresenceNo {
		return nil, &NotPresentError{Source: r.name, Facts: r.facts}
	}
	if err := r.provable(); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, r.timeout(ctx, nil, nil)
	}
	net, err := r.openNetwork(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, r.timeout(ctx, []PathError{{Err: err}}, nil)
		}
		return nil, fmt.Errorf("identity: %w", err)
	}

	race := newRace(r, net)
	won := race.run(ctx)
	if race.over != nil {
		_ = r.closeNetwork(net)
		return nil, race.over
	}
	if won == nil {
		paths := race.lastErrors(net.Status())
		undo := r.closeNetwork(net)
		return nil, r.timeout(ctx, paths, undo)
	}
	id := won.identity(r.name)
	r.tellName(*id)
	r.complete(ctx, id, won)
	if r.Keep {
		if err := net.Keep(won.path); err != nil {
			r.log.add(Event{Kind: EventNotKept, Path: pathInfo(won.path), Err: err})
		}
	}
	_ = r.closeNetwork(net) // it is in the timeline; the name is good all the same
	return id, nil
}

// look reads the facts and says what follows from them.
func (r *resolver) look() {
	var err error
	if r.Facts != nil {
		r.facts = *r.Facts
	} else {
		r.facts, err = dmi.Read("")
	}
	var present, own error
	r.presence, present = r.src.Present(r.facts)
	r.own, own = r.src.InstanceID(r.facts)
	r.fault(present)
	r.fault(own)
	detail := fmt.Sprintf("on %s: %s (DMI vendor %q)", r.name, r.presence, shorten(r.facts.Vendor, 64))
	r.log.add(Event{Kind: EventPlatform, Presence: r.presence, Detail: detail, Err: err})
}

// fault says what the source did wrong before it was asked, and keeps it for the
// error. What it would have told is not known then.
func (r *resolver) fault(err error) {
	if err != nil {
		r.log.add(Event{Kind: EventFailed, Err: err})
		r.faults = append(r.faults, err)
	}
}

// openNetwork opens the network. The end of ctx ends the opening, but not the
// network: that stands until it is closed, so that its last events come in order,
// and the winner's link can be kept although ctx has ended meanwhile.
func (r *resolver) openNetwork(ctx context.Context) (network, error) {
	cfg := r.Link
	theirs := cfg.Observer
	cfg.Observer = func(e earlynet.Event) {
		r.log.link(e)
		if theirs != nil && !r.log.call("Link.Observer", func() { theirs(e) }) {
			theirs = nil // the network calls this function once at a time
		}
	}
	opening, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r.end = cancel
	defer context.AfterFunc(ctx, cancel)()
	var said string
	for {
		net, err := r.open(opening, cfg)
		if err == nil {
			return net, nil
		}
		if passes(err) && opening.Err() == nil {
			if again := err.Error(); again != said { // once for each way to fail
				said = again
				r.log.add(Event{Kind: EventFailed, Next: time.Since(r.log.start) + openAgain, Detail: "the network cannot be opened yet", Err: err})
			}
			timer := time.NewTimer(openAgain)
			select {
			case <-timer.C:
				continue
			case <-opening.Done():
				timer.Stop()
			}
		}
		cancel()
		return nil, err
	}
}

// passes reports whether an error is one of those that a machine gets over:
// the kernel is short of something, or busy.
func passes(err error) bool {
	for _, errno := range []syscall.Errno{syscall.ENOMEM, syscall.ENOBUFS, syscall.EMFILE, syscall.ENFILE, syscall.EAGAIN, syscall.EBUSY} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// closeNetwork undoes the network and waits for every goroutine. The closing
// of its connections is what releases an attempt that ignores its context.
func (r *resolver) closeNetwork(net network) error {
	defer r.end()
	err := net.Close()
	if err != nil {
		r.log.add(Event{Kind: EventUndoFailed, Err: err})
	}
	done := make(chan struct{})
	safely.Go("the end", func() { r.tasks.Wait(); close(done) }, func(error) {})
	patience := time.NewTimer(grace)
	defer patience.Stop()
	select {
	case <-done:
	case <-patience.C:
		r.log.add(Event{Kind: EventLeftBehind, Detail: "an attempt of " + r.name + " ignores the end of its context and of its connections"})
	}
	return err
}

// complete lets the source fill in the rest. It works on a copy, so that one
// that is left behind writes where nobody reads.
func (r *resolver) complete(ctx context.Context, id *Identity, won *win) {
	defer won.release()
	if won.answer.More == nil || r.Minimal {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, moreTime)
	defer cancel()
	type outcome struct {
		rest Identity
		err  error
	}
	results := make(chan outcome, 1)
	rest := *id
	doing := "the rest from " + r.name
	r.tasks.Go(doing, func() {
		out := outcome{rest: rest}
		out.err = safely.Do(doing, func() error { return won.answer.More(ctx, &out.rest) })
		results <- out
	}, func(err error) { results <- outcome{rest, err} })
	done := Event{Kind: EventCompleted, Path: pathInfo(won.path)}
	select {
	case out := <-results:
		done.Err = id.merge(out.rest, out.err)
	case <-ctx.Done():
		patience := time.NewTimer(grace)
		defer patience.Stop()
		select {
		case out := <-results:
			done.Err = id.merge(out.rest, out.err)
		case <-patience.C:
			done.Err = errLeft
		}
	}
	r.log.add(done)
}

// merge takes over what a source may fill in.
func (id *Identity) merge(rest Identity, err error) error {
	id.Region, id.AvailabilityZone = rest.Region, rest.AvailabilityZone
	id.PublicIPv4, id.PrivateNetworks = rest.PublicIPv4, rest.PrivateNetworks
	return err
}

// identity is what is certain of a won race.
func (w *win) identity(source string) *Identity {
	_, domain, _ := strings.Cut(w.answer.Hostname, ".")
	return &Identity{
		Hostname:   w.answer.Hostname,
		Domain:     domain,
		InstanceID: w.answer.InstanceID,
		IDProvenBy: w.proof,
		Source:     source,
		Proven:     w.proven,
		Path:       pathInfo(w.path),
	}
}

func (r *resolver) timeout(ctx context.Context, paths []PathError, undo error) *TimeoutError {
	for _, err := range append(r.faults, r.log.panics()...) {
		paths = append(paths, PathError{Err: err})
	}
	return &TimeoutError{
		Source:  r.name,
		Elapsed: time.Since(r.log.start),
		Paths:   paths,
		Ended:   ctx.Err(),
		Cause:   context.Cause(ctx),
		Undo:    undo,
	}
}

// guarded is a source that does not panic.
type guarded struct{ Source }

func (g guarded) Name() (name string, err error) {
	name = "source"
	err = safely.Do("Name", func() error { name = g.Source.Name(); return nil })
	return name, err
}

func (g guarded) Present(f dmi.Facts) (p Presence, err error) {
	err = safely.Do("Present", func() error { p = g.Source.Present(f); return nil })
	return p, err
}

func (g guarded) InstanceID(f dmi.Facts) (id string, err error) {
	err = safely.Do("InstanceID", func() error { id = g.Source.InstanceID(f); return nil })
	return id, err
}

func (g guarded) Addresses() (addrs []netip.Addr, err error) {
	err = safely.Do("Addresses", func() (err error) { addrs, err = g.Source.Addresses(); return err })
	return addrs, err
}

func (g guarded) Fetch(ctx context.Context, via *earlynet.Path) (a Answer, err error) {
	err = safely.Do("Fetch", func() (err error) { a, err = g.Source.Fetch(ctx, via); return err })
	return a, err
}

// errLeft is the outcome of a call that never came back by itself.
var errLeft = errors.New("it did not return")
