//go:build linux

package earlynet

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/jsimonetti/rtnetlink/v2"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/safely"
)

// ARP proves nothing: whoever is on the link can say that the next hop is at him, and
// the kernel believes the first who answers, and later anybody who says so unasked.
// One such packet would lead a path astray for as long as the kernel is content with
// the entry, which is half a minute and more.
//
// So, where there is no answer after a while, the link is asked who else claims the
// address, and the claimants are tried in turns: the kernel is told where the next hop
// is, in a way that no packet changes. On a link where nobody lies this is a question
// a second after the path was made, and no more.
const (
	askHop       = 150 * time.Millisecond // for answers
	maxClaimants = 8                      // that are remembered
	maxHops      = 16                     // and of how many next hops
)

// A hop is the next host on the way to a destination.
type hop struct {
	nic  *nic
	link link
	addr netip.Addr
	rand *rand.Rand

	source  netip.Addr // in whose name to ask; guarded by the network's mu
	watched bool       // by a goroutine; as source

	// Of that goroutine:
	claimants []*claimant
	pinned    *claimant // whom the kernel was told; nil: nobody
	attempt   *attempt  // takes that back
}

// A claimant is a host that says that it is the next hop.
type claimant struct {
	mac       [6]byte
	fruitless int // times that it was believed in vain
}

// watchHop looks after a path's next hop until ctx ends. Of several paths over the
// same one, the first one's does. What was learnt of a hop is kept for the next path
// over it.
func (c *nic) watchHop(ctx context.Context, l link, addr, source netip.Addr) {
	c.net.mu.Lock()
	h := c.hops[addr]
	if h == nil {
		if c.hops == nil || len(c.hops) >= maxHops {
			c.hops = make(map[netip.Addr]*hop)
		}
		h = &hop{nic: c, addr: addr, rand: c.net.random(c.index + 1<<16)}
		c.hops[addr] = h
	}
	h.source = source
	watched := h.watched
	h.watched = true
	c.net.mu.Unlock()
	if watched {
		return
	}
	h.link = l
	c.net.tasks.Go("next hop", func() {
		defer func() {
			c.net.mu.Lock()
			h.watched = false
			c.net.mu.Unlock()
		}()
		c.goOn(ctx, 0, func() { h.steer(ctx) })
	}, c.net.died)
}

// steer tries the claimants in turns until ctx ends.
func (h *hop) steer(ctx context.Context) {
	h.attempt = h.nic.begin(0)
	h.pinned = nil
	defer h.attempt.stop(nil)
	wait := firstTrial
	if len(h.claimants) > 0 {
		wait = 0 // it was of no use before
	}
	for first := true; ; first = false {
		pause(ctx, wait)
		if h.nic.net.ctx.Err() != nil {
			return // and most likely the name is there
		}
		r := h.nic.net.rtnl
		entry, err := r.neighbour(h.nic.index, h.addr)
		if err != nil || entry.state&(unix.NUD_PERMANENT|unix.NUD_NOARP) != 0 && h.pinned == nil {
			return // somebody knows better
		}
		if entry.mac != [6]byte{} && (wait > 0 || !first) {
			h.claimedBy(entry.mac).fruitless++
		}
		if ctx.Err() != nil {
			return
		}
		// No packet socket, no answer: the kernel's own entry is what there is.
		_ = safely.Do("asking for the next hop", func() error { return h.ask(ctx) })
		if ctx.Err() != nil {
			return
		}
		wait = lastTrial
		if best := h.best(); best != nil {
			wait = min(firstTrial<<min(best.fruitless, 8), lastTrial)
			if best.mac != entry.mac {
				h.pin(best, entry)
			}
		}
	}
}

// ask has every host on the link say whether it has the address.
func (h *hop) ask(ctx context.Context) error {
	filter, err := arpFilter(h.addr)
	if err != nil {
		return err
	}
	conn, shut, err := h.nic.listenARP(h.link, filter)
	if err != nil {
		return err
	}
	defer shut()
	h.nic.net.mu.Lock()
	source := h.source
	h.nic.net.mu.Unlock()
	mac, now := [6]byte(h.link.mac), time.Now()
	question := arpPacket{op: 1, senderMAC: mac, senderIP: source, targetIP: h.addr}
	steps := []step{{now, question}, {now.Add(askHop / 2), question}} // one of them may be lost
	return converse(ctx, conn, steps, now.Add(askHop), func(p arpPacket, _ []step) error {
		if p.senderIP == h.addr && p.senderMAC != mac {
			h.claimedBy(p.senderMAC)
		}
		return nil
	})
}

