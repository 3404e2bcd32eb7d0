package cloud

import (
	"net"
	"net/netip"
	"slices"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// arp answers a request for the gateway, for the service where it is on the link, and for neighbours.
func (n *nic) arp(packet []byte) {
	req := header.ARP(packet)
	if !req.IsValid() {
		return
	}
	sender, _ := netip.AddrFromSlice(req.ProtocolAddressSender())
	target, _ := netip.AddrFromSlice(req.ProtocolAddressTarget())
	n.learn(sender, req.HardwareAddressSender())
	if req.Op() != header.ARPRequest {
		return
	}
	mac, ok := n.owner(target)
	if !ok {
		return
	}
	reply := header.ARP(make([]byte, header.ARPSize))
	reply.SetIPv4OverEthernet()
	reply.SetOp(header.ARPReply)
	copy(reply.HardwareAddressSender(), mac)
	copy(reply.ProtocolAddressSender(), target.AsSlice())
	copy(reply.HardwareAddressTarget(), req.HardwareAddressSender())
	copy(reply.ProtocolAddressTarget(), req.ProtocolAddressSender())
	n.sendFrame(mac, req.HardwareAddressSender(), header.ARPProtocolNumber, reply)
}

// owner says which MAC answers for an IPv4 address on this link.
func (n *nic) owner(target netip.Addr) (net.HardwareAddr, bool) {
	switch {
	case target == n.gateway():
		return n.mac, true
	case target == Service && n.desc.Shape != Private:
		return n.mac, n.cloud.behaviour().Reach != Vanished
	}
	if i := slices.Index(n.desc.Neighbours, target); i >= 0 {
		return net.HardwareAddr{0x02, 0x00, 0x00, 0x6e, byte(n.index), byte(i)}, true
	}
	return nil, false
}

// solicited answers a neighbour solicitation for the service (RFC 4861, section 7.2.4) and says whether the packet was
// a solicitation at all; the stack need not see those.
func (n *nic) solicited(from net.HardwareAddr, packet []byte) bool {
	ip := header.IPv6(packet)
	icmp := header.ICMPv6(ip.Payload())
	if ip.NextHeader() != uint8(header.ICMPv6ProtocolNumber) || len(icmp) < header.ICMPv6NeighborSolicitMinimumSize ||
		icmp.Type() != header.ICMPv6NeighborSolicit {
		return false
	}
	src := ip.SourceAddress()
	n.learn(fromAddress(src), from)
	target := header.NDPNeighborSolicit(icmp.MessageBody()).TargetAddress()
	if !n.cloud.cfg.IPv6 || n.desc.Shape == Private || fromAddress(target) != ServiceIPv6 ||
		n.cloud.behaviour().Reach == Vanished || fromAddress(src).IsUnspecified() {
		return true
	}

	options := header.NDPOptionsSerializer{header.NDPTargetLinkLayerAddressOption(n.mac)}
	body := header.ICMPv6NeighborAdvertMinimumSize + options.Length()
	reply := header.IPv6(make([]byte, header.IPv6MinimumSize+body))
	reply.Encode(&header.IPv6Fields{
		PayloadLength: uint16(body), TransportProtocol: header.ICMPv6ProtocolNumber,
		HopLimit: header.NDPHopLimit, SrcAddr: target, DstAddr: src,
	})
	advert := header.ICMPv6(reply.Payload())
	advert.SetType(header.ICMPv6NeighborAdvert)
	na := header.NDPNeighborAdvert(advert.MessageBody())
	na.SetTargetAddress(target)
	na.SetSolicitedFlag(true)
	na.SetOverrideFlag(true)
	na.Options().Serialize(options)
	advert.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: advert, Src: target, Dst: src}))
	n.sendFrame(n.mac, from, header.IPv6ProtocolNumber, reply)
	return true
}

// refuse answers a TCP segment with a reset, as a host without the service does (RFC 9293, section 3.10.7.1), and says
// whether the packet was TCP.
func (n *nic) refuse(packet []byte) bool {
	var (
		proto    tcpip.NetworkProtocolNumber
		src, dst tcpip.Address
		payload  []byte
	)
	switch packet[0] >> 4 {
	case 4:
		ip := header.IPv4(packet)
		if ip.TransportProtocol() != header.TCPProtocolNumber {
			return false
		}
		proto, src, dst, payload = header.IPv4ProtocolNumber, ip.SourceAddress(), ip.DestinationAddress(), ip.Payload()
	default:
		ip := header.IPv6(packet)
		if ip.NextHeader() != uint8(header.TCPProtocolNumber) {
			return false
		}
		proto, src, dst, payload = header.IPv6ProtocolNumber, ip.SourceAddress(), ip.DestinationAddress(), ip.Payload()
	}
	seg := header.TCP(payload)
	if len(seg) < header.TCPMinimumSize || int(seg.DataOffset()) < header.TCPMinimumSize || int(seg.DataOffset()) > len(seg) {
		return true
	}
	body := seg.Payload()
	if !seg.IsChecksumValid(src, dst, checksum.Checksum(body, 0), uint16(len(body))) || seg.Flags().Contains(header.TCPFlagRst) {
		return true
	}
	fields := header.TCPFields{
		SrcPort: seg.DestinationPort(), DstPort: seg.SourcePort(),
		DataOffset: header.TCPMinimumSize, Flags: header.TCPFlagRst,
	}
	if seg.Flags().Contains(header.TCPFlagAck) {
		fields.SeqNum = seg.AckNumber()
	} else {
		fields.Flags |= header.TCPFlagAck
		fields.AckNum = seg.SequenceNumber() + uint32(len(body))
		if seg.Flags().Contains(header.TCPFlagSyn) {
			fields.AckNum++
		}
		if seg.Flags().Contains(header.TCPFlagFin) {
			fields.AckNum++
		}
	}
	rst := header.TCP(make([]byte, header.TCPMinimumSize))
	rst.Encode(&fields)
	pseudo := header.PseudoHeaderChecksum(header.TCPProtocolNumber, dst, src, header.TCPMinimumSize)
	rst.SetChecksum(^rst.CalculateChecksum(pseudo))

	if proto == header.IPv4ProtocolNumber {
		n.sendPacket(proto, n.ipv4Packet(dst, src, header.TCPProtocolNumber, rst))
		return true
	}
	reply := header.IPv6(make([]byte, header.IPv6MinimumSize+len(rst)))
	reply.Encode(&header.IPv6Fields{
		PayloadLength: uint16(len(rst)), TransportProtocol: header.TCPProtocolNumber, HopLimit: 64, SrcAddr: dst, DstAddr: src,
	})
	copy(reply.Payload(), rst)
	n.sendPacket(proto, reply)
	return true
}

// ipv4Packet puts an IPv4 header before a payload.
func (n *nic) ipv4Packet(src, dst tcpip.Address, proto tcpip.TransportProtocolNumber, payload []byte) []byte {
	n.mu.Lock()
	n.replyID++
	id := n.replyID
	n.mu.Unlock()
	packet := make([]byte, header.IPv4MinimumSize+len(payload))
	ip := header.IPv4(packet)
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(len(packet)), ID: id, TTL: 64, Protocol: uint8(proto), SrcAddr: src, DstAddr: dst,
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	copy(packet[header.IPv4MinimumSize:], payload)
	return packet
}
