package cloud

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

var hostMAC = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x17}

// host is a client without a kernel: a whole stack of its own, ARP included, at the other end of a pipe.
type host struct {
	t     testing.TB
	port  Port
	stack *stack.Stack
}

// plugHost attaches a NIC and returns the machine behind it, with an address and a way to everything.
func plugHost(t testing.TB, c *Cloud, desc NIC, addr string, gateway netip.Addr) *host {
	t.Helper()
	near, far := Pipe()
	if err := c.Attach(desc, far); err != nil {
		t.Fatal(err)
	}
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{arp.NewProtocol, ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol},
	})
	ch := channel.New(256, 1500, tcpip.LinkAddress(hostMAC))
	if err := s.CreateNIC(1, ethernet.New(ch)); err != nil {
		t.Fatal(err)
	}
	prefix := netip.MustParsePrefix(addr)
	proto := ipv4.ProtocolNumber
	if prefix.Addr().Is6() {
		proto = ipv6.ProtocolNumber
	}
	if err := s.AddProtocolAddress(1, tcpip.ProtocolAddress{
		Protocol:          proto,
		AddressWithPrefix: tcpip.AddressWithPrefix{Address: toAddress(prefix.Addr()), PrefixLen: prefix.Bits()},
	}, stack.AddressProperties{}); err != nil {
		t.Fatal(err)
	}
	route := tcpip.Route{Destination: header.IPv4EmptySubnet, NIC: 1}
	if gateway.IsValid() {
		route.Gateway = toAddress(gateway)
	}
	s.SetRouteTable([]tcpip.Route{route, {Destination: header.IPv6EmptySubnet, NIC: 1}})

	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() {
		defer func() { done <- struct{}{} }()
		buf := make([]byte, frameMax)
		for {
			n, err := near.ReadFrame(buf)
			if err != nil {
				return
			}
			pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(buf[:n])})
			ch.InjectInbound(0, pkt)
			pkt.DecRef()
		}
	}()
	go func() {
		defer func() { done <- struct{}{} }()
		for {
			pkt := ch.ReadContext(ctx)
			if pkt == nil {
				return
			}
			view := pkt.ToView()
			_ = near.WriteFrame(view.AsSlice())
			view.Release()
			pkt.DecRef()
		}
	}()
	t.Cleanup(func() {
		cancel()
		near.Close()
		<-done
		<-done
		s.Destroy()
	})
	return &host{t: t, port: near, stack: s}
}

func (h *host) dialTo(addr netip.Addr, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	full := tcpip.FullAddress{NIC: 1, Addr: toAddress(addr), Port: 80}
	proto := ipv4.ProtocolNumber
	if addr.Is6() {
		proto = ipv6.ProtocolNumber
	}
	return gonet.DialContextTCP(ctx, h.stack, full, proto)
}

// answer is what came of one request: the parsed answer, or why there is none.
type answer struct {
	status int
	header http.Header
	body   string
	err    error
}

func (h *host) get(path string, timeout time.Duration) answer {
	return h.getFrom(Service, path, timeout)
}

func (h *host) getFrom(addr netip.Addr, path string, timeout time.Duration) answer {
	c, err := h.dialTo(addr, timeout)
	if err != nil {
		return answer{err: err}
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		return answer{err: err}
	}
	if _, err := io.WriteString(c, "GET "+base+path+" HTTP/1.1\r\nHost: 169.254.169.254\r\nConnection: close\r\n\r\n"); err != nil {
		return answer{err: err}
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(b), err}
}

func timedOut(err error) bool {
	var ne net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &ne) && ne.Timeout()
}

func newCloud(t testing.TB, cfg Config) *Cloud {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return c
}

// wire is a client that speaks single frames.
type wire struct {
	t      testing.TB
	port   Port
	frames chan []byte
}

func plugWire(t testing.TB, c *Cloud, desc NIC) *wire {
	t.Helper()
	near, far := Pipe()
	if err := c.Attach(desc, far); err != nil {
		t.Fatal(err)
	}
	w := &wire{t: t, port: near, frames: make(chan []byte, 4096)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, frameMax)
		for {
			n, err := near.ReadFrame(buf)
			if err != nil {
				return
			}
			w.frames <- slices.Clone(buf[:n])
		}
	}()
	t.Cleanup(func() {
		near.Close()
		<-done
	})
	return w
}

// next is the next frame, nil when none comes within the time.
func (w *wire) next(within time.Duration) []byte {
	select {
	case f := <-w.frames:
		return f
	case <-time.After(within):
		return nil
	}
}

// soon is long enough for an answer that comes at once, on a busy machine; quiet is how long a silence is watched, and
// patience how long where something must come before it.
const (
	soon     = 5 * time.Second
	quiet    = 50 * time.Millisecond
	patience = time.Second
)

