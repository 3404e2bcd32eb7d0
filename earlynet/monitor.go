//go:build linux

package earlynet

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/jsimonetti/rtnetlink/v2"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/safely"
)

// subscribe opens the socket on which the kernel tells of changes, in place of
// the one before.
func (n *Network) subscribe() error {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{
		Groups: unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR,
	})
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.events != nil {
		_ = n.events.Close()
	}
	n.events = c
	if n.ctx.Err() != nil {
		_ = c.Close() // unsubscribe may have been before us
	}
	return nil
}

// unsubscribe wakes watch, for good if the context has ended.
func (n *Network) unsubscribe() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.events != nil {
		_ = n.events.Close()
	}
}

// watch applies what the kernel tells, until the context ends.
func (n *Network) watch() {
	for n.ctx.Err() == nil {
		msgs, err := n.events.Receive()
		if err == nil {
			err = safely.Do("applying what the kernel tells", func() error {
				for _, m := range msgs {
					n.apply(m)
				}
				n.missing()
				return nil
			})
		}
		if err == nil {
			continue
		}
		if n.ctx.Err() != nil {
			return
		}
		// ENOBUFS: the kernel had more to tell than the socket holds, and
		// dropped it; it goes on to drop without a word until the socket has
		// been read empty (netlink_overrun, net/netlink/af_netlink.c), and what
		// can be read is old. So begin again: subscribe, then dump.
		n.event(Event{Kind: NetlinkOverrun, Err: err})
		n.mu.Lock()
		for _, v := range n.links {
			if v.nic != nil {
				v.nic.missed.Store(true)
			}
		}
		n.mu.Unlock()
		n.renew()
	}
}

// renew subscribes anew and brings the picture up to date: until then there is
// nothing that what the kernel tells could be applied to.
func (n *Network) renew() {
	for n.ctx.Err() == nil {
		err := n.subscribe()
		if err == nil {
			err = safely.Do("reading links and addresses", n.refresh)
		}
		if err == nil {
			n.succeeded(nil, 0)
			n.caughtUp(0)
			n.missing()
			return
		}
		if n.ctx.Err() == nil {
			n.failed(nil, &Error{Op: "watch links", Err: err})
			pause(n.ctx, 100*time.Millisecond) // whatever it is, don't spin
		}
	}
}

// refresh brings the picture of links and addresses up to date.
func (n *Network) refresh() error {
	links, err := n.rtnl.links()
	if err != nil {
		return err
	}
	there := make(map[int]bool, len(links))
	for _, l := range links {
		there[l.index] = true
	}
	n.mu.Lock()
	for _, l := range links {
		n.stands(l) // all of them, before the first is used
	}
	var missing []int
	for index := range n.links {
		if !there[index] {
			missing = append(missing, index)
		}
	}
	n.mu.Unlock()
	for _, index := range missing {
		n.linkGone(index)
	}
	// Addresses first: a link's methods look at them when they start.
	if err := n.refreshAddresses(); err != nil {
		return err
	}
	for _, l := range links {
		n.linkSeen(l)
	}
	return nil
}

func (n *Network) refreshAddresses() error {
	// Only the addresses that are held now must be found: an attempt may add one
	// behind the kernel's answer.
	held := make(map[*attempt]addrKey)
	for _, a := range n.standing() {
		if p, ok := a.holds(); ok {
			held[a] = addrKey{a.nic.index, p}
		}
	}

	addrs, err := n.rtnl.addresses(0)
	if err != nil {
		return err
	}
	there := make(map[addrKey]bool, len(addrs))
	for _, a := range addrs {
		there[addrKey{a.index, a.prefix}] = true
		n.addressSeen(a, false)
	}
	n.mu.Lock()
	for k := range n.addrs {
		if !there[k] {
			delete(n.addrs, k)
		}
	}
	n.mu.Unlock()
	for a, k := range held {
		if !there[k] {
			a.lose()
		}
	}
	return nil
}

// catchUp waits until everything has been applied that the kernel had told before
// it was called: the answer to a question that is asked on the socket of the
// notifications comes behind them.
func (n *Network) catchUp(ctx context.Context) {
	question, err := (&rtnetlink.LinkMessage{Index: 1}).MarshalBinary() // lo, which is always there
	if err != nil {
		return
	}
	answered := make(chan struct{})
	n.mu.Lock()
	m, err := n.events.Send(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETLINK, Flags: netlink.Request}, Data: question,
	})
	if err == nil {
		n.answers[m.Header.Sequence] = answered
	}
	n.mu.Unlock()
	if err != nil {
		return // it is being renewed, and everything read anew
	}
	select {
	case <-answered:
	case <-ctx.Done():
	}
}

