//go:build linux

package earlynet

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	dhcpServerPort = 67
	dhcpClientPort = 68

	ipv4HeaderLen = 20
	udpHeaderLen  = 8
)

// dhcpFilter lets only whole UDP datagrams to the client's port through.
func dhcpFilter() ([]bpf.RawInstruction, error) {
	return bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_UDP, SkipTrue: 6},
		bpf.LoadAbsolute{Off: 6, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x3fff, SkipTrue: 4}, // more fragments, or not the first
		bpf.LoadMemShift{Off: 0},
		bpf.LoadIndirect{Off: 2, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: dhcpClientPort, SkipTrue: 1},
		bpf.RetConstant{Val: 0xffff},
		bpf.RetConstant{Val: 0},
	})
}

// encodeDatagram wraps a payload in UDP and IPv4, from a DHCP client to
// everybody on the link.
func encodeDatagram(src netip.Addr, payload []byte) []byte {
	total := ipv4HeaderLen + udpHeaderLen + len(payload)
	b := make([]byte, ipv4HeaderLen+udpHeaderLen, total)
	b[0] = 4<<4 | ipv4HeaderLen/4
	b[1] = 0x10 // low delay, as DHCP clients do
	binary.BigEndian.PutUint16(b[2:], uint16(total))
	b[8] = 64
	b[9] = unix.IPPROTO_UDP
	copy(b[12:], src.AsSlice())
	copy(b[16:], []byte{255, 255, 255, 255})
	binary.BigEndian.PutUint16(b[10:], ^fold(sum(b[:ipv4HeaderLen])))

	udp := b[ipv4HeaderLen:]
	binary.BigEndian.PutUint16(udp[0:], dhcpClientPort)
	binary.BigEndian.PutUint16(udp[2:], dhcpServerPort)
	binary.BigEndian.PutUint16(udp[4:], uint16(udpHeaderLen+len(payload)))
	b = append(b, payload...)
	check := ^fold(pseudo(b) + sum(b[ipv4HeaderLen:]))
	if check == 0 {
		check = 0xffff // 0 means none (RFC 768)
	}
	binary.BigEndian.PutUint16(b[ipv4HeaderLen+6:], check)
	return b
}

// decodeDatagram returns the payload of an undamaged UDP datagram to a DHCP
// client. A packet socket is given datagrams before anybody has looked at their
// checksums, so it does.
func decodeDatagram(b []byte) (payload []byte, ok bool) {
	if len(b) < ipv4HeaderLen || b[0]>>4 != 4 {
		return nil, false
	}
	header, total := int(b[0]&0xf)*4, int(binary.BigEndian.Uint16(b[2:]))
	switch {
	case header < ipv4HeaderLen, total > len(b), total < header+udpHeaderLen,
		b[9] != unix.IPPROTO_UDP,
		binary.BigEndian.Uint16(b[6:])&0x3fff != 0,
		fold(sum(b[:header])) != 0xffff:
		return nil, false
	}
	b = b[:total] // without the padding of short frames
	udp := b[header:]
	length := int(binary.BigEndian.Uint16(udp[4:]))
	if length < udpHeaderLen || length > len(udp) || binary.BigEndian.Uint16(udp[2:]) != dhcpClientPort {
		return nil, false
	}
	udp = udp[:length]
	// A sender on this machine (a veth's or a virtual machine's other end)
	// leaves the checksum to the hardware that never comes: then the field
	// holds the sum of the pseudo header alone.
	switch check := binary.BigEndian.Uint16(udp[6:]); {
	case check == 0:
	case fold(udpPseudo(b, length)+sum(udp)) == 0xffff:
	case check == fold(udpPseudo(b, length)):
	default:
		return nil, false
	}
	return udp[udpHeaderLen:], true
}

// pseudo returns the sum of the pseudo header (RFC 768) of a datagram without
// IP options.
func pseudo(b []byte) uint32 { return udpPseudo(b, len(b)-ipv4HeaderLen) }

func udpPseudo(b []byte, length int) uint32 {
	return sum(b[12:20]) + unix.IPPROTO_UDP + uint32(length)
}

// sum adds up 16-bit words; it cannot overflow within a datagram.
func sum(b []byte) uint32 {
	var s uint32
	for len(b) >= 2 {
		s += uint32(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return s
}

// fold makes a one's complement sum of it (RFC 1071).
func fold(s uint32) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
