package cloud

import (
	"encoding/binary"
	"math"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

const (
	dhcpServerPort = 67
	dhcpClientPort = 68
)

// Route is one route of option 121: what is behind which gateway. An unspecified gateway means on the link.
type Route struct {
	Destination netip.Prefix
	Gateway     netip.Addr
}

// DHCP is one DHCP server of a network. The zero value is a server without a fault, with what the NIC's shape hands
// out; each field changes one thing.
type DHCP struct {
	// ID is the server's identifier; zero: the gateway.
	ID netip.Addr
	// Address is the lease, with the mask that goes with it; zero: the server's address as a /32.
	Address netip.Prefix
	// Router is option 3; zero: the gateway for Public, none for Private.
	Router netip.Addr
	// Routes are option 121; nil: those of the shape. Empty, not nil: no such option.
	Routes []Route
	// Lease is the lease's length; zero: 24 h.
	Lease time.Duration
	// Extra are raw options by code, which replace those that the server would send; a nil value takes one away.
	// They are sent whether or not they were asked for.
	Extra map[uint8][]byte

	// After keeps the server silent until that time on the schedule's clock.
	After time.Duration
	// Delay is how long the server takes for each answer.
	Delay time.Duration
	// Silent never answers.
	Silent bool
	// NAK refuses every request, also of what was just offered.
	NAK bool
	// OfferOnly offers and never acknowledges.
	OfferOnly bool
	// Mangle, when set, has the last word on the message as it goes out, for malformed and cut-off ones. nil from it
	// sends nothing.
	Mangle func(message []byte) []byte
	// OwnMAC sends from a MAC that belongs to the identifier, so that a server of many identifiers is many hosts.
	OwnMAC bool
	// Answers, when set, are sent instead of whatever the fields above would have the server say.
	Answers func(m *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4
}

// Exchange is one DHCP message that reached the servers of a NIC.
type Exchange struct {
	// At is when it came, on the schedule's clock.
	At time.Duration
	// NIC is the name of the NIC.
	NIC string
	// Source is the address that it was sent from; unspecified as a rule.
	Source netip.Addr
	// Message is the message.
	Message *dhcpv4.DHCPv4
}

// nameservers are Hetzner's.
var nameservers = []net.IP{{185, 12, 64, 1}, {185, 12, 64, 2}}

const leaseTime = 24 * time.Hour

// dhcpServers fills the servers of a NIC in.
func (n *nic) dhcpServers(servers []DHCP) []DHCP {
	if n.desc.Shape == Dead || servers == nil && n.desc.Shape == IPv6Only {
		return nil
	}
	if servers == nil {
		servers = []DHCP{{}}
	}
	servers = slices.Clone(servers)
	for i := range servers {
		s := &servers[i]
		gateway := n.gateway()
		if !gateway.IsValid() {
			gateway = Gateway // a server that was asked for on a network without IPv4
		}
		if !s.ID.IsValid() {
			s.ID = gateway
		}
		if !s.Address.IsValid() {
			addr := n.cloud.cfg.Server.publicIPv4()
			if n.desc.Shape == Private {
				addr = n.network.IP
			}
			s.Address = netip.PrefixFrom(addr, 32)
		}
		if !s.Router.IsValid() && n.desc.Shape != Private {
			s.Router = gateway
		}
		if s.Routes == nil {
			s.Routes = n.routes(gateway)
		}
		if s.Lease == 0 {
			s.Lease = leaseTime
		}
	}
	return servers
}

// routes are the shape's: the gateway is outside the /32, so it comes first as a route on the link.
func (n *nic) routes(gateway netip.Addr) []Route {
	onLink := Route{netip.PrefixFrom(gateway, 32), netip.IPv4Unspecified()}
	if n.desc.Shape != Private {
		return []Route{onLink, {netip.PrefixFrom(netip.IPv4Unspecified(), 0), gateway}}
	}
	return []Route{onLink, {n.network.Network, gateway}, {netip.PrefixFrom(Service, 32), gateway}}
}

// dhcp lets every server answer a message.
func (n *nic) dhcp(from net.HardwareAddr, ip header.IPv4, udp header.UDP) {
	length := int(udp.Length())
	if length < header.UDPMinimumSize || length > len(udp) {
		return
	}
	udp = udp[:length]
	body := udp.Payload()
	src, dst := ip.SourceAddress(), ip.DestinationAddress()
	if udp.Checksum() != 0 && !udp.IsChecksumValid(src, dst, checksum.Checksum(body, 0)) {
		return
	}
	msg, err := dhcpv4.FromBytes(slices.Clone(body))
	if err != nil || msg.OpCode != dhcpv4.OpcodeBootRequest {
		return
	}
	n.learn(fromAddress(src), from)
	n.mu.Lock()
	if n.node == nil {
		n.node = slices.Clone(from)
	}
	n.mu.Unlock()
	n.cloud.recordExchange(Exchange{NIC: n.desc.Name, Source: fromAddress(src), Message: msg})
	now := n.cloud.Elapsed()
	for i, s := range n.servers {
		if now < s.After {
			continue
		}
		replies := []*dhcpv4.DHCPv4{nil}
		if s.Answers != nil {
			replies = s.Answers(msg)
		} else {
			replies[0] = s.reply(msg, n.desc.MTU)
		}
		for _, reply := range replies {
			switch {
			case reply == nil:
			case s.Delay > 0:
				spawn(&n.running, func() {
					select {
					case <-time.After(s.Delay):
						n.sendDHCP(i, s, reply)
					case <-n.cloud.done:
					}
				})
			default:
				n.sendDHCP(i, s, reply)
			}
		}
	}
}

// reply is the server's answer, nil for none (RFC 2131, section 4.3).
func (s DHCP) reply(msg *dhcpv4.DHCPv4, mtu int) *dhcpv4.DHCPv4 {
	if s.Silent {
		return nil
	}
	switch msg.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		return s.answer(msg, dhcpv4.MessageTypeOffer, mtu)
	case dhcpv4.MessageTypeInform:
		reply := s.answer(msg, dhcpv4.MessageTypeAck, mtu)
		if reply != nil { // section 4.3.5: no address and no lease time
			reply.YourIPAddr = net.IPv4zero
			reply.Options.Del(dhcpv4.OptionIPAddressLeaseTime)
		}
		return reply
	case dhcpv4.MessageTypeRequest:
	default:
		return nil
	}
	// Section 4.3.2: selecting has the identifier, init-reboot the requested address, renewing and rebinding ciaddr.
	wanted := msg.RequestedIPAddress()
	if wanted == nil {
		wanted = msg.ClientIPAddr
	}
	if id := msg.ServerIdentifier(); id != nil && !id.Equal(s.ID.AsSlice()) {
		return nil // another server was chosen
	}
	if s.OfferOnly {
		return nil
	}
	if s.NAK || !wanted.Equal(s.Address.Addr().AsSlice()) {
		return s.answer(msg, dhcpv4.MessageTypeNak, mtu)
	}
	return s.answer(msg, dhcpv4.MessageTypeAck, mtu)
}

func (s DHCP) answer(msg *dhcpv4.DHCPv4, kind dhcpv4.MessageType, mtu int) *dhcpv4.DHCPv4 {
	reply, err := dhcpv4.NewReplyFromRequest(msg,
		dhcpv4.WithMessageType(kind),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(s.ID.AsSlice())),
	)
	if err != nil {
		return nil
	}
	if kind == dhcpv4.MessageTypeNak {
		reply.ClientIPAddr = net.IPv4zero
		return reply
	}
	reply.YourIPAddr = s.Address.Addr().AsSlice()
	if kind == dhcpv4.MessageTypeAck {
		reply.ClientIPAddr = msg.ClientIPAddr
	}
	lease := uint32(min(s.Lease/time.Second, math.MaxUint32))
	reply.UpdateOption(dhcpv4.OptIPAddressLeaseTime(time.Duration(lease) * time.Second))

	// Everything else only on request, so that a client that forgets to ask is found out.
	asked := func(o dhcpv4.OptionCode) bool {
		list := msg.ParameterRequestList()
		return len(list) == 0 || slices.ContainsFunc(list, func(c dhcpv4.OptionCode) bool { return c.Code() == o.Code() })
	}
	add := func(o dhcpv4.Option) {
		if asked(o.Code) {
			reply.UpdateOption(o)
		}
	}
	add(dhcpv4.OptSubnetMask(net.CIDRMask(s.Address.Bits(), 32)))
	if s.Router.IsValid() {
		add(dhcpv4.OptRouter(s.Router.AsSlice()))
	}
	if len(s.Routes) > 0 {
		routes := make([]*dhcpv4.Route, len(s.Routes))
		for i, r := range s.Routes {
			routes[i] = &dhcpv4.Route{
				Dest:   &net.IPNet{IP: r.Destination.Addr().AsSlice(), Mask: net.CIDRMask(r.Destination.Bits(), 32)},
				Router: r.Gateway.AsSlice(),
			}
		}
		add(dhcpv4.OptClasslessStaticRoute(routes...))
	}
	add(dhcpv4.OptDNS(nameservers...))
	add(dhcpv4.OptGeneric(dhcpv4.OptionInterfaceMTU, binary.BigEndian.AppendUint16(nil, uint16(mtu))))
	for code, value := range s.Extra {
		if value == nil {
			reply.Options.Del(dhcpv4.GenericOptionCode(code))
			continue
		}
		reply.UpdateOption(dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(code), value))
	}
	return reply
}

