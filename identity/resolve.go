package identity

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity/dmi"
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

// Resolve blocks until src has given a valid name, ctx ends, or it is certain
// that there will be none.
//
// The error is a [*NotPresentError] when the firmware says that the machine is
// not one of src's; nothing was sent then. It is a [*TimeoutError] when ctx
// ended, for whatever reason. Another one says that the network cannot be
// opened at all, for want of a privilege for instance; where it cannot for want
// of memory or descriptors, Resolve tries again every second.
//
// When Resolve returns, which it does within milliseconds of the end of ctx,
// its goroutines have ended (but for the kernel's share of [earlynet.Network.Close],
// on a machine that is very busy), its connections are closed and its addresses,
// routes and link changes are undone, after a failure too. (A source whose
// attempts heed neither the context nor the closing of their connections is not
// waited for; an event says so.) A name that is proven is returned even if not
// everything could be undone: events of the kind [UndoFailed] say what.
// Resolve may be called from several goroutines.
func Resolve(ctx context.Context, src Source, opts ...Option) (*Identity, error) {
	var cfg config
	OverLinks(earlynet.Config{})(&cfg)
	for _, opt := range opts {
		opt(&cfg)
	}
	r := &resolver{
		config: cfg,
		src:    guarded{src},
		log:    &timeline{start: time.Now(), observer: cfg.observer},
	}
	id, err := r.resolve(ctx)
	events := r.log.close()
	if id != nil {
		id.Timeline = events
	}
	return id, err
}

// A resolver is one call of Resolve.
type resolver struct {
	config
	src      guarded
	name     string // src's
	facts    dmi.Facts
	presence Presence
	log      *timeline
	end      context.CancelFunc // of what the network runs under
	tasks    sync.WaitGroup     // every goroutine that was started
}

