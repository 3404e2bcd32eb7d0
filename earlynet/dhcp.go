//go:build linux

package earlynet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// This file says when something is done, exchange.go what is said on the link,
// candidate.go what is made of what was heard, and lease.go what a message means.

const (
	// A lease is tried: what it is worth shows only when somebody has got an
	// answer over it, and then the network is closed soon. One that has led
	// nowhere for so long makes room for another candidate, if there is one. Each
	// of them is given twice as long the next time.
	firstTrial = time.Second
	lastTrial  = 15 * time.Second

	// When to ask who else is there while a lease is tried: a server that was
	// slow has been heard by then, and one whose offer was lost speaks up.
	firstLook = 500 * time.Millisecond
	lastLook  = 60 * time.Second
)

var (
	// errDoubt ends a path whose lease makes room for another one.
	errDoubt = errors.New("another offer may do better")

	errLeaseEnded error = silentError("the lease has ended")
)

// leaseGrain is how long before the end of its lease an address may be gone: the kernel
// cuts a lifetime down to whole seconds, and rounds the time of its looks at them
// (check_lifetime, net/ipv4/devinet.c).
const leaseGrain = 3 * time.Second

// dhcp keeps a path from a DHCPv4 lease up until ctx ends.
func (c *nic) dhcp(ctx context.Context) {
	if !c.net.wants(netip.Addr.Is4) {
		return
	}
	x := newExchange(c, c.current())
	for tries := 0; ctx.Err() == nil; tries++ {
		began := time.Now()
		err := x.open(ctx, func(ctx context.Context) error {
			for {
				if err := c.dhcpOnce(ctx, x); !errors.Is(err, errDoubt) {
					return err
				}
			}
		})
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errSocket) {
			c.fail(PathFailed, &Error{Op: "acquire a lease", Method: DHCP, Err: permission(err)})
		}
		if time.Since(began) > lastInterval {
			tries = 0
		}
		pause(ctx, x.interval(tries, lastInterval))
	}
}

// dhcpOnce acquires a lease and keeps a path up from it until ctx ends or the
// lease cannot be used any more; the error says why.
func (c *nic) dhcpOnce(ctx context.Context, x *exchange) (err error) {
	a := c.begin(DHCP)
	defer func() { a.stop(err) }()

	got, l, err := x.acquire(ctx)
	if err != nil {
		return err
	}
	x.heard.held, x.heard.last = got, got
	defer func() { x.heard.held = nil }()
	if err = a.use(x.link, l); err != nil {
		x.heard.failed(got, &got.fruitless)
		c.refuse(DHCP, err)
		return err
	}
	watch, stop := context.WithCancel(ctx)
	defer stop()
	for _, d := range c.net.cfg.Destinations {
		if d.Is4() {
			hop := d
			if gateway, ok := l.via(d); ok && gateway.IsValid() {
				hop = gateway
			}
			c.watchHop(watch, x.link, hop, l.prefix.Addr())
		}
	}
	t := &tenancy{nic: c, x: x, attempt: a, lease: l, candidate: got}
	return t.keep(ctx)
}

// A tenancy is a lease in use.
type tenancy struct {
	nic       *nic
	x         *exchange
	attempt   *attempt
	lease     *lease
	candidate *candidate

	renewal dhcpv4.TransactionID // of the renewal that is under way
	asked   time.Time            // when it began; zero: none is
	tries   int                  // of it
	look    time.Duration        // between two questions who else is there
	overdue bool                 // the trial was prolonged, for the sake of what is in flight
}

// trial is how long the lease is tried before another one is.
func (t *tenancy) trial() time.Duration {
	return min(firstTrial<<min(t.candidate.fruitless, 8), lastTrial)
}

