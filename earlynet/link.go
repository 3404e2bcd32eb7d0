//go:build linux

package earlynet

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"path"
	"slices"
	"strings"

	"github.com/jsimonetti/rtnetlink/v2"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A link is what this package wants to know about an interface.
type link struct {
	index    int
	name     string
	altNames []string
	alias    string
	mac      net.HardwareAddr
	arphrd   uint16 // the hardware type, ARPHRD_*
	kind     string // "veth", "bridge", …; empty for hardware
	master   int    // the bridge or bond that it is a port of
	lower    int    // the link that it stands on: of a VLAN, a macvlan, …
	flags    uint32
	mtu      uint32
}

// up reports whether somebody has set the link up.
func (l link) up() bool { return l.flags&unix.IFF_UP != 0 }

// carries reports whether frames can be sent. IFF_RUNNING would say so up to a
// second later: the kernel delays it (net/core/link_watch.c).
func (l link) carries() bool { return l.up() && l.flags&unix.IFF_LOWER_UP != 0 }

// parseLink reads an RTM_NEWLINK or RTM_DELLINK message.
func parseLink(data []byte) (link, error) {
	var m rtnetlink.LinkMessage
	err := m.UnmarshalBinary(data)
	if err != nil {
		return link{}, err
	}
	if m.Attributes == nil || m.Attributes.Name == "" || m.Index == 0 {
		return link{}, errors.New("link without a name or an index")
	}
	l := link{
		index: int(m.Index), name: m.Attributes.Name, altNames: m.Attributes.AltNames,
		mac: slices.Clone(m.Attributes.Address), arphrd: m.Type, flags: m.Flags, mtu: m.Attributes.MTU,
	}
	if m.Attributes.Info != nil {
		l.kind = m.Attributes.Info.Kind
	}
	if m.Attributes.Alias != nil {
		l.alias = strings.TrimRight(*m.Attributes.Alias, "\x00")
	}
	if m.Attributes.Master != nil {
		l.master = int(*m.Attributes.Master)
	}
	l.lower, err = standsOn(data, l.kind)
	return l, err
}

// standsOn returns the index of the link that one of that kind stands on, 0 for
// none in this network namespace.
func standsOn(data []byte, kind string) (int, error) {
	switch kind {
	case "vlan", "macvlan", "macvtap", "ipvlan", "ipvtap", "macsec", "dsa":
	default:
		return 0, nil // of a veth, it is the other end
	}
	ad, err := netlink.NewAttributeDecoder(data[unix.SizeofIfInfomsg:])
	if err != nil {
		return 0, err
	}
	var lower int
	var abroad bool
	for ad.Next() {
		switch ad.Type() {
		case unix.IFLA_LINK:
			lower = int(ad.Uint32())
		case unix.IFLA_LINK_NETNSID:
			abroad = true
		}
	}
	if abroad {
		lower = 0
	}
	return lower, ad.Err()
}

// links returns all interfaces.
func (r rtnl) links() ([]link, error) {
	msgs, err := r.dump(unix.RTM_GETLINK, &rtnetlink.LinkMessage{})
	if err != nil {
		return nil, err
	}
	var ls []link
	for _, m := range msgs {
		// One odd interface must not hide the others.
		if l, err := parseLink(m.Data); err == nil {
			ls = append(ls, l)
		}
	}
	return ls, nil
}

// setUp sets a link up or down.
func (r rtnl) setUp(index int, up bool) error {
	m := &rtnetlink.LinkMessage{Index: uint32(index), Change: unix.IFF_UP}
	if up {
		m.Flags = unix.IFF_UP
	}
	return r.do(unix.RTM_NEWLINK, 0, m)
}

// setMTU sets the largest packet that a link carries.
func (r rtnl) setMTU(index int, mtu uint32) error {
	return r.do(unix.RTM_NEWLINK, 0, &rtnetlink.LinkMessage{
		Index: uint32(index), Attributes: &rtnetlink.LinkAttributes{MTU: mtu},
	})
}

// permitted asks the kernel whether links may be configured, without
// configuring any: it checks the capability before it finds that there is no
// interface 0 with that address (rtnetlink_rcv_msg, net/core/rtnetlink.c).
// A raw socket needs the same capability as a packet socket, and is closed
// without waiting for a grace period.
func (r rtnl) permitted() error {
	err := r.do(unix.RTM_DELADDR, 0, &rtnetlink.AddressMessage{Family: unix.AF_INET})
	if errors.Is(err, unix.EPERM) {
		return permission(err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		return permission(err)
	}
	return unix.Close(fd)
}

// A selection decides which links are used.
type selection []string

// parseSelection checks the patterns of Config.NICs.
func parseSelection(nics []string) (selection, error) {
	for _, p := range nics {
		if p == "" {
			return nil, errors.New("an empty NIC name selects nothing")
		}
		if _, err := path.Match(p, ""); err != nil {
			return nil, fmt.Errorf("NIC %q: %w", p, err)
		}
	}
	return nics, nil
}

// takes reports whether a link is used, and if not, why: "eth0 is …".
func (s selection) takes(l link) (ok bool, why string) {
	if l.arphrd == unix.ARPHRD_LOOPBACK {
		return false, "the loopback interface"
	}
	exact := s.names(l)
	glob := len(s) == 0 || slices.ContainsFunc(s, func(p string) bool { return isGlob(p) && l.matches(p) })
	switch {
	case !exact && !glob:
		return false, "not among the NICs asked for (" + strings.Join(s, ", ") + ")"
	case l.arphrd != unix.ARPHRD_ETHER || len(l.mac) != 6:
		return false, "not an Ethernet interface"
	case exact:
		return true, ""
	case l.kind != "":
		return false, fmt.Sprintf("a %s, not a physical NIC; name it exactly to use it", l.kind)
	case l.master != 0:
		return false, fmt.Sprintf("a port of interface %d; name it exactly to use it", l.master)
	}
	return true, ""
}

// names reports whether the link was asked for by an exact name.
func (s selection) names(l link) bool {
	return slices.ContainsFunc(s, func(p string) bool { return !isGlob(p) && l.is(p) })
}

// mentions reports whether it is worth a word that the link is left: one that is always there only where it was asked for.
func (s selection) mentions(l link) bool { return l.arphrd != unix.ARPHRD_LOOPBACK || s.names(l) }

// isGlob reports whether a pattern is more than a name.
func isGlob(p string) bool { return strings.ContainsAny(p, `*?[\`) }

// is reports whether p names the link: by name or hardware address.
func (l link) is(p string) bool {
	if p == l.name || slices.Contains(l.altNames, p) {
		return true
	}
	mac, err := net.ParseMAC(p)
	return err == nil && bytes.Equal(mac, l.mac)
}

// matches reports whether one of the link's names matches a glob.
func (l link) matches(glob string) bool {
	return slices.ContainsFunc(append([]string{l.name}, l.altNames...), func(n string) bool {
		ok, _ := path.Match(glob, n)
		return ok
	})
}
