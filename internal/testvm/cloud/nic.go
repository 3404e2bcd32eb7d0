package cloud

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// Shape is the kind of network behind a NIC.
type Shape uint8

const (
	// Public is a public NIC: DHCP gives a /32 and the gateway 172.31.1.1, and the metadata service answers a
	// link-local source as well.
	Public Shape = iota
	// Private is a layer 3 network: only the gateway answers ARP, DHCP gives a /32, MTU 1450 and option 121 without
	// option 3, and the metadata service is behind the gateway.
	Private
	// IPv6Only is a public NIC without IPv4: no DHCP offer, but the metadata service answers a link-local source.
	IPv6Only
	// Dead has a carrier and nothing behind it.
	Dead
)

// String is the shape's name in lower case.
func (s Shape) String() string {
	switch s {
	case Public:
		return "public"
	case Private:
		return "private"
	case IPv6Only:
		return "ipv6-only"
	case Dead:
		return "dead"
	}
	return fmt.Sprintf("shape %d", uint8(s))
}

// NIC describes one NIC of the server and what is behind it. The zero value is a public NIC without a fault.
type NIC struct {
	Shape Shape
	// Name is how the records call it; "nic0", "nic1", … in order of attachment when empty.
	Name string
	// MAC is the node's own address, which the metadata documents name. Empty: taken from the first frame.
	MAC net.HardwareAddr
	// MTU is the link's; 0: 1450 for Private, else 1500.
	MTU int
	// Link, when set, is this NIC's cable instead of [Config.Link].
	Link *Link
	// DHCP lists the servers of the network, answering in this order, each filled in by the shape where it is zero.
	// nil: one without a fault for Public and Private, none for the others. Empty, not nil: none.
	DHCP []DHCP
	// BlackHole loses what is sent to the metadata service through this NIC, while everything else answers: the
	// private network whose DHCP route to the service led nowhere.
	BlackHole bool
	// Neighbours are other hosts on the same wire: they answer ARP for their addresses, probes included, and nothing
	// else.
	Neighbours []netip.Addr
	// Strangers are hosts on the wire that attack the node.
	Strangers []Stranger
	// Guarded loses packets from addresses that are not the server's, as a hypervisor does: from others than its lease
	// and, on a public NIC, the link-local ones.
	Guarded bool
}

const (
	nicID      = 1
	mtuPublic  = 1500
	mtuPrivate = 1450
	// frameMax holds what a sender with segmentation offload may hand over, though a port should have it off.
	frameMax = 1 << 16
	// grace is how long the end of the connections may take before the cable is pulled.
	grace = 100 * time.Millisecond
)

// nic is an attached NIC: a stack of its own with the service and the gateway on it.
type nic struct {
	cloud   *Cloud
	index   int
	desc    NIC
	port    Port
	mac     net.HardwareAddr // the gateway's
	network PrivateNetwork   // of a private NIC
	servers []DHCP
	stack   *stack.Stack
	link    *endpoint

	up, down  *direction
	listeners []*listener
	running   sync.WaitGroup
	closing   sync.Once

	mu        sync.Mutex
	node      net.HardwareAddr                // the node's MAC: configured, else that of its first frame
	neighbour map[netip.Addr]net.HardwareAddr // who sent from where
	replyID   uint16
}

// newNIC is called with the cloud's lock held.
func newNIC(c *Cloud, index int, desc NIC, port Port) (*nic, error) {
	if desc.Shape > Dead {
		return nil, errors.New("no such shape")
	}
	if desc.Name == "" {
		desc.Name = fmt.Sprintf("nic%d", index)
	}
	if desc.MTU == 0 {
		desc.MTU = mtuPublic
		if desc.Shape == Private {
			desc.MTU = mtuPrivate
		}
	}
	link := c.cfg.Link
	if desc.Link != nil {
		link = *desc.Link
	}
	if err := link.check(); err != nil {
		return nil, err
	}
	n := &nic{
		cloud: c, index: index, desc: desc, port: port,
		mac:       net.HardwareAddr{0xd2, 0x74, 0x7f, 0x6e, 0x37, 0x01 + byte(index)},
		node:      desc.MAC,
		neighbour: map[netip.Addr]net.HardwareAddr{},
	}
	private := 0
	for _, other := range c.nics {
		if other.desc.Shape == Private {
			private++
		}
	}
	n.network = c.cfg.Server.privateNetwork(private)
	n.servers = n.dhcpServers(desc.DHCP)

	var err error
	if n.up, err = newDirection(link.RTT/2, link.Up, c.cfg.Seed, uint64(2*index), n.receive); err != nil {
		return nil, err
	}
	if n.down, err = newDirection(link.RTT-link.RTT/2, link.Down, c.cfg.Seed, uint64(2*index+1), n.transmit); err != nil {
		n.up.close()
		return nil, err
	}
	if err := n.startStack(); err != nil {
		n.unplug()
		n.wait()
		return nil, fmt.Errorf("start the network stack: %w", err)
	}
	for _, l := range n.listeners {
		spawn(&n.running, func() { _ = c.http.Serve(l) })
	}
	spawn(&n.running, n.read)
	return n, nil
}