// keep keeps the path up until ctx ends or the lease cannot be used any more.
func (t *tenancy) keep(ctx context.Context) error {
	refresh := time.NewTicker(addressLife / 3)
	defer refresh.Stop()
	renew := time.NewTimer(t.lease.renew)
	defer renew.Stop()
	trial := time.NewTimer(t.trial())
	defer trial.Stop()
	t.look = firstLook
	look := time.NewTimer(t.look)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.attempt.lost:
			err := fmt.Errorf("address %v was removed by somebody else", t.lease.prefix)
			if t.lease.until(time.Now()) <= leaseGrain {
				err = fmt.Errorf("%w: %v, which was for %v", errLeaseEnded, t.lease.prefix, leaseTime(t.lease))
			}
			t.nic.fail(PathFailed, &Error{Op: "keep the path", Method: DHCP, Err: err})
			return err
		case <-refresh.C:
			t.attempt.prolong(t.lease)
		case <-renew.C:
			// Nothing waits for the answer: a server may be silent for longer than
			// an address of ours lives.
			left := t.lease.until(time.Now())
			if left <= 0 {
				err := t.x.silence("no answer")
				err.Err = errLeaseEnded
				t.nic.fail(PathFailed, &Error{Op: "renew the lease", Method: DHCP, Err: err})
				return err
			}
			renew.Reset(min(left, t.renew()))
		case <-look.C:
			t.x.ask()
			t.look = min(2*t.look, lastLook)
			look.Reset(t.x.jitter(t.look))
		case r := <-t.x.in:
			if t.hear(r) {
				t.attempt.prolong(t.lease) // the kernel counts by the lease before
				renew.Reset(t.lease.renew)
			}
		case <-trial.C:
			if err := t.doubt(); err != nil {
				return err
			}
			trial.Reset(t.trial())
		}
	}
}

// prolong has the kernel keep the address for as long as the lease says.
func (a *attempt) prolong(l *lease) {
	if err := a.extend(l.until(time.Now())); err != nil {
		a.nic.fail(PathFailed, &Error{Op: "extend address " + l.prefix.String(), Method: DHCP, Err: permission(err)})
	}
}

// renew asks for the lease again, and returns when to ask once more.
func (t *tenancy) renew() time.Duration {
	if t.asked.IsZero() {
		t.renewal, t.asked, t.tries = t.x.xid(), time.Now(), 0
		t.x.begin()
	}
	t.x.renew(t.lease, t.renewal)
	t.tries++
	return t.x.interval(t.tries-1, renewInterval)
}

// hear takes a message, and reports whether the lease was renewed.
func (t *tenancy) hear(r reply) (renewed bool) {
	if t.asked.IsZero() || r.TransactionID != t.renewal {
		if t.x.offer(r) == nil {
			t.x.granted(r, nil)
		}
		return false
	}
	server, _ := addrOf(r.ServerIdentifier())
	// A refusal ends nothing (verdict tells it): anybody can send one, and the
	// lease was promised for the time that is left. Until then the server is asked
	// again.
	ack, _ := t.x.verdict(r, &lease{prefix: t.lease.prefix, server: server})
	if ack == nil {
		return false
	}
	// Nor is what was promised cut short.
	if ack.begun = t.asked; ack.until(t.asked) < t.lease.until(t.asked) {
		ack.life, ack.begun = t.lease.life, t.lease.begun
	}
	a := t.attempt
	a.mu.Lock() // Keep looks at it
	t.lease.life, t.lease.renew, t.lease.begun = ack.life, ack.renew, ack.begun
	a.mu.Unlock()
	t.asked = time.Time{}
	return true
}

// doubt notes that the lease has led nowhere so far, and returns an error where
// another candidate is to be tried.
func (t *tenancy) doubt() error {
	if t.attempt.busy() && !t.overdue {
		t.overdue = true // an answer may be on its way
		return nil
	}
	t.overdue = false
	t.x.heard.failed(t.candidate, &t.candidate.fruitless)
	if t.x.heard.better(t.candidate) {
		t.nic.fail(PathFailed, &Error{Op: fmt.Sprintf("leave the lease of %v", t.lease.server), Method: DHCP, Err: errDoubt})
		return errDoubt
	}
	t.attempt.relay()
	return nil
}

// use puts a lease's address on the link, and a route to each destination.
func (a *attempt) use(l link, ls *lease) error {
	routes, err := ls.routesTo(a.nic.net.cfg.Destinations)
	if err != nil {
		return err
	}
	source := ls.prefix.Addr()
	if err := a.put(source, ls.until(time.Now()), routes); err != nil {
		return err
	}
	p := &Path{Interface: l.name, Index: l.index, Source: source, Method: DHCP}
	for _, rt := range routes {
		if rt.gateway.IsValid() {
			p.Gateway = rt.gateway
			break
		}
	}
	a.mu.Lock()
	a.lease = ls
	a.mu.Unlock()
	a.ready(p, dialVia(l.index, l.name, source, false))
	return nil
}
