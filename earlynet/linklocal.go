//go:build linux

package earlynet

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/nametag-boot/nametag/internal/safely"
)

const (
	// maxConflicts is how many conflicts in defendTime are heeded. An address that
	// was picked at random is another host's once in 65,024 times per neighbour, so
	// three in a row are nobody's mistake: they are a flood, and from then on the
	// address is defended, as RFC 5227 (section 2.4) lets a host do that cannot do
	// without, for as long as it calls DEFEND_INTERVAL. RFC 3927 (section 9) would
	// pause for a minute after ten conflicts, to spare the link a storm of probes:
	// it is spared that here by there being three new addresses in ten seconds at
	// most.
	maxConflicts = 3
	defendTime   = 10 * time.Second

	// lastStand is how long at most an address is used after a conflict, so that the
	// connections over it can still be answered. With an answer the network is closed.
	lastStand = 2 * time.Second

	// proxyClaims is how many of our addresses one host may claim before it is
	// taken for a proxy: two by chance is less than one in four billion.
	proxyClaims = 2
	maxClaims   = 1024 // that are remembered
)

// linkLocal keeps a link-local path up until ctx ends. The path is given away
// at once; whether another host has the address is found out meanwhile, for a
// conflict is one chance in 65,024 per neighbour, and waiting for its absence
// to be certain takes seconds. On a conflict another address follows at once, and
// the path over the first one ends when nobody waits for an answer over it any
// more.
//
// A router that answers ARP for every address (proxy ARP, as some clouds'
// gateways do) would conflict with all of them. One host that claims several
// addresses picked at random is such a router, and is ignored.
func (c *nic) linkLocal(ctx context.Context) {
	l := c.current()
	if !c.net.wants(netip.Addr.Is4) {
		return
	}
	pick := addressPicker(l.mac, c.net.cfg.Destinations)
	disputes := &disputes{nic: c, claims: make(map[[6]byte]int)}
	var standing safely.Group
	defer standing.Wait()
	for ctx.Err() == nil {
		source := pick()
		conflict, ended := make(chan struct{}), make(chan struct{})
		standing.Go("link-local on "+l.name, func() {
			defer close(ended)
			c.linkLocalOnce(ctx, l, source, disputes.heed, conflict)
		}, func(err error) { c.refuse(LinkLocal, err) })
		select {
		case <-ctx.Done():
		case <-conflict:
		case <-ended:
			// Somebody removed the address, or the kernel refused it.
			pause(ctx, time.Second)
		}
	}
}

// disputes are what others have said of our addresses. One goroutine at a time has them, that in
// detectConflict: linkLocalOnce does not end before its own has.
type disputes struct {
	nic    *nic
	claims map[[6]byte]int // of our addresses, by who has claimed them
	recent []time.Time     // when one was heeded
	told   bool            // that no more are
}

// heed reports whether a conflict counts.
func (d *disputes) heed(e *conflictError) bool {
	if d.claims[e.mac] >= proxyClaims {
		return false
	}
	now := time.Now()
	d.recent = slices.DeleteFunc(d.recent, func(t time.Time) bool { return now.Sub(t) >= defendTime })
	if len(d.recent) == maxConflicts {
		if !d.told {
			d.told = true
			d.nic.tell(Event{Method: LinkLocal, Kind: Conflict, Address: e.ip, Err: e, Detail: e.ip.String() + " is kept all the same: so many conflicts are nobody's mistake"})
		}
		return false
	}
	d.recent, d.told = append(d.recent, now), false
	if len(d.claims) == maxClaims {
		clear(d.claims)
	}
	if d.claims[e.mac]++; d.claims[e.mac] == proxyClaims {
		d.nic.event(LinkLocal, ProxyARP, net.HardwareAddr(e.mac[:]).String(), nil)
	}
	return true
}

// linkLocalOnce keeps a path up from one address until ctx ends or the address
// cannot be used any more. It closes conflict when another one is to follow.
func (c *nic) linkLocalOnce(ctx context.Context, l link, source netip.Addr, heed func(*conflictError) bool, conflict chan<- struct{}) {
	var err error
	a := c.begin(LinkLocal)
	defer func() { a.stop(err) }()

	var routes []route
	for _, d := range c.net.cfg.Destinations {
		if d.Is4() {
			routes = append(routes, route{dst: netip.PrefixFrom(d, 32), source: source, metric: metricLinkLocal})
		}
	}
	if err = a.put(source, addressLife, routes); err != nil {
		c.refuse(LinkLocal, err)
		return
	}
	a.ready(&Path{Interface: l.name, Index: l.index, Source: source, Method: LinkLocal},
		dialVia(l.index, l.name, source, true))

	for _, d := range c.net.cfg.Destinations {
		if d.Is4() {
			c.watchHop(ctx, l, d, source)
		}
	}
	verdict := make(chan error, 1)
	var asking safely.Group
	defer asking.Wait()
	detecting, stop := context.WithCancel(ctx)
	defer stop()
	asking.Go("ARP", func() {
		verdict <- safely.Do("ARP on "+l.name, func() error { return c.detectConflict(detecting, l, source, heed) })
	}, c.net.died)

	refresh := time.NewTicker(addressLife / 3)
	defer refresh.Stop()
	var idle <-chan time.Time // to look whether the path is, after a conflict
	var last time.Time        // then it ends in any case
	for {
		select {
		case <-ctx.Done():
			err = ctx.Err()
			return
		case <-a.lost:
			err = fmt.Errorf("address %v was removed by somebody else", source)
			c.fail(PathFailed, &Error{Op: "keep the path", Method: LinkLocal, Err: err})
			return
		case err = <-verdict:
			// No packet socket, no check: the path may work all the same.
			verdict = nil
			if errors.Is(err, ErrConflict) {
				c.tell(Event{Method: LinkLocal, Kind: Conflict, Address: source, Err: err, Detail: source.String()})
				c.fail(PathFailed, &Error{Op: "keep the path", Method: LinkLocal, Err: err})
				close(conflict)
				look := time.NewTicker(lastStand / 20)
				defer look.Stop()
				idle, last = look.C, time.Now().Add(lastStand)
			}
		case <-idle:
			if !a.busy() || !time.Now().Before(last) {
				return
			}
		case <-refresh.C:
			if err := a.extend(addressLife); err != nil {
				c.fail(PathFailed, &Error{Op: "extend address " + source.String(), Method: LinkLocal, Err: permission(err)})
			}
		}
	}
}

// wants reports whether a destination is of the family, or none is given.
func (n *Network) wants(family func(netip.Addr) bool) bool {
	return len(n.cfg.Destinations) == 0 || slices.ContainsFunc(n.cfg.Destinations, family)
}

// addressPicker returns addresses from 169.254.1.0 to 169.254.254.255, one
// after the other: pseudo-random, but the same after each boot, and different
// from one MAC address to the next (RFC 3927, section 2.1).
func addressPicker(mac net.HardwareAddr, never []netip.Addr) func() netip.Addr {
	var seed uint64
	for _, b := range mac {
		seed = seed<<8 | uint64(b)
	}
	r := rand.New(rand.NewPCG(seed, 0x169_254))
	return func() netip.Addr {
		for {
			n := r.Uint32N(254 * 256)
			a := netip.AddrFrom4([4]byte{169, 254, byte(1 + n/256), byte(n)})
			if !slices.Contains(never, a) {
				return a
			}
		}
	}
}