// caughtUp lets those go on that wait in catchUp: the one who has asked by that
// number, or all for 0.
func (n *Network) caughtUp(sequence uint32) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for s, answered := range n.answers {
		if s == sequence || sequence == 0 {
			close(answered)
			delete(n.answers, s)
		}
	}
}

// apply takes one notification. A malformed one is passed over.
func (n *Network) apply(m netlink.Message) {
	if m.Header.Sequence != 0 && n.events != nil && m.Header.PID == n.events.PID() {
		defer n.caughtUp(m.Header.Sequence)
	}
	// The kernel notes who asked for the change.
	own := m.Header.PID != 0 && m.Header.PID == n.rtnl.c.PID()
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		// Messages of the bridge family tell of a port, not of the link: such
		// an RTM_DELLINK means that it has left its bridge.
		if len(m.Data) == 0 || m.Data[0] != unix.AF_UNSPEC {
			return
		}
		l, err := parseLink(m.Data)
		switch {
		case err != nil:
		case m.Header.Type == unix.RTM_DELLINK:
			n.linkGone(l.index)
		default:
			n.linkSeen(l)
		}
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		a, err := parseAddress(m.Data)
		switch {
		case err != nil:
		case m.Header.Type == unix.RTM_DELADDR:
			n.addressGone(a, own)
		default:
			n.addressSeen(a, own)
		}
	}
}

// linkSeen takes the present state of a link, and starts to use it if it is
// among those asked for.
func (n *Network) linkSeen(l link) {
	n.mu.Lock()
	v, known := n.links[l.index]
	var old link
	if known {
		old = v.link
		v.update(l)
	} else {
		v = newView(l)
		n.links[l.index] = v
	}
	n.stands(l)
	used := v.nic != nil
	var ignored string
	if !used && n.host == nil {
		switch takes, why := n.selection.takes(l); {
		case takes:
			v.nic = newNIC(n, v)
			v.nic.uppers = maps.Clone(n.uppers[l.index])
			n.nicsByAge = append(n.nicsByAge, v.nic)
		case why != v.ignored:
			v.ignored = why
			if n.selection.mentions(l) {
				ignored = why
			}
		}
	}
	c := v.nic
	n.mu.Unlock()

	switch {
	case c != nil && !used:
		c.event(0, NICFound, l.mac.String(), nil)
		n.tasks.Go("following "+l.name, c.run, n.died)
	case c != nil && l.name != old.name:
		c.event(0, NICRenamed, "formerly "+old.name, nil)
	case ignored != "":
		n.event(Event{Interface: l.name, Kind: NICIgnored, Detail: ignored})
	}
	if !known || old.flags != l.flags || old.name != l.name {
		n.changed()
	}
}

// stands notes what a link stands on. n.mu must be held.
func (n *Network) stands(l link) {
	if l.lower == 0 {
		return
	}
	if n.uppers[l.lower] == nil {
		n.uppers[l.lower] = make(map[int]bool)
	}
	n.uppers[l.lower][l.index] = true
}

func (n *Network) linkGone(index int) {
	n.mu.Lock()
	delete(n.uppers, index)
	for _, on := range n.uppers {
		delete(on, index)
	}
	if v := n.links[index]; v != nil {
		v.leave()
	}
	delete(n.links, index)
	for k := range n.addrs {
		if k.index == index {
			delete(n.addrs, k)
		}
	}
	n.mu.Unlock()
	n.changed()
}

func (n *Network) addressSeen(a address, own bool) {
	k := addrKey{a.index, a.prefix}
	n.mu.Lock()
	old, known := n.addrs[k]
	n.addrs[k] = a.flags
	extended := known && old == a.flags // its lifetime was, and no more
	if v := n.links[a.index]; v != nil && !extended {
		v.touch()
	}
	n.mu.Unlock()
	if !own && !extended {
		n.changed()
	}
}

func (n *Network) addressGone(a address, own bool) {
	n.mu.Lock()
	delete(n.addrs, addrKey{a.index, a.prefix})
	if v := n.links[a.index]; v != nil {
		v.touch()
	}
	n.mu.Unlock()
	if own {
		return
	}
	for _, at := range n.standing() {
		if p, ok := at.holds(); ok && p == a.prefix && at.nic.index == a.index {
			at.lose()
		}
	}
	n.changed()
}

// standing returns the attempts that stand.
func (n *Network) standing() []*attempt {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.attempts)
}

// linkLocal6 returns the usable fe80:: address of an interface.
func (n *Network) linkLocal6(index int) (netip.Addr, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var best netip.Addr
	for k, flags := range n.addrs {
		ip := k.prefix.Addr()
		if k.index == index && ip.Is6() && ip.IsLinkLocalUnicast() && (address{flags: flags}).usable() {
			if !best.IsValid() || ip.Less(best) {
				best = ip
			}
		}
	}
	return best, best.IsValid()
}

// pause waits, no longer than ctx lasts.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
