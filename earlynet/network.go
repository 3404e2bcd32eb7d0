//go:build linux

package earlynet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/mdlayher/netlink"

	"github.com/nametag-boot/nametag/internal/joined"
	"github.com/nametag-boot/nametag/internal/safely"
)

const (
	// undoTime bounds how long Close waits for the kernel's answer to one request, whatever became of the context. The kernel
	// answers when it has done what it was asked, which takes a starved machine seconds: a link that stays up for that
	// reason is one that udev cannot rename any more, so that nobody configures it.
	undoTime = 20 * time.Second
	// lateTime is the same once there was no answer in that time. What the kernel was sent it does all the same.
	lateTime = time.Second
	// closeTime bounds how long Close waits for sockets to be closed.
	closeTime = 250 * time.Millisecond
)

// Who is at work, below who has started him and waits for his end:
//
//	ending                     waits for all the others, then closes Paths
//	├─ watch                   reads what the kernel tells: the views of links, the addresses
//	├─ a link's run            follows its view, and has what was done to the link itself
//	│  ├─ linkLocal            one address after the other
//	│  │  └─ linkLocalOnce     an address and its path: an attempt. One that had a conflict ends, beside the next
//	│  │     └─ detectConflict ARP: whether the address is another host's; one at a time
//	│  ├─ dhcp                 a lease and its path: an attempt
//	│  │  └─ receive           passes on the replies
//	│  └─ ipv6                 the path from the kernel's own address: an attempt
//	├─ next hop                who it is where several say so: an attempt without a path
//	└─ offering a path         until somebody takes it
//
// A link's goroutines learn of the rest by its view, and by channels that are closed: of a context, of a
// view that has changed, of an address that was lost. When all have ended, Close takes back what they leave.

// A Network is a set of links that are brought up, and what was done to them.
// Its methods are safe for concurrent use.
type Network struct {
	cfg       Config
	proc      string // where procfs is
	udev      string // udev's folder; empty: there is no udev for our links
	selection selection
	methods   []Method

	ctx    context.Context
	cancel context.CancelFunc
	rtnl   rtnl          // requests
	events *netlink.Conn // notifications; nil where they cannot be had

	paths   chan *Path
	changes chan struct{}
	tasks   safely.Group  // everything but what watches for the end
	closers safely.Group  // packet sockets being closed, which takes the kernel a while
	ended   chan struct{} // closed when the tasks have ended and paths is closed

	host *Path // of Host; else nil

	lacks lacking // Open's, then watch's

	// Close's alone, when all the tasks have ended.
	undoing bool // it takes back what is left

	// observe serialises Observer. Things happen in many goroutines, and what happened must have been told when Close returns:
	// a goroutine that tells would have to be waited for by each of them.
	observe sync.Mutex

	// mu guards what the kernel has told, and what was made of it. Watch writes the first and the links' goroutines the
	// second; they and the callers of the methods read both. No goroutine could have it alone and answer the others: watch
	// sleeps in a read of its socket. The lock is held for a look or a note, never while the kernel's answer is awaited,
	// the observer told, or another lock taken.
	mu        sync.Mutex
	links     map[int]*view        // all that there are
	addrs     map[addrKey]uint32   // to flags
	uppers    map[int]map[int]bool // by a link's index, the links that stand on it
	nicsByAge []*nic               // in use, in the order in which they were found, with those that are gone
	gateways  map[netip.Addr]struct{}
	answers   map[uint32]chan struct{} // that catchUp waits for
	attempts  []*attempt               // that stand, in the order of their making
	status    []failure                // the last per NIC and method

	closing  sync.Once
	closeErr error
}

// A failure is an error of a NIC, or of the network as a whole where that is nil. The NIC's name is looked up by whoever reads
// it: a link may be renamed at any time.
type failure struct {
	nic *nic
	err *Error
}

type addrKey struct {
	index  int
	prefix netip.Prefix
}

