package cloud

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// A Stranger is another host on the wire of a NIC, which means no good. It sees each frame of the node's before anybody
// else does, as nobody could on a switch, and may send what it likes. It is called from one goroutine at a time and must
// not keep the frame.
type Stranger func(frame []byte, send func(frame []byte))

// Inject puts a frame on the wire of a NIC, towards the node.
func (c *Cloud) Inject(nic string, frame []byte) error {
	n := c.nic(nic)
	if n == nil {
		return fmt.Errorf("cloud: no NIC %q", nic)
	}
	if len(frame) < header.EthernetMinimumSize {
		return errors.New("cloud: a frame without a header")
	}
	n.down.send(frame)
	return nil
}

// Times lets a stranger send n frames.
func Times(n int, s Stranger) Stranger {
	left := int64(n)
	return func(frame []byte, send func([]byte)) {
		s(frame, func(b []byte) {
			if atomic.AddInt64(&left, -1) >= 0 {
				send(b)
			}
		})
	}
}

// strangerMAC is the ith of them.
func strangerMAC(i uint32) net.HardwareAddr {
	return net.HardwareAddr{0x06, 0x66, byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)}
}

// ARPReply returns a frame that says that an address is at a MAC.
func ARPReply(mac net.HardwareAddr, ip netip.Addr, to net.HardwareAddr, toIP netip.Addr) []byte {
	b := make([]byte, header.EthernetMinimumSize+header.ARPSize)
	header.Ethernet(b).Encode(&header.EthernetFields{SrcAddr: tcpip.LinkAddress(mac), DstAddr: tcpip.LinkAddress(to), Type: header.ARPProtocolNumber})
	reply := header.ARP(b[header.EthernetMinimumSize:])
	reply.SetIPv4OverEthernet()
	reply.SetOp(header.ARPReply)
	copy(reply.HardwareAddressSender(), mac)
	copy(reply.ProtocolAddressSender(), ip.AsSlice())
	copy(reply.HardwareAddressTarget(), to)
	copy(reply.ProtocolAddressTarget(), toIP.AsSlice())
	return b
}

// HasEveryAddress claims each address that the node asks about or says to be its own, from another MAC each time.
func HasEveryAddress() Stranger {
	var i uint32
	return func(frame []byte, send func([]byte)) {
		req, ok := arpOf(frame)
		if !ok {
			return
		}
		sender, _ := netip.AddrFromSlice(req.ProtocolAddressSender())
		target, _ := netip.AddrFromSlice(req.ProtocolAddressTarget())
		if sender.IsUnspecified() || sender == target {
			i++
			send(ARPReply(strangerMAC(i), target, frame[6:12], netip.IPv4Unspecified()))
		}
	}
}

// IsTheNextHop answers for an address before its owner does, and goes on to say so in between; nothing else comes of
// what is then sent to it.
func IsTheNextHop(ip netip.Addr) Stranger {
	return func(frame []byte, send func([]byte)) {
		if header.Ethernet(frame).Type() == header.IPv6ProtocolNumber {
			return
		}
		var own netip.Addr
		if req, ok := arpOf(frame); ok {
			if target, _ := netip.AddrFromSlice(req.ProtocolAddressTarget()); target != ip {
				return
			}
			own, _ = netip.AddrFromSlice(req.ProtocolAddressSender())
		}
		if !own.IsValid() {
			own = netip.IPv4Unspecified()
		}
		send(ARPReply(strangerMAC(0), ip, frame[6:12], own))
		// And the one that nobody has asked for, which changes an entry that is young too.
		send(ARPReply(strangerMAC(0), ip, frame[6:12], ip))
	}
}

func arpOf(frame []byte) (header.ARP, bool) {
	if header.Ethernet(frame).Type() != header.ARPProtocolNumber {
		return nil, false
	}
	a := header.ARP(frame[header.EthernetMinimumSize:])
	return a, a.IsValid() && a.Op() == header.ARPRequest
}

// tcpOf returns the IPv4 packet and the segment in a frame of the node's to the service.
func tcpOf(frame []byte) (header.IPv4, header.TCP, bool) {
	if header.Ethernet(frame).Type() != header.IPv4ProtocolNumber {
		return nil, nil, false
	}
	packet := frame[header.EthernetMinimumSize:]
	ip := header.IPv4(packet)
	if !ip.IsValid(len(packet)) || ip.TransportProtocol() != header.TCPProtocolNumber || fromAddress(ip.DestinationAddress()) != Service {
		return nil, nil, false
	}
	seg := header.TCP(packet[ip.HeaderLength():ip.TotalLength()])
	return ip, seg, len(seg) >= header.TCPMinimumSize
}

