//go:build linux

package earlynet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/joined"
	"github.com/nametag-boot/nametag/internal/safely"
)

// A nic is a link in use. Its goroutine, run, follows the state that the
// kernel tells: sets the link up, starts the methods when it carries frames,
// and stops them when it does not.
type nic struct {
	net    *Network
	index  int
	view   *view
	master int          // whose port it was when it was found
	uppers map[int]bool // what stood on it then

	kept   atomic.Bool // a path over it is to outlive the network
	missed atomic.Bool // notifications were lost since it is used

	hops map[netip.Addr]*hop // guarded by the network's mu

	// Owned by the goroutine run, and by undo after that has ended:
	claimed  net.Listener // what makes the link ours; nil where it is not, or cannot be
	prepared bool
	before   before
	ledger   ledger
	shielded bool // from router advertisements
	managed  bool // left to a program that hears routers itself
	fallen   int  // falls that were acted upon
	udev     waitForUdev
	known    map[netip.Addr]bool // its neighbours before us
}

func newNIC(n *Network, v *view) *nic {
	return &nic{net: n, index: v.index, view: v, master: v.master}
}

// state returns the link as it is, and a channel that is closed when that
// may have changed.
func (c *nic) state() (l link, present bool, session int, changed <-chan struct{}) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	return c.view.link, !c.view.gone, c.view.session, c.view.changed
}

// fell returns how often the link was set down, and whether it is up.
func (c *nic) fell() (times int, up bool) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	return c.view.falls, c.view.up()
}

func (c *nic) current() link {
	l, _, _, _ := c.state()
	return l
}

func (c *nic) name() string { return c.current().name }

func (c *nic) event(m Method, k EventKind, detail string, err error) {
	c.tell(Event{Method: m, Kind: k, Detail: detail, Err: err})
}

// tell tells the observer of what concerns the NIC.
func (c *nic) tell(e Event) {
	e.Interface = c.name()
	c.net.event(e)
}

// fail notes an error for Status and tells it.
func (c *nic) fail(k EventKind, e *Error) {
	c.failed(Event{Kind: k}, e)
}

// failed is fail with more to tell.
func (c *nic) failed(told Event, e *Error) {
	e.Interface = c.name()
	c.net.failed(c, e)
	told.Method, told.Err = e.Method, e
	c.tell(told)
}

// refuse is fail for what a method could not do.
func (c *nic) refuse(m Method, err error) {
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{Op: "make a path", Method: m, Err: err}
	}
	c.fail(PathFailed, e)
}

// run follows the link until it is gone or the network ends.
func (c *nic) run() {
	c.goOn(c.net.ctx, 0, c.follow)
}

// goOn calls fn, and again where it panics, after a while: whatever made it, one
// packet or one odd answer of the kernel is not to end a path for good.
func (c *nic) goOn(ctx context.Context, m Method, fn func()) {
	for ctx.Err() == nil {
		err := safely.Do(m.String()+" on "+c.name(), func() error { fn(); return nil })
		if err == nil {
			return
		}
		c.fail(PathFailed, &Error{Op: "go on", Method: m, Err: err})
		pause(ctx, afterPanic)
	}
}

// follow does what run does, as long as nothing panics.
func (c *nic) follow() {
	var s *session
	defer func() { s.stop() }()

	if c.claimed == nil && !c.claim(c.net.ctx) {
		return
	}
	// What the owner before us has done is to be told before we look.
	c.net.catchUp(c.net.ctx)
	if !c.prepared {
		c.fallen, _ = c.fell()
		c.missed.Store(false)
	}
	c.prepare()
	var again <-chan time.Time // when to try once more to set the link up
	patience, rest := firstRaise, firstRest
	for c.net.ctx.Err() == nil {
		l, present, session, changed := c.state()
		if times, up := c.fell(); times != c.fallen {
			c.fallen = times
			if wait := c.setDown(up, rest); wait != nil {
				again = wait
				rest = min(2*rest, lastRest)
			}
		}
		switch {
		case !present:
			s.stop()
			c.event(0, NICGone, "", nil)
			c.leave()
			return
		case s != nil && (!l.carries() || session != s.number):
			s.stop()
			s = nil
			c.event(0, CarrierLost, "", nil)
			if l.up() { // else it is known why
				c.net.failed(c, &Error{Op: "carrier lost"})
			}
			continue // the state may be another by now
		case !l.up() && !c.raised() && again == nil:
			if again = c.awaitUdev(); again == nil && !c.raise() {
				// Some drivers are not ready when their NIC shows, and nothing tells when they are.
				again = time.After(patience)
				patience = min(2*patience, lastRaise)
			}
		case s == nil && l.carries():
			c.net.succeeded(c, 0)
			c.event(0, Carrier, "", nil)
			s = c.start(session)
		}
		select {
		case <-changed:
		case <-again:
			again = nil
		case <-c.net.ctx.Done():
		}
	}
}