// Open starts to bring up links, and returns at once: paths arrive later. It
// fails with [ErrPermission] where the process may not do so.
//
// When ctx ends the work stops and [Network.Paths] is closed, but what was done
// stays until [Network.Close], which must be called in any case.
func Open(ctx context.Context, cfg Config) (*Network, error) {
	n, err := newNetwork(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := n.rtnl.permitted(); err != nil {
		n.cancel()
		_ = n.rtnl.close()
		return nil, &Error{Op: "configure links", Err: err}
	}
	// Subscribe first, then dump: nothing falls in between.
	if err := n.subscribe(); err != nil {
		n.cancel()
		_ = n.rtnl.close()
		return nil, &Error{Op: "watch links", Err: err}
	}
	if err = n.refresh(); err == nil {
		n.missing()
	}
	n.tasks.Go("watching links", n.watch, n.died)
	n.finish()
	if err != nil {
		return nil, joined.Errors(&Error{Op: "list links", Err: err}, n.Close())
	}
	return n, nil
}

// Host returns a network that somebody else configured: one path over it, with
// an ordinary dialer, and notice of its changes where the kernel gives that.
// It changes nothing and needs no privilege. Of cfg only Observer is used.
func Host(ctx context.Context, cfg Config) (*Network, error) {
	n, err := bareNetwork(ctx, Config{Observer: cfg.Observer})
	if err != nil {
		return nil, err
	}
	n.host = &Path{Method: HostNetwork}
	n.host.init(context.Background(), hostDialer())
	// Without notifications there is still the path: a service of systemd's may be forbidden netlink (RestrictAddressFamilies=).
	if n.rtnl, err = dialRTNL(); err == nil {
		err = n.subscribe()
	}
	if err == nil {
		err = n.refreshAddresses()
	}
	if err == nil {
		n.tasks.Go("watching links", n.watch, n.died)
	}
	n.offer(n.host)
	n.event(Event{Method: HostNetwork, Kind: PathReady})
	n.finish()
	return n, nil
}

// newNetwork is a network that can ask the kernel.
func newNetwork(ctx context.Context, cfg Config) (*Network, error) {
	n, err := bareNetwork(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if n.rtnl, err = dialRTNL(); err != nil {
		n.cancel()
		return nil, &Error{Op: "open a netlink socket", Err: permission(err)}
	}
	return n, nil
}

// bareNetwork is one that cannot yet.
func bareNetwork(ctx context.Context, cfg Config) (*Network, error) {
	sel, err := parseSelection(cfg.NICs)
	if err = cmp.Or(err, cfg.check()); err != nil {
		return nil, &Error{Op: "configuration", Err: err}
	}
	n := &Network{
		cfg: cfg, proc: cmp.Or(cfg.Proc, "/proc"), selection: sel, methods: slices.Clone(cfg.Methods),
		paths: make(chan *Path), changes: make(chan struct{}, 1), ended: make(chan struct{}),
		links: make(map[int]*view), addrs: make(map[addrKey]uint32), uppers: make(map[int]map[int]bool),
		gateways: make(map[netip.Addr]struct{}), answers: make(map[uint32]chan struct{}),
	}
	if len(n.methods) == 0 {
		n.methods = []Method{LinkLocal, DHCP}
	}
	if !cfg.Alone {
		n.udev = cmp.Or(cfg.udev, udevDir(n.proc))
	}
	n.ctx, n.cancel = context.WithCancel(ctx)
	return n, nil
}

// check refuses what would be waited for in vain, for ever.
func (cfg Config) check() error {
	for _, m := range cfg.Methods {
		if m < LinkLocal || m > IPv6 {
			return fmt.Errorf("method %d (%v) brings no link up", m, m)
		}
	}
	for i, d := range cfg.Destinations {
		if !d.IsValid() {
			return fmt.Errorf("destination %d of %d is no address", i+1, len(cfg.Destinations))
		}
		if slices.Contains(cfg.Methods, IPv6) && d.Is6() && !d.Is4In6() && !d.IsLinkLocalUnicast() {
			return fmt.Errorf("destination %v cannot be reached by %v, which leads to link-local addresses (fe80::/10) alone", d, IPv6)
		}
	}
	return nil
}

// finish arranges for the end of the tasks when the context ends. It must be
// called last: from then on only tasks start tasks.
func (n *Network) finish() {
	safely.Go("ending", func() {
		defer close(n.ended)
		<-n.ctx.Done()
		n.unsubscribe() // wakes watch
		n.tasks.Wait()
		close(n.paths)
	}, n.died)
}

// Paths delivers each new path once. It is closed when the context ends or the
// network is closed.
func (n *Network) Paths() <-chan *Path { return n.paths }

// offer delivers a path, unless it ends first.
func (n *Network) offer(p *Path) {
	n.tasks.Go("offering a path", func() {
		select {
		case n.paths <- p:
		case <-p.Done():
		case <-n.ctx.Done():
		}
	}, n.died)
}

// Changes delivers a value after a link, an address or a carrier has changed;
// several changes may be told as one. It is never closed.
func (n *Network) Changes() <-chan struct{} { return n.changes }

func (n *Network) changed() {
	select {
	case n.changes <- struct{}{}:
	default:
	}
}

// event tells the observer.
func (n *Network) event(e Event) {
	if n.cfg.Observer == nil {
		return
	}
	if err, ok := errors.AsType[*Error](e.Err); ok && e.Try == 0 {
		e.Try = err.Tries
	}
	e.Time = time.Now()
	n.observe.Lock()
	defer n.observe.Unlock()
	err := safely.Do("the observer", func() error { n.cfg.Observer(e); return nil })
	if err != nil {
		n.failed(nil, &Error{Op: "tell the observer", Err: err})
	}
}

// died notes the panic of a goroutine, which has ended by it.
func (n *Network) died(err error) {
	n.failed(nil, &Error{Op: "go on", Err: err})
}

// failed notes the last error of a NIC and method, for Status.
func (n *Network) failed(c *nic, e *Error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.forget(func(f failure) bool { return f.nic == c && f.err.Method == e.Method })
	n.status = append(n.status, failure{c, e})
}

// succeeded forgets the last error of a NIC and method.
func (n *Network) succeeded(c *nic, m Method) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.forget(func(f failure) bool { return f.nic == c && f.err.Method == m })
}

// left forgets all errors of a NIC.
func (n *Network) left(c *nic) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.forget(func(f failure) bool { return f.nic == c })
}