func frame(dst net.HardwareAddr, proto tcpip.NetworkProtocolNumber, payload []byte) []byte {
	f := make([]byte, header.EthernetMinimumSize+len(payload))
	header.Ethernet(f).Encode(&header.EthernetFields{
		SrcAddr: tcpip.LinkAddress(hostMAC), DstAddr: tcpip.LinkAddress(dst), Type: proto,
	})
	copy(f[header.EthernetMinimumSize:], payload)
	return f
}

var everybody = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// arp asks who has target, and returns the MAC that answers, nil for none.
func (w *wire) arp(sender, target netip.Addr, within time.Duration) net.HardwareAddr {
	w.t.Helper()
	req := header.ARP(make([]byte, header.ARPSize))
	req.SetIPv4OverEthernet()
	req.SetOp(header.ARPRequest)
	copy(req.HardwareAddressSender(), hostMAC)
	copy(req.ProtocolAddressSender(), sender.AsSlice())
	copy(req.ProtocolAddressTarget(), target.AsSlice())
	if err := w.port.WriteFrame(frame(everybody, header.ARPProtocolNumber, req)); err != nil {
		w.t.Fatal(err)
	}
	f := w.next(within)
	if f == nil {
		return nil
	}
	reply := header.ARP(f[header.EthernetMinimumSize:])
	if header.Ethernet(f).Type() != header.ARPProtocolNumber || reply.Op() != header.ARPReply ||
		!bytes.Equal(reply.ProtocolAddressSender(), target.AsSlice()) || !bytes.Equal(f[:6], hostMAC) {
		w.t.Fatalf("a strange answer: %x", f)
	}
	return net.HardwareAddr(reply.HardwareAddressSender())
}

// offer is a DHCP answer with the addresses it was sent to.
type offer struct {
	*dhcpv4.DHCPv4
	mac net.HardwareAddr
	to  netip.Addr
}

// dhcp sends a message and returns the answer, nil for none.
func (w *wire) dhcp(msg *dhcpv4.DHCPv4, within time.Duration) *offer {
	w.t.Helper()
	w.sendDHCP(msg.ToBytes())
	return w.nextDHCP(within)
}

func (w *wire) sendDHCP(body []byte) {
	w.t.Helper()
	src, dst := toAddress(netip.IPv4Unspecified()), toAddress(netip.AddrFrom4([4]byte{255, 255, 255, 255}))
	udp := header.UDP(make([]byte, header.UDPMinimumSize+len(body)))
	udp.Encode(&header.UDPFields{SrcPort: 68, DstPort: 67, Length: uint16(len(udp))})
	copy(udp[header.UDPMinimumSize:], body)
	udp.SetChecksum(^udp.CalculateChecksum(checksum.Checksum(body,
		header.PseudoHeaderChecksum(header.UDPProtocolNumber, src, dst, uint16(len(udp))))))
	packet := (&nic{}).ipv4Packet(src, dst, header.UDPProtocolNumber, udp)
	if err := w.port.WriteFrame(frame(everybody, header.IPv4ProtocolNumber, packet)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *wire) nextDHCP(within time.Duration) *offer {
	w.t.Helper()
	f := w.next(within)
	if f == nil {
		return nil
	}
	ip := header.IPv4(f[header.EthernetMinimumSize:])
	udp := header.UDP(ip.Payload())
	body := udp.Payload()
	if !ip.IsChecksumValid() || !udp.IsChecksumValid(ip.SourceAddress(), ip.DestinationAddress(), checksum.Checksum(body, 0)) {
		w.t.Fatal("a DHCP answer with a wrong checksum")
	}
	if udp.SourcePort() != 67 || udp.DestinationPort() != 68 {
		w.t.Fatalf("ports %d to %d", udp.SourcePort(), udp.DestinationPort())
	}
	msg, err := dhcpv4.FromBytes(body)
	if err != nil {
		w.t.Fatal(err)
	}
	return &offer{msg, net.HardwareAddr(f[:6]), fromAddress(ip.DestinationAddress())}
}

var wanted = dhcpv4.WithRequestedOptions(
	dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionClasslessStaticRoute, dhcpv4.OptionInterfaceMTU,
)

func discover(t testing.TB, mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	t.Helper()
	msg, err := dhcpv4.NewDiscovery(hostMAC, append([]dhcpv4.Modifier{wanted}, mods...)...)
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

func request(t testing.TB, o *offer) *dhcpv4.DHCPv4 {
	t.Helper()
	if o == nil {
		t.Fatal("no offer")
	}
	msg, err := dhcpv4.NewRequestFromOffer(o.DHCPv4, wanted)
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

func mtuOf(o *offer) int {
	b := o.Options.Get(dhcpv4.OptionInterfaceMTU)
	if len(b) != 2 {
		return 0
	}
	return int(binary.BigEndian.Uint16(b))
}