// leave forgets a link that is gone: what was done to it went with it. It may come back, from another network namespace,
// with the index that it had, and is to find nobody there who owns it.
func (c *nic) leave() {
	c.ledger = nil
	c.net.left(c)
	c.disclaim()
}

// How long to wait before a link is set up that could not be: the first time, and
// at most.
const (
	firstRaise = 50 * time.Millisecond
	lastRaise  = 5 * time.Second
)

// And how long a link is left alone that somebody else has set down.
const (
	firstRest = time.Second
	lastRest  = time.Minute
)

// linkUp is the change by which a link was set up.
const linkUp = "link up"

// raised reports whether the link was set up by us, and not set down since.
func (c *nic) raised() bool { return c.ledger.has(linkUp) }

// setDown notes that somebody else has set the link down. Whoever sets it up
// again decides what becomes of it: where that is not us, it is theirs. It returns
// when we do, if nobody else has.
func (c *nic) setDown(up bool, rest time.Duration) <-chan time.Time {
	c.ledger.drop(linkUp)
	if up {
		c.event(0, LinkSetDown, "and up again, which it will stay", nil)
		return nil
	}
	c.event(0, LinkSetDown, fmt.Sprintf("it is set up again in %v unless somebody does", rest), nil)
	c.net.failed(c, &Error{Op: "set down by somebody else"})
	return time.After(rest)
}

// afterPanic is how long what has panicked rests.
const afterPanic = 500 * time.Millisecond

// A session is the methods at work while a link carries frames.
type session struct {
	number  int // the view's when it began
	cancel  context.CancelFunc
	methods safely.Group
}

func (c *nic) start(number int) *session {
	ctx, cancel := context.WithCancel(c.net.ctx)
	s := &session{number: number, cancel: cancel}
	for _, m := range c.net.methods {
		s.methods.Go(m.String(), func() { c.try(ctx, m) }, c.net.died)
	}
	return s
}

// stop ends the methods and waits for them. A nil session has none.
func (s *session) stop() {
	if s != nil {
		s.cancel()
		s.methods.Wait()
	}
}

// raise sets the link up. It reports false where the kernel refused.
func (c *nic) raise() bool {
	c.shield()
	if err := c.net.rtnl.setUp(c.index, true); err != nil {
		if !gone(err) {
			c.fail(PathFailed, &Error{Op: "set the link up", Err: permission(err)})
		}
		return false
	}
	c.ledger.add(linkUp, c.lower)
	c.event(0, LinkUp, "", nil)
	c.net.failed(c, &Error{Op: "no carrier"})
	return true
}

// lower sets the link down again, unless somebody else uses it now.
func (c *nic) lower() error {
	if c.kept.Load() {
		c.event(0, LinkLeftUp, "it is kept", nil)
		return errLeft
	}
	why, err := c.foreigner()
	if err != nil && !c.net.cfg.Alone { // else there is hardly somebody
		return err
	}
	if why != "" {
		c.event(0, LinkLeftUp, why, nil)
		if err := c.forgetNeighbours(); err != nil {
			return err
		}
		return errLeft
	}
	if err := c.net.rtnl.setUp(c.index, false); err != nil || c.net.cfg.Alone {
		return err
	}
	// Whoever has begun to use it between our look and now found it up, and will not set it up.
	if why := c.stranger(); why != "" {
		c.event(0, LinkLeftUp, why, nil)
		return joined.Errors(c.net.rtnl.setUp(c.index, true), errLeft)
	}
	if inUdev(c.net.udev, c.index) {
		c.tellUdev()
	}
	return nil
}

// foreigner says what somebody else has put on the link, or the link into, or why
// that may be so.
func (c *nic) foreigner() (string, error) {
	if !c.net.cfg.Alone {
		if c.missed.Load() {
			return "the kernel's notifications were lost: somebody else may have set it up", nil
		}
		if why := c.stranger(); why != "" {
			return why, nil
		}
	}
	links, err := c.net.rtnl.links()
	if err != nil {
		return "", err
	}
	for _, l := range links {
		switch {
		case l.lower == c.index && !c.uppers[l.index]:
			return l.name + " is on it", nil
		case l.index == c.index && l.master != 0 && l.master != c.master:
			return "it is a port of " + nameOf(links, l.master), nil
		}
	}
	addrs, err := c.net.rtnl.addresses(c.index)
	if err != nil {
		return "", err
	}
	for _, a := range addrs {
		if a.foreign() {
			return "somebody else's address " + a.prefix.String() + " is on it", nil
		}
	}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		rts, err := c.net.rtnl.foreignRoutes(c.index, family)
		if err != nil {
			return "", err
		}
		if len(rts) > 0 {
			return "somebody else's route to " + rts[0].dst.String() + " is on it", nil
		}
	}
	return "", nil
}