func (n *nic) startStack() error {
	n.stack = stack.New(stack.Options{
		NetworkProtocols: []stack.NetworkProtocolFactory{
			ipv4.NewProtocol,
			// Without duplicate address detection and listener reports: the cloud speaks when spoken to.
			ipv6.NewProtocolWithOptions(ipv6.Options{}),
		},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol},
	})
	n.link = &endpoint{mtu: uint32(n.desc.MTU), send: n.sendPacket}
	if err := n.stack.CreateNIC(nicID, n.link); err != nil {
		return stackError(err)
	}
	n.stack.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: nicID},
		{Destination: header.IPv6EmptySubnet, NIC: nicID},
	})
	if n.desc.Shape == Dead {
		return nil
	}
	addrs := []netip.Addr{Service}
	if gw := n.gateway(); gw.IsValid() {
		addrs = append(addrs, gw)
	}
	if n.cloud.cfg.IPv6 {
		addrs = append(addrs, ServiceIPv6)
	}
	for _, a := range addrs {
		proto := ipv4.ProtocolNumber
		if a.Is6() {
			proto = ipv6.ProtocolNumber
		}
		err := n.stack.AddProtocolAddress(nicID, tcpip.ProtocolAddress{
			Protocol:          proto,
			AddressWithPrefix: toAddress(a).WithPrefix(),
		}, stack.AddressProperties{})
		if err != nil {
			return stackError(err)
		}
		if a == Service || a == ServiceIPv6 {
			l, err := n.listen(proto, a)
			if err != nil {
				return err
			}
			n.listeners = append(n.listeners, l)
		}
	}
	return nil
}

// gateway is the network's IPv4 gateway; none without IPv4.
func (n *nic) gateway() netip.Addr {
	switch n.desc.Shape {
	case Public:
		return Gateway
	case Private:
		return n.network.Gateway
	}
	return netip.Addr{}
}

// unplug ends everything without waiting for it.
func (n *nic) unplug() {
	n.closing.Do(func() {
		for _, l := range n.listeners {
			_ = l.Close()
		}
		if n.stack != nil {
			// This resets what is open, as long as there is a cable to send it over. A port that takes no frame any
			// more holds it up until the port is closed.
			reset := make(chan struct{})
			spawn(&n.running, func() {
				n.stack.Close()
				close(reset)
			})
			select {
			case <-reset:
			case <-time.After(grace):
			}
		}
		n.up.close()
		n.down.close()
		_ = n.port.Close()
	})
}

func (n *nic) wait() {
	n.running.Wait()
	n.up.wait()
	n.down.wait()
	if n.stack != nil {
		n.stack.Wait()
	}
}

// read takes frames from the node until the port is closed.
func (n *nic) read() {
	buf := make([]byte, frameMax)
	for {
		k, err := n.port.ReadFrame(buf)
		if err != nil {
			return
		}
		if k < header.EthernetMinimumSize {
			continue
		}
		n.capture(buf[:k])
		n.up.send(buf[:k])
	}
}

// receive is the cloud's end of the cable: it takes a frame that has come through and must not keep it.
func (n *nic) receive(frame []byte) {
	if n.desc.Shape == Dead {
		return
	}
	for _, s := range n.desc.Strangers {
		s(frame, n.down.send)
	}
	eth := header.Ethernet(frame)
	dst := net.HardwareAddr(frame[:6])
	if dst[0]&1 == 0 && string(dst) != string(n.mac) {
		return // for another host
	}
	packet := frame[header.EthernetMinimumSize:]
	switch eth.Type() {
	case header.ARPProtocolNumber:
		n.arp(packet)
	case header.IPv4ProtocolNumber:
		n.receiveIPv4(frame[6:12], packet)
	case header.IPv6ProtocolNumber:
		n.receiveIPv6(frame[6:12], packet)
	}
}