// answerTo returns a frame with an IPv4 packet to the sender of one.
func answerTo(frame []byte, src tcpip.Address, proto tcpip.TransportProtocolNumber, payload []byte) []byte {
	was := header.IPv4(frame[header.EthernetMinimumSize:])
	b := make([]byte, header.EthernetMinimumSize+header.IPv4MinimumSize+len(payload))
	// The service's own MAC, or whatever the node takes for it.
	header.Ethernet(b).Encode(&header.EthernetFields{SrcAddr: tcpip.LinkAddress(frame[:6]), DstAddr: tcpip.LinkAddress(frame[6:12]), Type: header.IPv4ProtocolNumber})
	ip := header.IPv4(b[header.EthernetMinimumSize:])
	ip.Encode(&header.IPv4Fields{TotalLength: uint16(header.IPv4MinimumSize + len(payload)), TTL: 64, Protocol: uint8(proto), SrcAddr: src, DstAddr: was.SourceAddress()})
	ip.SetChecksum(^ip.CalculateChecksum())
	copy(b[header.EthernetMinimumSize+header.IPv4MinimumSize:], payload)
	return b
}

// segment returns a frame with a TCP segment of the service's to the sender of one.
func segment(frame []byte, f header.TCPFields) []byte {
	was := header.IPv4(frame[header.EthernetMinimumSize:])
	f.DataOffset = header.TCPMinimumSize
	t := header.TCP(make([]byte, header.TCPMinimumSize))
	t.Encode(&f)
	pseudo := header.PseudoHeaderChecksum(header.TCPProtocolNumber, was.DestinationAddress(), was.SourceAddress(), header.TCPMinimumSize)
	t.SetChecksum(^t.CalculateChecksum(pseudo))
	return answerTo(frame, was.DestinationAddress(), header.TCPProtocolNumber, t)
}

// ResetsConnections answers each segment to the service with a reset that fits.
func ResetsConnections() Stranger {
	return func(frame []byte, send func([]byte)) {
		_, seg, ok := tcpOf(frame)
		if !ok || seg.Flags().Contains(header.TCPFlagRst) {
			return
		}
		f := header.TCPFields{SrcPort: seg.DestinationPort(), DstPort: seg.SourcePort(), Flags: header.TCPFlagRst}
		if seg.Flags().Contains(header.TCPFlagSyn) {
			f.Flags |= header.TCPFlagAck
			f.AckNum = seg.SequenceNumber() + 1
		} else {
			f.SeqNum = seg.AckNumber()
		}
		send(segment(frame, f))
	}
}

// ClosesWindows says of each segment with data that the service takes no more.
func ClosesWindows() Stranger {
	return func(frame []byte, send func([]byte)) {
		_, seg, ok := tcpOf(frame)
		if !ok || seg.Flags() != header.TCPFlagAck && seg.Flags() != header.TCPFlagAck|header.TCPFlagPsh {
			return
		}
		send(segment(frame, header.TCPFields{
			SrcPort: seg.DestinationPort(), DstPort: seg.SourcePort(), Flags: header.TCPFlagAck,
			SeqNum: seg.AckNumber(), AckNum: seg.SequenceNumber(), WindowSize: 0,
		}))
	}
}

// The kinds of ICMP message of [SaysByICMP].
const (
	HostUnreachable   = 1
	PortUnreachable   = 3
	FragmentationNeed = 4
)

// SaysByICMP answers each segment to the service with a message that it cannot be delivered, for that reason.
func SaysByICMP(code byte) Stranger {
	return func(frame []byte, send func([]byte)) {
		ip, _, ok := tcpOf(frame)
		if !ok {
			return
		}
		send(answerTo(frame, ip.DestinationAddress(), header.ICMPv4ProtocolNumber, icmp(3, code, [4]byte{2: 0, 3: 68}, ip)))
	}
}

// Redirects tells the node, in the name of its gateway, that another one is better. The kernel believes it when it has
// heard from that one by ARP, which it does.
func Redirects(from, to netip.Addr) Stranger {
	var last []byte
	return func(frame []byte, send func([]byte)) {
		if req, ok := arpOf(frame); ok {
			target, _ := netip.AddrFromSlice(req.ProtocolAddressTarget())
			if target != to || last == nil {
				return
			}
			own, _ := netip.AddrFromSlice(req.ProtocolAddressSender())
			send(ARPReply(strangerMAC(0), to, frame[6:12], own))
		} else if _, _, ok := tcpOf(frame); ok {
			last = append(last[:0], frame...)
		} else {
			return
		}
		send(answerTo(last, toAddress(from), header.ICMPv4ProtocolNumber, icmp(5, 1, to.As4(), header.IPv4(last[header.EthernetMinimumSize:]))))
	}
}

// icmp returns a message about a packet.
func icmp(kind, code byte, rest [4]byte, about header.IPv4) []byte {
	b := append([]byte{kind, code, 0, 0}, rest[:]...)
	b = append(b, about[:min(len(about), int(about.HeaderLength())+8)]...)
	binary.BigEndian.PutUint16(b[2:], ^checksum.Checksum(b, 0))
	return b
}

