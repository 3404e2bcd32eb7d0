//go:build linux

package earlynet

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

const (
	minMTU         = 576              // RFC 2132, section 5.1, leaves 68; nobody means less than RFC 791's 576
	maxLeaseRoutes = 64               // a reply holds no more of any use
	defaultLease   = time.Hour        // where a server forgets to say
	minLease       = 10 * time.Second // shorter ones are a mistake
	forever        = time.Duration(math.MaxInt64)
)

// A lease is what a DHCP server gives, as far as it makes sense.
type lease struct {
	prefix netip.Prefix // the address, with the length of its subnet
	server netip.Addr
	routes []leaseRoute
	mtu    uint32        // 0: not given
	life   time.Duration // or forever
	renew  time.Duration // when to ask again
	begun  time.Time     // when it was asked for
}

// A leaseRoute leads to dst: by a gateway, or directly where that is zero.
type leaseRoute struct {
	dst     netip.Prefix
	gateway netip.Addr
}

// until returns how much of the lease is left.
func (l *lease) until(now time.Time) time.Duration {
	if l.life == forever {
		return forever
	}
	return l.life - now.Sub(l.begun)
}

// via returns the gateway to an address, zero for none, by the longest prefix.
// ok is false where the lease has no route to it. An address that is its own
// gateway needs none.
func (l *lease) via(to netip.Addr) (gateway netip.Addr, ok bool) {
	gateway, ok = l.lookup(to)
	if gateway == to {
		gateway = netip.Addr{}
	}
	return gateway, ok
}

// lookup returns what the longest prefix with an address says of it.
func (l *lease) lookup(to netip.Addr) (gateway netip.Addr, ok bool) {
	bits := -1
	for _, r := range l.routes {
		if r.dst.Contains(to) && r.dst.Bits() > bits {
			gateway, bits = r.gateway, r.dst.Bits()
		}
	}
	return gateway, bits >= 0
}

// routesTo returns the routes from the lease's address to those destinations that are of its family; an error where it has
// none to one of them.
func (l *lease) routesTo(destinations []netip.Addr) ([]route, error) {
	var routes []route
	for _, d := range destinations {
		if !d.Is4() {
			continue
		}
		gateway, ok := l.via(d)
		if !ok && !d.IsLinkLocalUnicast() { // those are on every link (RFC 3927, section 2.6.2)
			return nil, &Error{Op: "find a route to " + d.String(), Method: DHCP, Err: errors.New("the lease has none")}
		}
		// The gateway may be outside of the subnet, as on Hetzner's public
		// network. The kernel need not be told that it is on the link by a
		// further route. The MTU goes with the route, so that the link's need
		// not be changed.
		routes = append(routes, route{
			dst: netip.PrefixFrom(d, 32), gateway: gateway, onLink: true,
			source: l.prefix.Addr(), metric: metricDHCP, mtu: l.mtu,
		})
	}
	return routes, nil
}

// parseReply returns the DHCP reply in a datagram's payload, or nil. It does not
// panic, whatever the parser of the options thinks of them: this may be the
// machine's first process.
func parseReply(payload []byte, mac net.HardwareAddr) (m *dhcpv4.DHCPv4) {
	defer func() {
		if recover() != nil {
			m = nil
		}
	}()
	m, err := dhcpv4.FromBytes(payload)
	if err != nil || m.OpCode != dhcpv4.OpcodeBootReply || !bytes.Equal(m.ClientHWAddr, mac) {
		return nil
	}
	if !overloaded(m, payload) {
		return nil
	}
	return m
}

// overloaded adds the options that a server has put into the fields for a file's
// and its own name, because there was no room elsewhere (RFC 2131, section 4.1;
// the order is RFC 3396's). It reports false where they are malformed.
func overloaded(m *dhcpv4.DHCPv4, payload []byte) bool {
	const name, file, cookie = 44, 108, 236 // where the fields begin, and what follows them
	var which byte
	if v := m.Options.Get(dhcpv4.OptionOptionOverload); len(v) == 1 {
		which = v[0]
	}
	return (which&1 == 0 || m.Options.FromBytes(payload[file:cookie]) == nil) &&
		(which&2 == 0 || m.Options.FromBytes(payload[name:file]) == nil)
}

