//go:build linux

package earlynet

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/joined"
)

// explain says what can be seen on this machine that explains why nobody answers over the paths that are there: at most one
// reason for each, the most certain first. It asks the kernel and sends nothing.
func (n *Network) explain() []*Error {
	var all []*Error
	for _, a := range n.standing() {
		a.mu.Lock()
		p := a.path
		a.mu.Unlock()
		if p == nil || p.Err() != nil || !p.Source.Is4() || !p.dialled.Load() || p.answered.Load() {
			continue
		}
		for _, d := range n.cfg.Destinations {
			if why := n.whySilent(a.nic, p, d); d.Is4() && why != nil {
				all = append(all, &Error{Op: "reach " + d.String(), Interface: a.nic.name(), Method: p.Method, Err: why})
				break
			}
		}
	}
	return all
}

// whySilent is nil where nothing can be seen.
func (n *Network) whySilent(c *nic, p *Path, to netip.Addr) error {
	if dev, ok := n.holder(to); ok {
		return fmt.Errorf("it is an address of this machine, on %s: nothing that is sent there leaves (ip address del %v/32 dev %s)", dev, to, dev)
	}
	hop := to
	if p.Gateway.IsValid() {
		hop = p.Gateway
		if g, err := n.rtnl.gatewayTo(c.index, p.Source, to); err == nil && g != hop {
			return fmt.Errorf("the system's routing rules do not lead there by the lease's router %v (see: ip rule; ip route get %v from %v oif %s)", hop, to, p.Source, c.name())
		}
	}
	next, err := n.rtnl.neighbour(c.index, hop)
	mac := net.HardwareAddr(next.mac[:])
	switch {
	case err != nil || next.state == 0:
		return nil //nolint:nilerr // nothing is known of it, so nothing is said
	case next.state&(unix.NUD_FAILED|unix.NUD_INCOMPLETE) != 0:
		return silentError(fmt.Sprintf("%v does not answer ARP", hop))
	case c.strict():
		return fmt.Errorf("%v answers ARP and not TCP; reverse path filtering is strict and could not be changed (sysctl -w net.ipv4.conf.%s.rp_filter=2)", hop, c.name())
	default:
		filters := ""
		if tables := packetFilters(c.net.proc); len(tables) > 0 {
			filters = "; this machine has packet filters: " + strings.Join(tables, ", ")
		}
		return silentError(fmt.Sprintf("%v answers ARP (%v) and not TCP%s", hop, mac, filters))
	}
}

// holder returns the link that has an address.
func (n *Network) holder(a netip.Addr) (dev string, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for k := range n.addrs {
		if k.prefix.Addr() == a {
			if v := n.links[k.index]; v != nil {
				dev = v.name
			}
			return dev, true
		}
	}
	return "", false
}

// strict reports whether the kernel drops what comes by another link than it would send to.
func (c *nic) strict() bool {
	own, err := os.ReadFile(c.conf("ipv4", c.name(), "rp_filter"))
	all, aerr := os.ReadFile(c.conf("ipv4", "all", "rp_filter"))
	return err == nil && aerr == nil && max(strings.TrimSpace(string(own)), strings.TrimSpace(string(all))) == strictFilter
}

// gatewayTo asks the kernel for the router by which it sends over a link, as for a socket that is bound to it. A zero
// address is none: without a route the kernel takes everything to be on the link that a socket is bound to.
func (r rtnl) gatewayTo(index int, from, to netip.Addr) (gateway netip.Addr, err error) {
	ae := netlink.NewAttributeEncoder()
	ae.Bytes(unix.RTA_DST, to.AsSlice())
	ae.Bytes(unix.RTA_SRC, from.AsSlice())
	ae.Uint32(unix.RTA_OIF, uint32(index))
	b, err := ae.Encode()
	if err != nil {
		return gateway, err
	}
	question := make(raw, unix.SizeofRtMsg, unix.SizeofRtMsg+len(b))
	question[0], question[1], question[2] = unix.AF_INET, 32, 32
	msgs, err := r.get(unix.RTM_GETROUTE, append(question, b...))
	if err != nil || len(msgs) == 0 {
		return gateway, joined.Errors(err, unix.ENODATA)
	}
	rt, err := parseRoute(msgs[0].Data)
	return rt.gateway, err
}

// packetFilters names the tables of nftables and of the older iptables in this network namespace.
func packetFilters(proc string) (names []string) {
	if old, err := os.ReadFile(filepath.Join(proc, "thread-self/net/ip_tables_names")); err == nil {
		for name := range strings.Lines(string(old)) {
			names = append(names, "iptables "+strings.TrimSpace(name))
		}
	}
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return names
	}
	defer func() { _ = c.Close() }()
	tables, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETTABLE, Flags: netlink.Request | netlink.Dump},
		Data:   make([]byte, 4), // struct nfgenmsg: of every family
	})
	if err != nil {
		return names
	}
	families := map[byte]string{unix.NFPROTO_INET: "inet", unix.NFPROTO_IPV4: "ip", unix.NFPROTO_NETDEV: "netdev", unix.NFPROTO_ARP: "arp"}
	for _, m := range tables {
		family, ok := families[append(m.Data, 0)[0]]
		if !ok || len(m.Data) < 4 {
			continue // of IPv6, or of a bridge
		}
		ad, err := netlink.NewAttributeDecoder(m.Data[4:])
		if err != nil {
			continue
		}
		for ad.Next() {
			if ad.Type() == unix.NFTA_TABLE_NAME {
				names = append(names, fmt.Sprintf("nftables %s %s", family, ad.String()))
			}
		}
	}
	return names
}

// maxSeen is how many NICs an error names.
const maxSeen = 6

// A noNICError is an [ErrNoNIC] that says what was there instead, and why it was left.
type noNICError struct{ seen []string }

func (e *noNICError) Error() string {
	if len(e.seen) == 0 {
		return ErrNoNIC.Error()
	}
	more := ""
	if n := len(e.seen) - maxSeen; n > 0 {
		more = fmt.Sprintf("; and %d more", n)
	}
	return ErrNoNIC.Error() + ": " + strings.Join(e.seen[:min(len(e.seen), maxSeen)], "; ") + more
}

func (e *noNICError) Unwrap() error { return ErrNoNIC }

// lacking is what was told of there being no NIC.
type lacking struct {
	why   string // the last time
	times int    // that this was another one
}

// missing tells that there is no NIC, where that was not told yet.
func (n *Network) missing() {
	n.mu.Lock()
	err := n.noNIC()
	n.mu.Unlock()
	switch {
	case err == nil:
		n.lacks = lacking{}
	case err.Error() != n.lacks.why:
		n.lacks.why = err.Error()
		if n.lacks.times++; seldom(n.lacks.times) {
			n.event(Event{Kind: NoNIC, Err: err.Err})
		}
	}
}

// noNIC says which links there are and why none of them is used; nil where one is. n.mu must be held.
func (n *Network) noNIC() *Error {
	if n.host != nil {
		return nil
	}
	for _, v := range n.links {
		if v.nic != nil {
			return nil
		}
	}
	e := &noNICError{}
	for _, v := range n.links {
		if n.selection.mentions(v.link) {
			e.seen = append(e.seen, v.name+" is "+v.ignored)
		}
	}
	slices.Sort(e.seen)
	return &Error{Op: "find a NIC", Err: e}
}
