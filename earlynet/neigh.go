//go:build linux

package earlynet

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/jsimonetti/rtnetlink/v2"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/joined"
)

// The kernel asks for a neighbour's MAC address once a second, three times. On
// a link that loses packets that second is most of the time a name takes. While
// a link is ours it asks every 50 ms, for as long in all.
const (
	arpRetrans = 50 // milliseconds
	arpProbes  = 60
)

// Attributes of linux/neighbour.h.
const (
	ndtaName         = 1
	ndtaParms        = 6
	ndtpaIfindex     = 1
	ndtpaRetransTime = 5
	ndtpaMcastProbes = 11
)

// arpTimers are the parameters of a link's neighbour table that are changed.
type arpTimers struct {
	retrans uint64 // milliseconds between two requests
	probes  uint32 // broadcast requests before giving up
}

// about reports whether the kernel, which rounds times up to its ticks, was told
// the same.
func (t arpTimers) about(told arpTimers) bool {
	return t.probes == told.probes && t.retrans >= told.retrans && t.retrans <= told.retrans+10
}

// tuneNeighbours sets the link's ARP timers, to be put back. It is a favour,
// not a need: where the kernel refuses, nothing is said.
func (c *nic) tuneNeighbours() {
	r, was := c.net.rtnl, c.before.arp
	ours := arpTimers{arpRetrans, arpProbes}
	if !c.net.wants(netip.Addr.Is4) || was.retrans <= ours.retrans {
		return
	}
	if err := r.setARPTimers(c.index, ours); err != nil {
		return
	}
	c.ledger.add("ARP timers", func() error {
		// Whoever set them since meant it.
		if now, err := r.arpTimers(c.index); err != nil || !now.about(ours) {
			return err
		}
		return r.setARPTimers(c.index, was)
	})
}

// arpTimers reads the timers of a link.
func (r rtnl) arpTimers(index int) (arpTimers, error) {
	msgs, err := r.dump(unix.RTM_GETNEIGHTBL, raw{unix.AF_INET, 0, 0, 0})
	if err != nil {
		return arpTimers{}, err
	}
	for _, m := range msgs {
		if i, t, ok := parseNeighbourTable(m.Data); ok && i == index {
			return t, nil
		}
	}
	return arpTimers{}, unix.ENOENT
}

// parseNeighbourTable reads an RTM_NEWNEIGHTBL message of the ARP table.
func parseNeighbourTable(data []byte) (index int, t arpTimers, ok bool) {
	if len(data) < 4 || data[0] != unix.AF_INET {
		return 0, t, false
	}
	ad, err := netlink.NewAttributeDecoder(data[4:])
	if err != nil {
		return 0, t, false
	}
	for ad.Next() {
		if ad.Type() != ndtaParms {
			continue
		}
		ad.Nested(func(ad *netlink.AttributeDecoder) error {
			for ad.Next() {
				switch ad.Type() {
				case ndtpaIfindex:
					index = int(ad.Uint32())
				case ndtpaRetransTime:
					t.retrans = ad.Uint64()
				case ndtpaMcastProbes:
					t.probes = ad.Uint32()
				}
			}
			return nil
		})
	}
	// The table's defaults have no interface.
	return index, t, ad.Err() == nil && index != 0
}

func (r rtnl) setARPTimers(index int, t arpTimers) error {
	ae := netlink.NewAttributeEncoder()
	ae.String(ndtaName, "arp_cache")
	ae.Nested(ndtaParms, func(ae *netlink.AttributeEncoder) error {
		ae.Uint32(ndtpaIfindex, uint32(index))
		ae.Uint64(ndtpaRetransTime, t.retrans)
		ae.Uint32(ndtpaMcastProbes, t.probes)
		return nil
	})
	b, err := ae.Encode()
	if err != nil {
		return err
	}
	return r.do(unix.RTM_SETNEIGHTBL, 0, raw{unix.AF_INET, 0, 0, 0}, b...)
}

// knowNeighbours notes which neighbours a link knew before it was used, and
// arranges for the entries that our traffic makes to be removed. A link that
// was down knows nobody, and forgets everybody when it is set down again.
func (c *nic) knowNeighbours() {
	known, err := c.net.rtnl.neighbours(c.index)
	if err != nil {
		return
	}
	c.known = known
	c.ledger.add("neighbour entries", c.forgetNeighbours)
}

// forgetNeighbours removes the entries of those whom we have talked to.
func (c *nic) forgetNeighbours() error {
	if c.kept.Load() {
		return errLeft
	}
	now, err := c.net.rtnl.neighbours(c.index)
	if err != nil {
		return err
	}
	var errs []error
	for _, a := range c.net.peers() {
		if now[a] && !c.known[a] {
			if err := c.net.rtnl.deleteNeighbour(c.index, a); err != nil && !gone(err) {
				errs = append(errs, fmt.Errorf("%v: %w", a, err))
			}
		}
	}
	return joined.Errors(errs...)
}

// gateway notes a router that we may have talked to.
func (n *Network) gateway(a netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.gateways[a] = struct{}{}
}

// peers returns everybody that this network has had reason to talk to.
func (n *Network) peers() []netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	peers := append([]netip.Addr(nil), n.cfg.Destinations...)
	for a := range n.gateways {
		peers = append(peers, a)
	}
	return peers
}

// neighbours returns the IPv4 and IPv6 neighbours in a link's table.
func (r rtnl) neighbours(index int) (map[netip.Addr]bool, error) {
	msgs, err := r.dump(unix.RTM_GETNEIGH, &rtnetlink.NeighMessage{})
	if err != nil {
		return nil, err
	}
	known := make(map[netip.Addr]bool)
	for _, m := range msgs {
		var nm rtnetlink.NeighMessage
		if err := nm.UnmarshalBinary(m.Data); err != nil || int(nm.Index) != index || nm.Attributes == nil {
			continue
		}
		if a, ok := netip.AddrFromSlice(nm.Attributes.Address); ok {
			known[a] = true
		}
	}
	return known, nil
}

func (r rtnl) deleteNeighbour(index int, a netip.Addr) error {
	family, ip := byte(unix.AF_INET), a.AsSlice()
	if a.Is6() {
		family = unix.AF_INET6
	}
	header := make(raw, unix.SizeofNdMsg)
	header[0] = family
	binary.NativeEndian.PutUint32(header[4:], uint32(index))
	ae := netlink.NewAttributeEncoder()
	ae.Bytes(unix.NDA_DST, ip)
	b, err := ae.Encode()
	if err != nil {
		return err
	}
	return r.do(unix.RTM_DELNEIGH, 0, header, b...)
}