func (n *Network) forget(such func(failure) bool) { n.status = slices.DeleteFunc(n.status, such) }

// Status returns why there are not more paths: the last error of each NIC and
// method that has none; and of paths that were dialled and never connected what
// explains it, as far as this machine can tell (no answer to ARP, packet filters).
// All of them are *[Error].
func (n *Network) Status() []error {
	silent := n.explain()
	n.mu.Lock()
	defer n.mu.Unlock()
	var errs []error
	if err := n.noNIC(); err != nil {
		errs = append(errs, err)
	}
	for _, f := range n.status {
		e := *f.err
		if f.nic != nil {
			e.Interface = f.nic.view.name
		}
		errs = append(errs, &e)
	}
	for _, e := range silent {
		errs = append(errs, e)
	}
	return errs
}

// Keep lets what p stands on outlive the network: the address and its link,
// and for a DHCP path all the routes of its lease. It must be called before
// [Network.Close]. Of a path of [Host] or [NewPath] there is nothing to keep.
func (n *Network) Keep(p *Path) error {
	if p.attempt == nil {
		return nil
	}
	if p.attempt.nic.net != n {
		return errors.New("earlynet: path of another network")
	}
	return p.attempt.keep()
}

// Close closes every connection over the network's paths and takes back what
// was done, the last thing first. It waits 20 seconds at most for the kernel's
// answer to one request, and one for each further where there was none, and does
// not depend on the context that Open was given. The error joins one
// [*UndoError] for each thing that is left. Further calls return the same.
//
// What was done is taken back within a millisecond or two. That Close takes 8
// to 16 is the kernel's wait for a grace period when a packet socket is closed:
// use the answer first. On a machine so busy that this takes longer than a
// quarter of a second, they go on being closed when Close has returned.
func (n *Network) Close() error {
	n.closing.Do(func() { n.closeErr = n.close() })
	return n.closeErr
}

func (n *Network) close() error {
	n.cancel()
	closed := &Error{Op: "closed"}

	for _, a := range n.standing() {
		a.end(closed)
	}
	if n.host != nil {
		n.host.end(closed)
	}
	n.rtnl.bound(undoTime)
	<-n.ended

	// No other goroutine works on these now. Some attempts may have been made
	// since.
	n.undoing = true
	var errs []error
	for _, a := range slices.Backward(n.attempts) {
		a.end(closed)
		errs = append(errs, a.undo()...)
	}
	for _, c := range slices.Backward(n.nicsByAge) {
		errs = append(errs, c.undo()...)
	}
	if err := n.rtnl.close(); err != nil {
		errs = append(errs, err)
	}
	n.awaitClosers()
	for _, c := range n.nicsByAge {
		c.disclaim() // last: an open socket of ours would be somebody else's for the next owner
	}
	return joined.Errors(errs...)
}

// tooSlow notes that the kernel has not answered in undoTime, where that is why something could not be taken back.
func (n *Network) tooSlow(err error) {
	if n.undoing && errors.Is(err, os.ErrDeadlineExceeded) {
		n.rtnl.bound(lateTime)
	}
}

// awaitClosers waits for the end of the packet sockets, within a bound: it is the kernel's work, which is as slow as the
// machine is busy, and nothing of it can be seen on the network.
func (n *Network) awaitClosers() {
	done := make(chan struct{})
	safely.Go("closing sockets", func() { n.closers.Wait(); close(done) }, n.died)
	patience := time.NewTimer(closeTime)
	defer patience.Stop()
	select {
	case <-done:
	case <-patience.C:
	}
}