// RogueDHCP is a server with an identifier and an address of its own for each offer, n of them for each message, all of
// them leading nowhere. What is asked of whichever of them, it acknowledges.
func RogueDHCP(n int) DHCP {
	var i uint32
	return DHCP{Answers: func(m *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 {
		var all []*dhcpv4.DHCPv4
		switch m.MessageType() {
		case dhcpv4.MessageTypeDiscover:
			for range n {
				i++
				all = append(all, useless(i).answer(m, dhcpv4.MessageTypeOffer, mtuPublic))
			}
		case dhcpv4.MessageTypeRequest:
			id := m.ServerIdentifier().To4()
			if id != nil && id[0] == 198 {
				all = append(all, useless(uint32(id[2])<<8|uint32(id[3])).answer(m, dhcpv4.MessageTypeAck, mtuPublic))
			}
		}
		return all
	}}
}

// useless is the ith lease that leads nowhere.
func useless(i uint32) DHCP {
	gateway := netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})
	return DHCP{
		ID: gateway, Address: netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}), 32), Lease: time.Hour,
		Routes: []Route{{netip.PrefixFrom(gateway, 32), netip.IPv4Unspecified()}, {netip.PrefixFrom(netip.IPv4Unspecified(), 0), gateway}},
	}
}

// ForgedDHCP answers with that type and the honest server's identifier, whatever comes, for the address that was asked for.
func ForgedDHCP(kind dhcpv4.MessageType) DHCP {
	return DHCP{Answers: func(m *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 {
		id, _ := netip.AddrFromSlice(m.ServerIdentifier().To4())
		if m.MessageType() != dhcpv4.MessageTypeRequest {
			return nil
		}
		if !id.IsValid() {
			id = Gateway
		}
		return []*dhcpv4.DHCPv4{DHCP{ID: id}.answer(m, kind, mtuPublic)}
	}}
}

// HonestIDs offers and acknowledges n messages under the honest server's identifier, with an address and a gateway that
// are of no use.
func HonestIDs(n int) DHCP {
	left := int64(n)
	forged := useless(666)
	forged.ID = netip.Addr{} // the gateway's
	forged.Mangle = func(b []byte) []byte {
		if atomic.AddInt64(&left, -1) < 0 {
			return nil
		}
		return b
	}
	return forged
}

// A Flooder is a stranger who says one thing after another as fast as he can: DHCP offers in the transaction that is under
// way, ARP claims of the node's own address, from another MAC each, and of the service's address, from one.
type Flooder struct {
	mu   sync.Mutex
	last *dhcpv4.DHCPv4
	node net.HardwareAddr
	own  netip.Addr
}

// Sees is the Stranger that looks at what the node sends.
func (f *Flooder) Sees(frame []byte, _ func([]byte)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.node = append(f.node[:0], frame[6:12]...)
	packet := frame[header.EthernetMinimumSize:]
	switch header.Ethernet(frame).Type() {
	case header.ARPProtocolNumber:
		if req, ok := arpOf(frame); ok {
			if own, _ := netip.AddrFromSlice(req.ProtocolAddressSender()); !own.IsUnspecified() {
				f.own = own
			}
		}
	case header.IPv4ProtocolNumber:
		ip := header.IPv4(packet)
		if ip.IsValid(len(packet)) && ip.TransportProtocol() == header.UDPProtocolNumber && len(ip.Payload()) > header.UDPMinimumSize {
			if m, err := dhcpv4.FromBytes(append([]byte(nil), ip.Payload()[header.UDPMinimumSize:]...)); err == nil {
				f.last = m
			}
		}
	}
}

// Frame is the ith that he sends; nil as long as he has heard nothing.
func (f *Flooder) Frame(i uint32) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.node == nil:
		return nil
	case i%3 == 0 && f.own.IsValid():
		return ARPReply(strangerMAC(2+i), f.own, f.node, f.own)
	case i%3 == 1:
		return ARPReply(strangerMAC(0), Service, f.node, Service)
	case f.last != nil:
		offer := useless(i%65000).answer(f.last, dhcpv4.MessageTypeOffer, mtuPublic)
		if offer == nil {
			return nil
		}
		return dhcpFrame(strangerMAC(1), f.node, useless(i%65000).ID, netip.AddrFrom4([4]byte{255, 255, 255, 255}), offer.ToBytes())
	}
	return nil
}

// dhcpFrame returns a frame with a message of a DHCP server.
func dhcpFrame(from, to net.HardwareAddr, id, dst netip.Addr, body []byte) []byte {
	udp := header.UDP(make([]byte, header.UDPMinimumSize+len(body)))
	udp.Encode(&header.UDPFields{SrcPort: dhcpServerPort, DstPort: dhcpClientPort, Length: uint16(len(udp))})
	copy(udp[header.UDPMinimumSize:], body)
	b := make([]byte, header.EthernetMinimumSize+header.IPv4MinimumSize+len(udp))
	header.Ethernet(b).Encode(&header.EthernetFields{SrcAddr: tcpip.LinkAddress(from), DstAddr: tcpip.LinkAddress(to), Type: header.IPv4ProtocolNumber})
	ip := header.IPv4(b[header.EthernetMinimumSize:])
	ip.Encode(&header.IPv4Fields{TotalLength: uint16(header.IPv4MinimumSize + len(udp)), TTL: 64, Protocol: uint8(header.UDPProtocolNumber), SrcAddr: toAddress(id), DstAddr: toAddress(dst)})
	ip.SetChecksum(^ip.CalculateChecksum())
	copy(b[header.EthernetMinimumSize+header.IPv4MinimumSize:], udp)
	return b
}
