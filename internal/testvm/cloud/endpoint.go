package cloud

import (
	"errors"
	"net/netip"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// endpoint is where a NIC's frames meet gVisor's stack. It carries bare IP packets: the Ethernet header is put on and
// taken off outside, and neighbours are known from what they sent, as a hypervisor knows its servers. So the stack asks
// nobody for a MAC, and no frame waits for another goroutine: what the stack sends is written by the caller.
type endpoint struct {
	mtu        uint32
	dispatcher atomic.Pointer[stack.NetworkDispatcher]
	send       func(proto tcpip.NetworkProtocolNumber, packet []byte)
}

func (e *endpoint) MTU() uint32                                  { return e.mtu }
func (e *endpoint) SetMTU(uint32)                                {}
func (e *endpoint) MaxHeaderLength() uint16                      { return 0 }
func (e *endpoint) LinkAddress() tcpip.LinkAddress               { return "" }
func (e *endpoint) SetLinkAddress(tcpip.LinkAddress)             {}
func (e *endpoint) Capabilities() stack.LinkEndpointCapabilities { return stack.CapabilityNone }
func (e *endpoint) IsAttached() bool                             { return e.dispatcher.Load() != nil }
func (e *endpoint) Wait()                                        {}
func (e *endpoint) ARPHardwareType() header.ARPHardwareType      { return header.ARPHardwareNone }
func (e *endpoint) AddHeader(*stack.PacketBuffer)                {}
func (e *endpoint) ParseHeader(*stack.PacketBuffer) bool         { return true }
func (e *endpoint) Close()                                       {}
func (e *endpoint) SetOnCloseAction(func())                      {}

func (e *endpoint) Attach(d stack.NetworkDispatcher) {
	if d == nil {
		e.dispatcher.Store(nil)
		return
	}
	e.dispatcher.Store(&d)
}

// deliver hands a packet to the stack, which gets a copy.
func (e *endpoint) deliver(proto tcpip.NetworkProtocolNumber, packet []byte) {
	d := e.dispatcher.Load()
	if d == nil {
		return
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(packet)})
	(*d).DeliverNetworkPacket(proto, pkt)
	pkt.DecRef()
}

func (e *endpoint) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	n := 0
	for _, pkt := range pkts.AsSlice() {
		view := pkt.ToView()
		e.send(pkt.NetworkProtocolNumber, view.AsSlice())
		view.Release()
		n++
	}
	return n, nil
}

func toAddress(a netip.Addr) tcpip.Address { return tcpip.AddrFromSlice(a.AsSlice()) }

func stackError(err tcpip.Error) error { return errors.New("netstack: " + err.String()) }
