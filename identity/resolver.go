package identity

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity/dmi"
	"github.com/nametag-boot/nametag/procfs"
)

// A Resolver says how to go about it. With a Source and nothing else it is what
// [Resolve] uses: a link of its own on every physical Ethernet card, by every
// method, undone at the end. It is not changed by its method, and may be used by
// several goroutines at once.
type Resolver struct {
	// Source is the cloud's metadata service.
	Source Source

	// Link is how links are brought up. Where Link.Destinations is empty it is
	// filled from the source; a Link.Observer still hears its events.
	Link earlynet.Config
	// Host asks over the network that the system has, and touches no link: for
	// use inside an OS. It needs no privilege, and waits for that network if need
	// be. Of Link, only the observer counts then.
	Host bool
	// Paths are asked over instead, as they come in, if it is not nil: those of a
	// network that the caller has opened, or that a test has made (earlynet.NewPath,
	// identitytest.Paths). Each goes to one call of Resolve, stays the caller's, and
	// a connection over it is the source's to close. Nothing is opened beside them,
	// so that it works in the virtual time of testing/synctest. (Over the host's own
	// network that stands still: a goroutine waits for what the kernel tells.) Of
	// Link nothing counts then. Closed, or with its last path ended, the wait goes
	// on until ctx ends.
	Paths <-chan *earlynet.Path
	// Keep leaves the link of the path that won as it is, with its address and
	// routes, for the OS to go on with. An event of the kind [EventNotKept] says
	// where it could not. With Host and Paths there is nothing to keep.
	Keep bool
	// Minimal leaves out what does not gate the answer, such as region and
	// networks, where that costs a request.
	Minimal bool

	// Facts are used instead of those of /sys/class/dmi/id.
	Facts *dmi.Facts
	// ExpectID is this machine's instance id, if the caller knows it: an answer
	// with another one does not count.
	ExpectID string
	// Unproven takes an answer although nothing proves that its instance id is
	// this machine's: neither the firmware's serial number nor ExpectID. An event
	// of the kind [EventUnproven] and Identity.IDProvenBy say so. Where the id
	// can be checked, it is.
	Unproven bool

	// OnName is called once with what is proven, before the link is undone and
	// before the rest of the identity is in.
	OnName func(Identity)
	// OnEvent is called with each event, in order.
	//
	// Of the two and Link.Observer one is called at a time, from goroutines of
	// Resolve and not after it has returned. They must not block: the work waits
	// for them. One that panics is not called again, and an event of the kind
	// [EventObserver] says so, as does the error where there is no name.
	OnEvent func(Event)

	open    func(context.Context, earlynet.Config) (network, error) // nil but in tests
	backoff backoff                                                 // of each path; the zero value but in simulations
}

// FromPolicy is the resolver for what the kernel argument asks, over these links,
// by these methods, with this proof. Its Source is to be set; the policy's time is
// the caller's, who knows when it began.
func FromPolicy(p procfs.Policy) (Resolver, error) {
	r := Resolver{Link: earlynet.Config{NICs: p.NICs}, Keep: p.Keep == procfs.KeepNetwork, Unproven: p.ID == procfs.IDUnproven}
	for _, name := range p.Via {
		m, err := earlynet.ParseMethod(name)
		if err != nil {
			return Resolver{}, err
		}
		r.Link.Methods = append(r.Link.Methods, m)
	}
	return r, nil
}

// Resolve asks src as the zero [Resolver] does.
func Resolve(ctx context.Context, src Source) (*Identity, error) {
	r := Resolver{Source: src}
	return r.Resolve(ctx)
}

// Resolve blocks until the source has given a valid name, ctx ends, or it is
// certain that there will be none.
//
// The error is a [*ConfigError] when the resolver asks for what cannot be, a
// [*NotPresentError] when the firmware says that the machine is not one of the
// source's, and an [*UnprovenError] when nothing could prove that an answer is
// meant for it; nothing was sent then. It is a [*TimeoutError] when ctx ended,
// for whatever reason. Another one says that the network cannot be opened at
// all, for want of a privilege for instance; where it cannot for want of memory
// or descriptors, Resolve tries again every second.
//
// When Resolve returns, which it does within milliseconds of the end of ctx,
// its goroutines have ended (but for the kernel's share of [earlynet.Network.Close],
// on a machine that is very busy), its connections are closed and its addresses,
// routes and link changes are undone, after a failure too. (An attempt that
// ignores both the end of its context and the closing of its connections is left
// behind, and an event says so.) A name that is proven is returned even if not
// everything could be undone: events of the kind [EventUndoFailed] say what.
// Resolve may be called from several goroutines.
//
// On a system that is not Linux it takes Resolver.Host or Resolver.Paths; without
// them the error is a [*ConfigError] that is [errors.ErrUnsupported].
func (r *Resolver) Resolve(ctx context.Context) (*Identity, error) {
	run := &resolver{
		Resolver: *r,
		src:      guarded{r.Source},
		log:      &timeline{start: time.Now(), observer: r.OnEvent},
	}
	switch {
	case run.open != nil:
	case r.Paths != nil:
		run.open = func(context.Context, earlynet.Config) (network, error) { return handed(r.Paths), nil }
	case r.Host:
		run.open = func(ctx context.Context, cfg earlynet.Config) (network, error) {
			return earlynet.Host(ctx, earlynet.Config{Destinations: cfg.Destinations, Observer: cfg.Observer})
		}
	case runtime.GOOS != "linux": // told before what else is missing there, such as a proof
		_, err := earlynet.Open(ctx, r.Link)
		return nil, &ConfigError{Field: "Link", Err: err}
	default:
		run.open = func(ctx context.Context, cfg earlynet.Config) (network, error) { return earlynet.Open(ctx, cfg) }
	}
	if err := run.check(); err != nil {
		return nil, err
	}
	id, err := run.resolve(ctx)
	events := run.log.close()
	if id != nil {
		id.Timeline = events
	}
	return id, err
}

// check refuses at once what would fail for ever.
func (r *resolver) check() error {
	if r.Source == nil {
		return &ConfigError{Field: "Source", Err: errNoSource}
	}
	if r.Host && r.Paths != nil {
		return &ConfigError{Field: "Paths", Err: errTwoNetworks}
	}
	for _, m := range r.Link.Methods {
		if _, err := earlynet.ParseMethod(m.String()); err != nil && !r.Host && r.Paths == nil {
			return &ConfigError{Field: "Link.Methods", Err: fmt.Errorf("there is no method %d", m)}
		}
	}
	addrs, err := r.src.Addresses()
	if err != nil {
		return &ConfigError{Field: "Source", Err: err}
	}
	if len(r.Link.Destinations) == 0 {
		r.Link.Destinations = addrs
	}
	return nil
}

// tellName calls OnName.
func (r *resolver) tellName(id Identity) {
	if r.OnName == nil {
		return
	}
	r.log.call("OnName", func() { r.OnName(id) })
}

// A network is what Resolve needs of an [earlynet.Network].
type network interface {
	Paths() <-chan *earlynet.Path
	Changes() <-chan struct{}
	Status() []error
	Keep(*earlynet.Path) error
	Close() error
}