// parseLease checks a DHCPOFFER or DHCPACK and takes what it gives.
func parseLease(m *dhcpv4.DHCPv4, mac net.HardwareAddr, mtu uint32) (*lease, error) {
	if m.OpCode != dhcpv4.OpcodeBootReply || !bytes.Equal(m.ClientHWAddr, mac) {
		return nil, errors.New("not for us")
	}
	addr, ok := addrOf(m.YourIPAddr)
	if !ok || !assignable(addr) {
		return nil, fmt.Errorf("address %v cannot be used", m.YourIPAddr)
	}
	server, ok := addrOf(m.ServerIdentifier())
	if !ok || !assignable(server) {
		return nil, fmt.Errorf("server %v is none", m.ServerIdentifier())
	}
	l := &lease{prefix: netip.PrefixFrom(addr, prefixLength(m)), server: server, life: m.IPAddressLeaseTime(defaultLease)}
	switch {
	case l.life >= math.MaxUint32*time.Second: // RFC 2131, section 3.3
		l.life, l.renew = forever, forever
	case l.life < minLease:
		return nil, fmt.Errorf("lease of %v is too short", l.life)
	default:
		// T1 as the server says, if it makes sense, or half of the time.
		l.renew = m.IPAddressRenewalTime(l.life / 2)
		if l.renew < time.Second || l.renew >= l.life {
			l.renew = l.life / 2
		}
	}
	if v, err := dhcpv4.GetUint16(dhcpv4.OptionInterfaceMTU, m.Options); err == nil && v >= minMTU && uint32(v) < mtu {
		l.mtu = uint32(v)
	}
	if l.prefix.Bits() < 32 {
		l.routes = append(l.routes, leaseRoute{dst: l.prefix.Masked()})
	}
	l.routes = append(l.routes, leaseRoutes(m, addr)...)
	return l, nil
}

// leaseRoutes returns the classless routes (option 121), or else a default
// route (option 3): who understands the first must ignore the second (RFC
// 3442). What is malformed is as good as absent.
func leaseRoutes(m *dhcpv4.DHCPv4, own netip.Addr) []leaseRoute {
	var routes []leaseRoute
	var classless dhcpv4.Routes
	if raw := m.Options.Get(dhcpv4.OptionClasslessStaticRoute); len(raw) > 0 && classless.FromBytes(raw) == nil {
		for _, r := range classless[:min(len(classless), maxLeaseRoutes)] {
			dst, ok := addrOf(r.Dest.IP)
			bits, _ := r.Dest.Mask.Size()
			gateway, gok := addrOf(r.Router)
			if !ok || !gok || dst.IsMulticast() || dst.IsLoopback() {
				continue
			}
			switch {
			case gateway.IsUnspecified(), gateway == own: // RFC 3442: on the link
				gateway = netip.Addr{}
			case !assignable(gateway):
				continue
			}
			routes = append(routes, leaseRoute{netip.PrefixFrom(dst, bits).Masked(), gateway})
		}
		if len(routes) > 0 {
			return routes
		}
	}
	for _, ip := range m.Router() {
		if gateway, ok := addrOf(ip); ok && assignable(gateway) && gateway != own {
			return []leaseRoute{{netip.PrefixFrom(netip.IPv4Unspecified(), 0), gateway}}
		}
	}
	return nil
}

// prefixLength returns the length of the subnet mask, 32 where there is none.
func prefixLength(m *dhcpv4.DHCPv4) int {
	mask := m.Options.Get(dhcpv4.OptionSubnetMask)
	if len(mask) != 4 {
		return 32
	}
	ones, bits := net.IPMask(mask).Size()
	if bits != 32 || ones < 1 {
		return 32 // with holes, or the whole Internet on the link
	}
	return ones
}

// assignable reports whether a host can have the address.
func assignable(a netip.Addr) bool {
	v := a.As4()
	return v[0] != 0 && v[0] < 224 && !a.IsLoopback()
}

func addrOf(ip net.IP) (netip.Addr, bool) {
	a, ok := netip.AddrFromSlice(ip)
	a = a.Unmap()
	return a, ok && a.Is4()
}

// gateways returns the routers of the lease that are not on its own subnet.
func (l *lease) gateways() []netip.Addr {
	var gs []netip.Addr
	for _, r := range l.routes {
		if r.gateway.IsValid() && !slices.Contains(gs, r.gateway) {
			gs = append(gs, r.gateway)
		}
	}
	return gs
}

// nakReason is what the server says, made fit to print.
func nakReason(m *dhcpv4.DHCPv4) error {
	if s := m.Message(); s != "" {
		return fmt.Errorf("%w: %q", errNak, s[:min(len(s), 80)])
	}
	return errNak
}

func leaseTime(l *lease) string {
	if l.life == forever {
		return "ever"
	}
	return l.life.String()
}
