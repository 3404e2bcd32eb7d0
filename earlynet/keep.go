//go:build linux

package earlynet

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/joined"
)

// metricKept is the metric of routes that stay, as network managers choose it.
const metricKept = 1024

// errLeft is what an entry of a ledger returns that leaves its object on
// purpose, and has said so.
var errLeft = errors.New("left on purpose")

// keep makes what the path stands on last. What stays looks as a DHCP client
// of the system would have left it; our own routes are still taken back, the
// kept ones lead to the same places. Where not everything can stay, nothing
// does, and the path is as it was.
func (a *attempt) keep() error {
	c := a.nic
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.path.Err() != nil {
		return &Error{Op: "keep", Interface: a.path.Interface, Method: a.method, Err: a.path.Err()}
	}
	var made ledger
	for _, what := range a.lasting() {
		switch err := what.do(); {
		case err == nil:
			made = append(made, what)
		case exists(err):
			// Somebody else's, who looks after it.
		default:
			err = &Error{Op: "keep " + what.name, Interface: a.path.Interface, Method: a.method, Err: permission(err)}
			if left := made.undo(c, a.method); len(left) > 0 {
				err = joined.Errors(append([]error{err}, left...)...)
			}
			return err
		}
	}
	c.kept.Store(true)
	c.tell(Event{Method: a.method, Kind: Kept, Address: a.path.Source, Detail: a.path.Source.String()})
	return nil
}

// lasting returns what is to be done to the link for the path to stay, in order.
func (a *attempt) lasting() (changes []change) {
	r, index := a.nic.net.rtnl, a.nic.index
	left := time.Duration(0) // it lasts
	if a.lease != nil && a.lease.life != forever {
		left = max(time.Second, a.lease.until(time.Now()))
	}
	beside := a.ours() && a.lease != nil && a.lease.prefix != a.prefix
	if beside {
		// With the lease's subnet, beside ours, which is taken back.
		p := a.lease.prefix
		changes = append(changes, change{
			name: "address " + p.String(),
			do:   func() error { return r.newAddress(createExcl, index, p, 0, left) },
			undo: func() error { return r.deleteAddress(index, p) },
		})
	}
	for _, rt := range a.lastingRoutes() {
		changes = append(changes, change{
			name: "route to " + rt.dst.String(),
			do:   func() error { return r.do(unix.RTM_NEWROUTE, createExcl, rt.message()) },
			undo: func() error { return r.deleteRoute(rt) },
		})
	}
	if a.lease != nil && a.lease.mtu != 0 {
		before, now := a.nic.current().mtu, a.lease.mtu
		changes = append(changes, change{
			name: "MTU",
			do:   func() error { return r.setMTU(index, now) },
			undo: func() error { return r.setMTU(index, before) },
		})
	}
	if a.ours() && !beside {
		// Last, for it is not undone: from here on the address is nobody's to take back.
		changes = append(changes, change{name: "address " + a.prefix.String(), do: func() error {
			if err := r.extendAddress(index, a.prefix, 0, left); err != nil {
				return err
			}
			a.ledger.drop("address " + a.prefix.String())
			return nil
		}})
	}
	return changes
}

// lastingRoutes returns the routes that stay with a kept path: those of the lease,
// gateways first, and to the destinations that it does not cover.
func (a *attempt) lastingRoutes() []route {
	if a.method == IPv6 {
		return nil // fe80::/64 is the kernel's
	}
	base := route{index: a.nic.index, source: a.prefix.Addr(), protocol: unix.RTPROT_STATIC, metric: metricKept}
	to := func(dst netip.Prefix, gateway netip.Addr) route {
		rt := base
		rt.dst, rt.gateway = dst, gateway
		return rt
	}
	var rts []route
	l := a.lease
	if l == nil {
		l = &lease{}
	} else {
		base.protocol = unix.RTPROT_DHCP
		for _, g := range l.gateways() {
			// By itself, as option 3 has it, does not put it on the link.
			if via, ok := l.lookup(g); !ok || via.IsValid() {
				rts = append(rts, to(netip.PrefixFrom(g, 32), netip.Addr{}))
			}
		}
		// What is on the link comes before what is behind it.
		sorted := slices.Clone(l.routes)
		slices.SortStableFunc(sorted, func(a, b leaseRoute) int {
			return btoi(a.gateway.IsValid()) - btoi(b.gateway.IsValid())
		})
		for _, r := range sorted {
			rts = append(rts, to(r.dst, r.gateway))
		}
	}
	for _, d := range a.nic.net.cfg.Destinations {
		if _, ok := l.via(d); !ok && d.Is4() {
			rts = append(rts, to(netip.PrefixFrom(d, 32), netip.Addr{}))
		}
	}
	return rts
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
