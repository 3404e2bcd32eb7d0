//go:build linux

package earlynet

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// An arpPacket is ARP for IPv4 over Ethernet (RFC 826).
type arpPacket struct {
	op        uint16 // 1: request, 2: reply
	senderMAC [6]byte
	senderIP  netip.Addr
	targetMAC [6]byte
	targetIP  netip.Addr
}

const arpLen = 28

func (p arpPacket) marshal() []byte {
	b := []byte{0, unix.ARPHRD_ETHER, unix.ETH_P_IP >> 8, unix.ETH_P_IP & 0xff, 6, 4}
	b = binary.BigEndian.AppendUint16(b, p.op)
	b = append(b, p.senderMAC[:]...)
	b = append(b, p.senderIP.AsSlice()...)
	b = append(b, p.targetMAC[:]...)
	return append(b, p.targetIP.AsSlice()...)
}

func parseARP(b []byte) (arpPacket, bool) {
	if len(b) < arpLen || [6]byte(b) != [6]byte{0, unix.ARPHRD_ETHER, unix.ETH_P_IP >> 8, unix.ETH_P_IP & 0xff, 6, 4} {
		return arpPacket{}, false
	}
	return arpPacket{
		op:        binary.BigEndian.Uint16(b[6:]),
		senderMAC: [6]byte(b[8:]), senderIP: netip.AddrFrom4([4]byte(b[14:])),
		targetMAC: [6]byte(b[18:]), targetIP: netip.AddrFrom4([4]byte(b[24:])),
	}, true
}

// conflicts reports whether a packet shows that another host uses our address,
// or is about to (RFC 3927, sections 2.2.1 and 2.5).
func (p arpPacket) conflicts(mac [6]byte, ip netip.Addr, probing bool) bool {
	switch {
	case p.senderMAC == mac:
		return false // our own, come back
	case p.senderIP == ip:
		return true
	default:
		return probing && p.op == 1 && p.senderIP.IsUnspecified() && p.targetIP == ip
	}
}

// arpFilter lets only packets through that come from an address or ask for it.
func arpFilter(ip netip.Addr) ([]bpf.RawInstruction, error) {
	v := binary.BigEndian.Uint32(ip.AsSlice())
	return bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 14, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: v, SkipTrue: 2},
		bpf.LoadAbsolute{Off: 24, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: v, SkipTrue: 1},
		bpf.RetConstant{Val: arpLen},
		bpf.RetConstant{Val: 0},
	})
}
