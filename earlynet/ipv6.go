//go:build linux

package earlynet

import (
	"context"
	"errors"
	"net/netip"
)

// ipv6 keeps a path from the kernel's own fe80:: address up until ctx ends.
// Nothing is configured: the kernel makes the address when a link is set up,
// and lets it be used a second later, when nobody has contradicted.
func (c *nic) ipv6(ctx context.Context) {
	if !c.net.wants(netip.Addr.Is6) {
		return
	}
	var (
		a    *attempt
		from netip.Addr
	)
	end := func(why error) {
		if a != nil {
			a.stop(why)
			a = nil
		}
	}
	defer end(ErrPathDone)
	for {
		l, _, _, changed := c.state()
		addr, ok := c.net.linkLocal6(c.index)
		if a != nil && addr != from {
			end(errors.New("address " + from.String() + " is gone"))
		}
		if ok && a == nil {
			a, from = c.begin(IPv6), addr
			a.ready(&Path{Interface: l.name, Index: l.index, Source: addr.WithZone(l.name), Method: IPv6},
				dialVia(l.index, l.name, addr, false))
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}