func (r *resolver) resolve(ctx context.Context) (*Identity, error) {
	r.name = r.src.Name()
	if r.look(); r.presence == No {
		return nil, &NotPresentError{Source: r.name, Facts: r.facts}
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
	if won == nil {
		paths := race.lastErrors(net.Status())
		undo := r.closeNetwork(net)
		return nil, r.timeout(ctx, paths, undo)
	}
	id := won.identity(r.name)
	r.complete(ctx, id, won)
	if r.keep {
		if err := net.Keep(won.path); err != nil {
			r.log.add(Event{Kind: UndoFailed, Path: won.path.String(), Detail: "the link could not be kept", Err: err})
		}
	}
	_ = r.closeNetwork(net) // it is in the timeline; the name is good all the same
	return id, nil
}

// look reads the facts and says what follows from them.
func (r *resolver) look() {
	var err error
	if r.config.facts != nil {
		r.facts = *r.config.facts
	} else {
		r.facts, err = dmi.Read("")
	}
	r.presence = r.src.Present(r.facts)
	detail := fmt.Sprintf("on %s: %s (DMI vendor %q)", r.name, r.presence, shorten(r.facts.Vendor, 64))
	if r.presence == Yes && r.facts.Serial == "" {
		detail += "; no serial can be read, so the instance id is not cross-checked"
	}
	r.log.add(Event{Kind: Platform, Detail: detail, Err: err})
}

// openNetwork opens it such that ctx ends the opening, but not the network.
// That stands until it is closed: only then are its last words in order, and
// the winner's link can be kept though ctx has ended meanwhile.
func (r *resolver) openNetwork(ctx context.Context) (network, error) {
	cfg := r.network
	if len(cfg.Destinations) == 0 {
		cfg.Destinations = r.src.Addresses()
	}
	theirs := cfg.Observer
	cfg.Observer = func(e earlynet.Event) {
		r.log.link(e)
		if theirs != nil {
			theirs(e)
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
				r.log.add(Event{Kind: Failed, Detail: "the network cannot be opened yet", Err: err})
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
	for _, errno := range []unix.Errno{unix.ENOMEM, unix.ENOBUFS, unix.EMFILE, unix.ENFILE, unix.EAGAIN, unix.EBUSY} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// closeNetwork undoes the network and waits for every goroutine. The closing
// of its connections is what releases an attempt that does not heed its context.
func (r *resolver) closeNetwork(net network) error {
	defer r.end()
	err := net.Close()
	if err != nil {
		r.log.add(Event{Kind: UndoFailed, Err: err})
	}
	done := make(chan struct{})
	go func() { r.tasks.Wait(); close(done) }()
	patience := time.NewTimer(grace)
	defer patience.Stop()
	select {
	case <-done:
	case <-patience.C:
		r.log.add(Event{Kind: LeftBehind, Detail: "an attempt of " + r.name + " heeds neither its context nor its connections"})
	}
	return err
}

// complete lets the source fill in the rest. It works on a copy, so that one
// that is left behind writes where nobody reads.
func (r *resolver) complete(ctx context.Context, id *Identity, won *win) {
	defer won.release()
	if won.answer.More == nil || r.nameOnly {
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
	r.tasks.Go(func() {
		out := outcome{rest: rest, err: errLeft}
		defer func() { results <- out }()
		out.err = protect(func() error { return won.answer.More(ctx, &out.rest) })
	})
	done := Event{Kind: Completed, Path: won.path.String()}
	select {
	case out := <-results:
		done.Err = id.take(out.rest, out.err)
	case <-ctx.Done():
		patience := time.NewTimer(grace)
		defer patience.Stop()
		select {
		case out := <-results:
			done.Err = id.take(out.rest, out.err)
		case <-patience.C:
			done.Err = errLeft
		}
	}
	r.log.add(done)
}

// take takes over what a source may fill in.
func (id *Identity) take(rest Identity, err error) error {
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
		Source:     source,
		Path: PathInfo{
			Interface: w.path.Interface,
			Method:    w.path.Method.String(),
			Address:   w.path.Source,
		},
	}
}

func (r *resolver) timeout(ctx context.Context, paths []PathError, undo error) *TimeoutError {
	return &TimeoutError{
		Source:  r.name,
		Elapsed: time.Since(r.log.start),
		Paths:   paths,
		Cause:   context.Cause(ctx),
		Undo:    undo,
	}
}

// verify is rule one: only a valid name of this very machine.
func (r *resolver) verify(a Answer) error {
	if err := ValidateHostname(a.Hostname); err != nil {
		return err
	}
	if v, ok := r.src.Source.(Verifier); ok {
		return protect(func() error { return v.Verify(r.facts, a) })
	}
	if r.presence == Yes && r.facts.Serial != "" && a.InstanceID != r.facts.Serial {
		return &MismatchError{InstanceID: shorten(a.InstanceID, 64), Serial: r.facts.Serial}
	}
	return nil
}

// guarded is a source that does not panic.
type guarded struct{ Source }

func (g guarded) Name() (name string) {
	name = "source"
	_ = protect(func() error { name = g.Source.Name(); return nil })
	return name
}

func (g guarded) Present(f dmi.Facts) (p Presence) {
	_ = protect(func() error { p = g.Source.Present(f); return nil })
	return p
}

func (g guarded) Addresses() (addrs []netip.Addr) {
	_ = protect(func() error { addrs = g.Source.Addresses(); return nil })
	return addrs
}

func (g guarded) Fetch(ctx context.Context, via *earlynet.Path) (a Answer, err error) {
	err = protect(func() (err error) { a, err = g.Source.Fetch(ctx, via); return err })
	return a, err
}

// protect turns a panic in fn into an error: the process may be PID 1.
func protect(fn func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %s", shorten(fmt.Sprint(v), 200))
			if cause, ok := v.(error); ok {
				err = fmt.Errorf("panic: %w", cause)
			}
		}
	}()
	return fn()
}

// errLeft is the outcome of a call that never came back by itself.
var errLeft = errors.New("it did not return")