// claimedBy returns the claimant with that hardware address. Of too many, one of those
// that have been believed in vain most often is forgotten, or any.
func (h *hop) claimedBy(mac [6]byte) *claimant {
	for _, c := range h.claimants {
		if c.mac == mac {
			return c
		}
	}
	if len(h.claimants) == maxClaimants {
		h.rand.Shuffle(len(h.claimants), func(i, j int) { h.claimants[i], h.claimants[j] = h.claimants[j], h.claimants[i] })
		worst := slices.MaxFunc(h.claimants, func(a, b *claimant) int { return cmp.Compare(a.fruitless, b.fruitless) })
		h.claimants = slices.DeleteFunc(h.claimants, func(c *claimant) bool { return c == worst })
	}
	c := &claimant{mac: mac}
	h.claimants = append(h.claimants, c)
	return c
}

// best returns the claimant that was believed in vain least often, nil where there is
// none.
func (h *hop) best() *claimant {
	if len(h.claimants) == 0 {
		return nil
	}
	return slices.MinFunc(h.claimants, func(a, b *claimant) int { return cmp.Compare(a.fruitless, b.fruitless) })
}

// pin has the kernel believe a claimant and nobody else, until the attempt ends.
func (h *hop) pin(c *claimant, was neighbour) {
	r, index := h.nic.net.rtnl, h.nic.index
	if err := r.setNeighbour(index, h.addr, c.mac, unix.NUD_PERMANENT); err != nil {
		h.nic.event(0, NextHop, "", &Error{Op: "set the neighbour entry of " + h.addr.String(), Err: permission(err)})
		return
	}
	if h.pinned == nil {
		a := h.attempt
		a.mu.Lock()
		a.ledger.add("neighbour entry of "+h.addr.String(), func() error {
			if was.mac == [6]byte{} {
				return r.deleteNeighbour(index, h.addr)
			}
			return r.setNeighbour(index, h.addr, was.mac, unix.NUD_STALE)
		})
		a.mu.Unlock()
	}
	h.pinned = c
	if was.mac == [6]byte{} {
		return // the kernel's own question was lost
	}
	h.nic.event(0, NextHop, fmt.Sprintf("%v is tried at %v, one of %d hosts that claim it", h.addr, net.HardwareAddr(c.mac[:]), len(h.claimants)), nil)
}

// ndaProtocol is NDA_PROTOCOL of linux/neighbour.h, since Linux 5.2: whose an entry is.
const ndaProtocol = 12

// unpin takes back the entries of a run that was killed. Older kernels do not tell them
// from others'.
func (c *nic) unpin() {
	msgs, err := c.net.rtnl.dump(unix.RTM_GETNEIGH, &rtnetlink.NeighMessage{})
	if err != nil {
		return
	}
	for _, m := range msgs {
		var nm rtnetlink.NeighMessage
		if err := nm.UnmarshalBinary(m.Data); err != nil || int(nm.Index) != c.index || nm.Attributes == nil || nm.State&unix.NUD_PERMANENT == 0 {
			continue
		}
		ad, err := netlink.NewAttributeDecoder(m.Data[unix.SizeofNdMsg:])
		if err != nil {
			continue
		}
		var ours bool
		for ad.Next() {
			ours = ours || ad.Type() == ndaProtocol && ad.Uint8() == rtprotNametag
		}
		if a, ok := netip.AddrFromSlice(nm.Attributes.Address); ok && ours && c.net.rtnl.deleteNeighbour(c.index, a) == nil {
			c.event(0, TakenOver, "neighbour entry of "+a.String(), nil)
		}
	}
}

// A neighbour is an entry of the kernel's table.
type neighbour struct {
	mac   [6]byte // zero: not known
	state uint16  // NUD_*
}

// neighbour returns the entry of an address; the zero value where there is none.
func (r rtnl) neighbour(index int, a netip.Addr) (neighbour, error) {
	msgs, err := r.dump(unix.RTM_GETNEIGH, &rtnetlink.NeighMessage{})
	if err != nil {
		return neighbour{}, err
	}
	for _, m := range msgs {
		var nm rtnetlink.NeighMessage
		if err := nm.UnmarshalBinary(m.Data); err != nil || int(nm.Index) != index || nm.Attributes == nil {
			continue
		}
		if has, ok := netip.AddrFromSlice(nm.Attributes.Address); ok && has == a {
			n := neighbour{state: nm.State}
			copy(n.mac[:], nm.Attributes.LLAddress)
			return n, nil
		}
	}
	return neighbour{}, nil
}

// setNeighbour makes or replaces an entry.
func (r rtnl) setNeighbour(index int, a netip.Addr, mac [6]byte, state uint16) error {
	header := make(raw, unix.SizeofNdMsg)
	header[0] = unix.AF_INET
	binary.NativeEndian.PutUint32(header[4:], uint32(index))
	binary.NativeEndian.PutUint16(header[8:], state)
	ae := netlink.NewAttributeEncoder()
	ae.Bytes(unix.NDA_DST, a.AsSlice())
	ae.Bytes(unix.NDA_LLADDR, mac[:])
	if state&unix.NUD_PERMANENT != 0 {
		ae.Uint8(ndaProtocol, rtprotNametag)
	}
	b, err := ae.Encode()
	if err != nil {
		return err
	}
	return r.do(unix.RTM_NEWNEIGH, netlink.Create|netlink.Replace, header, b...)
}