// nameOf returns the name of the link with that index.
func nameOf(links []link, index int) string {
	for _, l := range links {
		if l.index == index {
			return l.name
		}
	}
	return fmt.Sprintf("interface %d", index)
}

// try runs one method on the link until ctx ends.
func (c *nic) try(ctx context.Context, m Method) {
	c.goOn(ctx, m, func() {
		switch m {
		case LinkLocal:
			c.linkLocal(ctx)
		case DHCP:
			c.dhcp(ctx)
		case IPv6:
			c.ipv6(ctx)
		}
	})
}

// undo takes back what was done to the link itself.
func (c *nic) undo() []error {
	if l, present, _, _ := c.state(); present && c.before.down && !c.raised() && l.up() && c.prepared {
		c.event(0, LinkLeftUp, "somebody else has set it up", nil)
	}
	return c.ledger.undo(c, 0)
}

// An attempt is what one method has put on a link, and the path over it.
type attempt struct {
	nic    *nic
	method Method
	lost   chan struct{} // closed when somebody else removed the address

	// mu has one at a time work on what was put on the link, the kernel's answers included: Keep, in the goroutine of its
	// caller, comes in the midst of what the method does, and when the method has ended. (It is taken before the network's.)
	mu     sync.Mutex
	path   *Path
	prefix netip.Prefix // the address that it stands on, if it has put one there or found it
	losing sync.Once
	ledger ledger
	routes []route // as they were laid
	lease  *lease
}

// begin starts an attempt that Close will undo.
func (c *nic) begin(m Method) *attempt {
	a := &attempt{nic: c, method: m, lost: make(chan struct{})}
	c.net.mu.Lock()
	c.net.attempts = append(c.net.attempts, a)
	c.net.mu.Unlock()
	return a
}

// put puts on the link what a path stands on: an address, and the routes from it. The address has no subnet: another DHCP
// client on this NIC is given the same lease, and can then add the address with its subnet beside ours.
func (a *attempt) put(source netip.Addr, life time.Duration, routes []route) error {
	if err := a.address(netip.PrefixFrom(source, 32), life); err != nil {
		return err
	}
	for _, rt := range routes {
		if err := a.route(rt); err != nil {
			return err
		}
	}
	return nil
}

// address puts an address on the link. One that is there already is used, and
// left.
func (a *attempt) address(p netip.Prefix, life time.Duration) error {
	r := a.nic.net.rtnl
	// Where a lease has ended while it was waited for, the address goes at once: without an end it would be nobody's to remove.
	life = max(time.Second, min(life, addressLife))
	switch err := r.addAddress(a.nic.index, p, life); {
	case err == nil:
		a.mu.Lock()
		a.prefix = p
		a.ledger.add("address "+p.String(), func() error { return a.nic.dropAddress(p) })
		a.mu.Unlock()
		a.nic.tell(Event{Method: a.method, Kind: AddressAdded, Address: p.Addr(), Detail: p.String()})
	case exists(err):
		a.mu.Lock()
		a.prefix = p
		a.mu.Unlock()
		a.nic.tell(Event{Method: a.method, Kind: AddressAdded, Address: p.Addr(), Detail: p.String() + " is there already, and not ours"})
	default:
		return &Error{Op: "add address " + p.String(), Method: a.method, Err: permission(err)}
	}
	return nil
}

// dropAddress removes an address from the link, if it is still ours.
//
// With an interface's last IPv4 address the kernel removes all of its IPv4
// routes, whoever laid them (fib_inetaddr_event, net/ipv4/fib_frontend.c):
// those of others are put back.
func (c *nic) dropAddress(p netip.Prefix) error {
	r := c.net.rtnl
	addrs, err := r.addresses(c.index)
	if err != nil {
		return err
	}
	last := true
	var ours bool
	for _, has := range addrs {
		switch {
		case has.prefix == p:
			ours = has.ours()
		case has.prefix.Addr().Is4():
			last = false
		}
	}
	if !ours {
		return nil
	}
	var others []route
	if last {
		if others, err = r.foreignRoutes(c.index, unix.AF_INET); err != nil {
			return err
		}
	}
	if err := r.deleteAddress(c.index, p); err != nil {
		return err
	}
	var errs []error
	for _, rt := range others {
		if rt.source == p.Addr() {
			continue // it stood on the address
		}
		if err := r.restoreRoute(rt); err != nil && !exists(err) {
			errs = append(errs, fmt.Errorf("put back the route to %v: %w", rt.dst, err))
		}
	}
	return joined.Errors(errs...)
}

