//go:build linux

package earlynet

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"

	"github.com/jsimonetti/rtnetlink/v2"
	"golang.org/x/sys/unix"
)

// Metrics of our routes: high, so that a route of anybody else to the same
// destination is preferred. The kernel tells routes to one destination apart
// by their metric alone (fib_table_insert, net/ipv4/fib_trie.c), so that each
// interface needs one of its own: its index is added.
const (
	metricDHCP      = 0x6e00_0000 // preferred where a socket may use both
	metricLinkLocal = 0x6e80_0000
	metricStep      = 0x0010_0000 // to the next metric, where one is taken
	metricTries     = 4
)

// A route is one that this package lays, or finds.
type route struct {
	index    int
	dst      netip.Prefix
	gateway  netip.Addr // zero: dst is on the link
	source   netip.Addr // the preferred source; the kernel removes the route with it
	onLink   bool       // the gateway is on the link whatever the addresses say
	metric   uint32
	protocol uint8
	mtu      uint32 // 0: the link's
	raw      []byte // of one that was found: the whole message
}

func (rt route) message() *rtnetlink.RouteMessage {
	m := &rtnetlink.RouteMessage{
		Family: unix.AF_INET, DstLength: uint8(rt.dst.Bits()),
		Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNICAST, Protocol: rt.protocol,
		Scope: unix.RT_SCOPE_LINK,
		Attributes: rtnetlink.RouteAttributes{
			Dst: rt.dst.Addr().AsSlice(), OutIface: uint32(rt.index), Priority: rt.metric,
		},
	}
	if rt.source.IsValid() {
		m.Attributes.Src = rt.source.AsSlice()
	}
	if rt.gateway.IsValid() {
		m.Scope = unix.RT_SCOPE_UNIVERSE
		m.Attributes.Gateway = rt.gateway.AsSlice()
		if rt.onLink {
			m.Flags = unix.RTNH_F_ONLINK
		}
	}
	if rt.mtu != 0 {
		m.Attributes.Metrics = &rtnetlink.RouteMetrics{MTU: rt.mtu}
	}
	return m
}

// addRoute lays a route that nobody has laid and returns it with the metric
// that it was given: where rt's is taken the next one is tried.
func (r rtnl) addRoute(rt route) (route, error) {
	var err error
	for range metricTries {
		err = r.do(unix.RTM_NEWROUTE, createExcl, rt.message())
		if !errors.Is(err, unix.EEXIST) {
			return rt, err
		}
		rt.metric += metricStep
	}
	return rt, err
}

// deleteRoute removes exactly that route: the kernel compares destination,
// metric, protocol, interface, gateway and preferred source.
func (r rtnl) deleteRoute(rt route) error {
	return r.do(unix.RTM_DELROUTE, 0, rt.message())
}

// foreignRoutes returns the routes over an interface that neither the kernel
// itself nor this package has laid.
func (r rtnl) foreignRoutes(index int, family uint8) ([]route, error) {
	rts, err := r.routes(index, family)
	return slices.DeleteFunc(rts, func(rt route) bool {
		switch rt.protocol {
		case unix.RTPROT_KERNEL, unix.RTPROT_RA, unix.RTPROT_REDIRECT, rtprotNametag:
			return true
		}
		return false
	}), err
}

// routes returns the routes over an interface.
func (r rtnl) routes(index int, family uint8) ([]route, error) {
	msgs, err := r.dump(unix.RTM_GETROUTE, &rtnetlink.RouteMessage{
		Family: family, Attributes: rtnetlink.RouteAttributes{OutIface: uint32(index)},
	})
	if errors.Is(err, unix.EOPNOTSUPP) && family == unix.AF_INET6 {
		return nil, nil // a kernel without IPv6
	}
	if err != nil {
		return nil, err
	}
	var rts []route
	for _, m := range msgs {
		rt, err := parseRoute(m.Data)
		if err != nil || rt.index != index {
			continue
		}
		rt.raw = m.Data
		rts = append(rts, rt)
	}
	return rts, nil
}

// restoreRoute lays a route again that foreignRoutes returned.
func (r rtnl) restoreRoute(rt route) error {
	if len(rt.raw) < unix.SizeofRtMsg {
		return unix.EINVAL
	}
	b := slices.Clone(rt.raw)
	// Of the flags, most tell of a state and are refused in a request.
	flags := binary.NativeEndian.Uint32(b[8:]) & (unix.RTNH_F_ONLINK | unix.RTNH_F_PERVASIVE)
	binary.NativeEndian.PutUint32(b[8:], flags)
	return r.do(unix.RTM_NEWROUTE, createExcl, raw(b))
}

// parseRoute reads as much of an RTM_NEWROUTE message as is needed to say
// whose it is.
func parseRoute(data []byte) (route, error) {
	var m rtnetlink.RouteMessage
	if err := m.UnmarshalBinary(data); err != nil {
		return route{}, err
	}
	rt := route{index: int(m.Attributes.OutIface), metric: m.Attributes.Priority, protocol: m.Protocol}
	if m.Attributes.OutIface == 0 && len(m.Attributes.Multipath) > 0 {
		rt.index = int(m.Attributes.Multipath[0].Hop.IfIndex)
	}
	dst := netip.IPv4Unspecified()
	if m.Family == unix.AF_INET6 {
		dst = netip.IPv6Unspecified()
	}
	if a, ok := netip.AddrFromSlice(m.Attributes.Dst); ok {
		dst = a
	}
	rt.dst = netip.PrefixFrom(dst, int(m.DstLength))
	rt.gateway, _ = netip.AddrFromSlice(m.Attributes.Gateway)
	rt.source, _ = netip.AddrFromSlice(m.Attributes.Src)
	return rt, nil
}