func (n *nic) receiveIPv4(from net.HardwareAddr, packet []byte) {
	ip := header.IPv4(packet)
	if !ip.IsValid(len(packet)) || !ip.IsChecksumValid() {
		return
	}
	packet = packet[:ip.TotalLength()] // Ethernet pads short frames
	dst := fromAddress(ip.DestinationAddress())
	if ip.TransportProtocol() == header.UDPProtocolNumber && !ip.More() && ip.FragmentOffset() == 0 {
		udp := header.UDP(ip.Payload())
		if len(udp) >= header.UDPMinimumSize && udp.DestinationPort() == dhcpServerPort {
			n.dhcp(from, ip, udp)
			return
		}
	}
	if n.desc.Guarded && !n.assigned(fromAddress(ip.SourceAddress())) {
		return
	}
	n.learn(fromAddress(ip.SourceAddress()), from)
	if dst == Service && !n.reaches(packet) {
		return
	}
	n.link.deliver(ipv4.ProtocolNumber, packet)
}

func (n *nic) receiveIPv6(from net.HardwareAddr, packet []byte) {
	ip := header.IPv6(packet)
	if !ip.IsValid(len(packet)) {
		return
	}
	packet = packet[:header.IPv6MinimumSize+int(ip.PayloadLength())]
	if n.solicited(from, packet) {
		return
	}
	n.learn(fromAddress(ip.SourceAddress()), from)
	if fromAddress(ip.DestinationAddress()) == ServiceIPv6 && !n.reaches(packet) {
		return
	}
	n.link.deliver(ipv6.ProtocolNumber, packet)
}

// assigned reports whether an address is one that the server may use.
func (n *nic) assigned(a netip.Addr) bool {
	if n.desc.Shape == Private {
		return a == n.network.IP
	}
	return a == n.cloud.cfg.Server.publicIPv4() || a.IsLinkLocalUnicast()
}

// reaches decides about a packet for the service and refuses it where the service is closed.
func (n *nic) reaches(packet []byte) bool {
	if n.desc.BlackHole {
		return false
	}
	switch n.cloud.behaviour().Reach {
	case Vanished, Filtered:
		return false
	case Closed:
		return !n.refuse(packet)
	}
	return true
}

// learn remembers who sent from an address, which is where answers go.
func (n *nic) learn(addr netip.Addr, mac net.HardwareAddr) {
	if !addr.IsValid() || addr.IsUnspecified() {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if known := n.neighbour[addr]; string(known) != string(mac) {
		n.neighbour[addr] = append(net.HardwareAddr(nil), mac...)
	}
	if n.node == nil {
		n.node = append(net.HardwareAddr(nil), mac...)
	}
}

// nodeMAC is the node's address, as far as it is known.
func (n *nic) nodeMAC() net.HardwareAddr {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.node
}

// sendPacket puts a packet of the stack on the wire.
func (n *nic) sendPacket(proto tcpip.NetworkProtocolNumber, packet []byte) {
	var dst netip.Addr
	switch proto {
	case header.IPv4ProtocolNumber:
		dst = fromAddress(header.IPv4(packet).DestinationAddress())
	case header.IPv6ProtocolNumber:
		dst = fromAddress(header.IPv6(packet).DestinationAddress())
	default:
		return
	}
	n.mu.Lock()
	mac := n.neighbour[dst]
	n.mu.Unlock()
	if mac == nil {
		return // nobody has ever sent from there
	}
	n.sendFrame(n.mac, mac, proto, packet)
}

// sendFrame puts the Ethernet header on and sends.
func (n *nic) sendFrame(src, dst net.HardwareAddr, proto tcpip.NetworkProtocolNumber, payload []byte) {
	frame := make([]byte, header.EthernetMinimumSize+len(payload))
	header.Ethernet(frame).Encode(&header.EthernetFields{
		SrcAddr: tcpip.LinkAddress(src), DstAddr: tcpip.LinkAddress(dst), Type: proto,
	})
	copy(frame[header.EthernetMinimumSize:], payload)
	n.down.send(frame)
}

// transmit is the node's end of the cable.
func (n *nic) transmit(frame []byte) {
	n.capture(frame)
	_ = n.port.WriteFrame(frame) // a frame that cannot be written is a frame lost
}

func (n *nic) capture(frame []byte) {
	if n.cloud.pcap != nil {
		n.cloud.pcap.write(frame)
	}
}

// spawn is wg.Go, but a goroutine that has not run yet shows this package as its maker, not package sync: snapshots of
// package netns know the bench's goroutines by that.
func spawn(wg *sync.WaitGroup, f func()) {
	wg.Add(1)
	go func() {
		defer wg.Done()
		f()
	}()
}

func fromAddress(a tcpip.Address) netip.Addr {
	addr, _ := netip.AddrFromSlice(a.AsSlice())
	return addr
}