// extend gives the address its full lifetime again, if it is still ours, and lays
// the routes again that somebody has removed: scripts flush all of a link's. One
// whose time is up goes.
func (a *attempt) extend(life time.Duration) error {
	if life <= 0 {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, rt := range a.routes {
		if err := a.nic.net.rtnl.do(unix.RTM_NEWROUTE, createExcl, rt.message()); err != nil && !exists(err) {
			return fmt.Errorf("lay the route to %v again: %w", rt.dst, err)
		}
	}
	if !a.ours() {
		return nil
	}
	addrs, err := a.nic.net.rtnl.addresses(a.nic.index)
	if err != nil {
		return err
	}
	for _, has := range addrs {
		if has.prefix == a.prefix && has.ours() {
			return a.nic.net.rtnl.extendAddress(a.nic.index, a.prefix, rtprotNametag, min(life, addressLife))
		}
	}
	return nil
}

// relay lays the routes anew. What a redirect or another message of ICMP has taught
// the kernel hangs on them, and goes with them.
func (a *attempt) relay() {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.nic.net.rtnl
	for _, rt := range a.routes {
		err := r.deleteRoute(rt)
		if err == nil || gone(err) {
			err = r.do(unix.RTM_NEWROUTE, createExcl, rt.message())
		}
		if err != nil && !exists(err) {
			a.nic.event(a.method, PathFailed, "", &Error{Op: "lay the route to " + rt.dst.String() + " anew", Interface: a.nic.name(), Method: a.method, Err: permission(err)})
		}
	}
}

// ours reports whether the address is ours: added by us, and not kept.
func (a *attempt) ours() bool { return a.ledger.has("address " + a.prefix.String()) }

// holds returns the address that the attempt stands on.
func (a *attempt) holds() (netip.Prefix, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.prefix, a.prefix.IsValid()
}

// lose notes that somebody else removed the address.
func (a *attempt) lose() { a.losing.Do(func() { close(a.lost) }) }

// route lays a route.
func (a *attempt) route(rt route) error {
	rt.index, rt.protocol = a.nic.index, rtprotNametag
	rt.metric += uint32(a.nic.index)
	rt, err := a.nic.net.rtnl.addRoute(rt)
	if err != nil {
		return &Error{Op: "add route to " + rt.dst.String(), Method: a.method, Err: permission(err)}
	}
	a.mu.Lock()
	a.routes = append(a.routes, rt)
	a.ledger.add("route to "+rt.dst.String(), func() error { return a.nic.net.rtnl.deleteRoute(rt) })
	a.mu.Unlock()
	if rt.gateway.IsValid() {
		a.nic.net.gateway(rt.gateway)
	}
	return nil
}

// ready makes the path known.
func (a *attempt) ready(p *Path, dial DialFunc) {
	p.attempt = a
	p.init(context.Background(), dial)
	a.mu.Lock()
	a.path = p
	a.mu.Unlock()
	a.nic.net.succeeded(a.nic, a.method)
	a.nic.tell(Event{Method: a.method, Kind: PathReady, Address: p.Source, Detail: p.Source.String()})
	a.nic.net.offer(p)
}

// end ends the path and its connections.
func (a *attempt) end(cause error) {
	a.mu.Lock()
	p := a.path
	a.mu.Unlock()
	if p != nil {
		p.end(cause)
	}
}

// busy reports whether somebody has a connection open over the path.
func (a *attempt) busy() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.path != nil && a.path.busy()
}

// stop ends an attempt whose ground is gone and takes back what it did, except
// when the whole network ends: then Close does, after it was told what to keep.
func (a *attempt) stop(cause error) {
	n := a.nic.net
	if n.ctx.Err() != nil {
		return
	}
	a.end(cause)
	a.undo()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.attempts = slices.DeleteFunc(n.attempts, func(other *attempt) bool { return other == a })
}

// undo takes back what the attempt did.
func (a *attempt) undo() []error {
	a.mu.Lock()
	l := a.ledger
	a.ledger = nil
	a.mu.Unlock()
	return l.undo(a.nic, a.method)
}
