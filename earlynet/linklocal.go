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

// RFC 3927, section 9: after so many conflicts, one new address a minute.
const (
	maxConflicts  = 10
	conflictPause = 60 * time.Second

	// proxyClaims is how many of our addresses one host may claim before it is
	// taken for a proxy: two by chance is less than one in four billion.
	proxyClaims = 2
)

// linkLocal keeps a link-local path up until ctx ends. The path is given away
// at once; whether another host has the address is found out meanwhile, for a
// conflict is one chance in 65,024 per neighbour, and waiting for its absence
// to be certain takes seconds. On a conflict the path ends and another address
// is picked.
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
	claims := make(map[[6]byte]int)
	for conflicts := 0; ctx.Err() == nil; {
		err := c.linkLocalOnce(ctx, l, pick(), func(mac [6]byte) bool { return claims[mac] >= proxyClaims })
		var other *conflictError
		switch {
		case ctx.Err() != nil:
			return
		case errors.As(err, &other):
			if claims[other.mac]++; claims[other.mac] == proxyClaims {
				c.event(LinkLocal, ProxyARP, net.HardwareAddr(other.mac[:]).String(), nil)
			}
			if conflicts++; conflicts > maxConflicts {
				pause(ctx, conflictPause)
			}
		default:
			// Somebody removed the address, or the kernel refused it.
			pause(ctx, time.Second)
		}
	}
}

// linkLocalOnce keeps a path up from one address until ctx ends or the address
// cannot be used any more; the error says why.
func (c *nic) linkLocalOnce(ctx context.Context, l link, source netip.Addr, ignore func(mac [6]byte) bool) (err error) {
	a := c.begin(LinkLocal)
	defer func() { a.stop(err) }()

	if err = a.address(netip.PrefixFrom(source, 32), addressLife); err != nil {
		c.refuse(LinkLocal, err)
		return err
	}
	for _, d := range c.net.cfg.Destinations {
		if !d.Is4() {
			continue
		}
		err = a.route(route{dst: netip.PrefixFrom(d, 32), source: source, metric: metricLinkLocal})
		if err != nil {
			c.refuse(LinkLocal, err)
			return err
		}
	}
	a.ready(&Path{Interface: l.name, Index: l.index, Source: source, Method: LinkLocal},
		dialVia(l.index, l.name, source, true))

	conflict := make(chan error, 1)
	guard, stop := context.WithCancel(ctx)
	defer stop()
	c.net.tasks.Go("ARP", func() {
		conflict <- safely.Do("ARP on "+l.name, func() error { return c.guard(guard, l, source, ignore) })
	}, c.net.died)

	refresh := time.NewTicker(addressLife / 3)
	defer refresh.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.lost:
			err = fmt.Errorf("address %v was removed by somebody else", source)
			c.fail(PathFailed, &Error{Op: "keep the path", Method: LinkLocal, Err: err})
			return err
		case err = <-conflict:
			if errors.Is(err, ErrConflict) {
				c.event(LinkLocal, Conflict, source.String(), err)
				c.fail(PathFailed, &Error{Op: "keep the path", Method: LinkLocal, Err: err})
				return err
			}
			// No packet socket, no check: the path may work all the same.
			conflict = nil
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