// sendDHCP sends a reply where section 4.1 of RFC 2131 wants it.
func (n *nic) sendDHCP(server int, s DHCP, reply *dhcpv4.DHCPv4) {
	body := reply.ToBytes()
	if s.Mangle != nil {
		if body = s.Mangle(body); body == nil {
			return
		}
	}
	mac := reply.ClientHWAddr
	to := netip.AddrFrom4([4]byte{255, 255, 255, 255})
	ciaddr, _ := netip.AddrFromSlice(reply.ClientIPAddr.To4())
	yiaddr, _ := netip.AddrFromSlice(reply.YourIPAddr.To4())
	nak := reply.MessageType() == dhcpv4.MessageTypeNak
	switch {
	case !nak && ciaddr.IsValid() && !ciaddr.IsUnspecified():
		to = ciaddr
	case !nak && !reply.IsBroadcast() && yiaddr.IsValid() && !yiaddr.IsUnspecified() && len(mac) == 6:
		to = yiaddr
	default:
		mac = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	}
	if len(mac) != 6 {
		return // a client whose hardware is no Ethernet
	}
	id, _ := netip.AddrFromSlice(reply.ServerIdentifier().To4())
	if !id.IsValid() {
		id = s.ID
	}
	src, dst := toAddress(id), toAddress(to)
	udp := header.UDP(make([]byte, header.UDPMinimumSize+len(body)))
	udp.Encode(&header.UDPFields{SrcPort: dhcpServerPort, DstPort: dhcpClientPort, Length: uint16(len(udp))})
	copy(udp[header.UDPMinimumSize:], body)
	sum := header.PseudoHeaderChecksum(header.UDPProtocolNumber, src, dst, uint16(len(udp)))
	sum = checksum.Checksum(body, sum)
	udp.SetChecksum(^udp.CalculateChecksum(sum))

	from := n.mac
	switch {
	case s.OwnMAC:
		from = strangerMAC(binary.BigEndian.Uint32(id.AsSlice()))
	case s.Answers != nil:
		from = strangerMAC(uint32(server))
	case server > 0:
		from = slices.Clone(n.mac)
		from[4] += byte(server)
	}
	n.sendFrame(from, mac, header.IPv4ProtocolNumber,
		n.ipv4Packet(src, dst, header.UDPProtocolNumber, udp))
}
