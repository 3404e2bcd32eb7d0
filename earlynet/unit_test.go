//go:build linux

package earlynet

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/jsimonetti/rtnetlink/v2"
	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

var testMAC = net.HardwareAddr{0x96, 0, 0, 1, 2, 3}

func TestSelection(t *testing.T) {
	physical := link{index: 2, name: "enp1s0", altNames: []string{"enx960000010203"}, mac: testMAC, arphrd: unix.ARPHRD_ETHER}
	with := func(f func(*link)) link { l := physical; f(&l); return l }
	veth := with(func(l *link) { l.kind = "veth" })
	for _, tc := range []struct {
		name string
		nics []string
		link link
		ok   bool
		why  string
	}{
		{"nothing asked for: a physical NIC is taken", nil, physical, true, ""},
		{"nothing asked for: a veth is not", nil, veth, false, "name it exactly"},
		{"nothing asked for: a bond's port is not", nil, with(func(l *link) { l.master = 7 }), false, "a port of interface 7"},
		{"nothing asked for: a tunnel is not", nil, with(func(l *link) { l.arphrd = unix.ARPHRD_TUNNEL }), false, "not an Ethernet"},
		{"nothing asked for: loopback is not", nil, with(func(l *link) { l.arphrd = unix.ARPHRD_LOOPBACK }), false, "the loopback interface"},
		{"the exact name takes a veth", []string{"enp1s0"}, veth, true, ""},
		{"the exact alternative name does", []string{"enx960000010203"}, veth, true, ""},
		{"the MAC address does", []string{"96:00:00:01:02:03"}, veth, true, ""},
		{"the MAC address in capitals with dashes does", []string{"96-00-00-01-02-03"}, veth, true, ""},
		{"a glob does not take a veth", []string{"enp*"}, veth, false, "name it exactly"},
		{"a glob takes a physical NIC", []string{"eth*", "enp?s0"}, physical, true, ""},
		{"a glob matches the alternative name", []string{"enx*"}, physical, true, ""},
		{"another name does not", []string{"eth0"}, physical, false, "not among the NICs asked for (eth0)"},
		{"an exact name does not make a tunnel Ethernet", []string{"enp1s0"}, with(func(l *link) { l.arphrd = unix.ARPHRD_TUNNEL }), false, "not an Ethernet"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := parseSelection(tc.nics)
			if err != nil {
				t.Fatal(err)
			}
			if ok, why := s.takes(tc.link); ok != tc.ok || !strings.Contains(why, tc.why) || (why == "") != (tc.why == "") {
				t.Errorf("takes: %v, %q; want %v, %q", ok, why, tc.ok, tc.why)
			}
		})
	}
	for _, bad := range []string{"", "eth["} {
		if _, err := Open(context.Background(), Config{NICs: []string{bad}}); err == nil {
			t.Errorf("NIC %q is accepted", bad)
		}
	}
}

func TestAddressPicker(t *testing.T) {
	t.Run("the same MAC address gives the same addresses, another gives others", func(t *testing.T) {
		a, b, c := addressPicker(testMAC, nil), addressPicker(testMAC, nil), addressPicker(net.HardwareAddr{1, 2, 3, 4, 5, 6}, nil)
		same := 0
		for range 100 {
			x := a()
			if x != b() {
				t.Fatal("not repeatable")
			}
			if x == c() {
				same++
			}
		}
		if same > 2 {
			t.Errorf("%d of 100 are the same", same)
		}
	})
	t.Run("all are from the range of RFC 3927, and never a destination", func(t *testing.T) {
		pick := addressPicker(testMAC, []netip.Addr{metadata})
		first, last := netip.MustParseAddr("169.254.1.0"), netip.MustParseAddr("169.254.254.255")
		for range 200_000 {
			if a := pick(); a.Less(first) || last.Less(a) || a == metadata {
				t.Fatalf("picked %v", a)
			}
		}
	})
}

// ack makes a reply that is right, for tests to spoil.
func ack(opts ...dhcpv4.Option) *dhcpv4.DHCPv4 {
	return &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootReply, HWType: 1, ClientHWAddr: testMAC, YourIPAddr: net.IP{10, 0, 0, 9},
		Options: dhcpv4.OptionsFromList(append([]dhcpv4.Option{
			dhcpv4.OptMessageType(dhcpv4.MessageTypeAck),
			dhcpv4.OptServerIdentifier(net.IP{10, 0, 0, 1}),
			dhcpv4.OptIPAddressLeaseTime(time.Hour),
			dhcpv4.OptSubnetMask(net.IPv4Mask(255, 255, 255, 0)),
		}, opts...)...),
	}
}

func option(code uint8, value ...byte) dhcpv4.Option {
	return dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(code), value)
}

func TestLease(t *testing.T) {
	addr := netip.MustParseAddr
	for _, tc := range []struct {
		name   string
		opts   []dhcpv4.Option
		to, by string // by "": on the link; "none": no route
	}{
		{"the subnet is on the link", nil, "10.0.0.77", ""},
		{"without a route the rest is not there", nil, "169.254.169.254", "none"},
		{"the router leads to the rest", []dhcpv4.Option{dhcpv4.OptRouter(net.IP{10, 0, 0, 1})}, "169.254.169.254", "10.0.0.1"},
		{"the second router, where the first is nonsense", []dhcpv4.Option{dhcpv4.OptRouter(net.IPv4bcast, net.IP{10, 0, 0, 1})}, "169.254.169.254", "10.0.0.1"},
		{"option 121 before option 3", []dhcpv4.Option{dhcpv4.OptRouter(net.IP{10, 0, 0, 66}), option(121, 0, 10, 0, 0, 1)}, "169.254.169.254", "10.0.0.1"},
		{"the longest prefix of option 121", []dhcpv4.Option{option(121, 0, 10, 0, 0, 1, 32, 169, 254, 169, 254, 10, 0, 0, 2, 16, 169, 254, 10, 0, 0, 3)}, "169.254.169.254", "10.0.0.2"},
		{"gateway 0.0.0.0 is on the link", []dhcpv4.Option{option(121, 16, 169, 254, 0, 0, 0, 0)}, "169.254.169.254", ""},
		{"our own address as gateway is on the link", []dhcpv4.Option{option(121, 0, 10, 0, 0, 9)}, "169.254.169.254", ""},
		{"the destination as its own gateway is on the link", []dhcpv4.Option{option(121, 0, 169, 254, 169, 254)}, "169.254.169.254", ""},
		{"a multicast gateway is passed over", []dhcpv4.Option{option(121, 0, 224, 0, 0, 1, 8, 169, 10, 0, 0, 1)}, "169.254.169.254", "10.0.0.1"},
		{"option 121 cut off is as good as absent", []dhcpv4.Option{dhcpv4.OptRouter(net.IP{10, 0, 0, 1}), option(121, 32, 169, 254)}, "169.254.169.254", "10.0.0.1"},
		{"option 121 with a prefix of 33 is as good as absent", []dhcpv4.Option{dhcpv4.OptRouter(net.IP{10, 0, 0, 1}), option(121, 33, 169, 254, 1, 1, 1, 10, 0, 0, 2)}, "169.254.169.254", "10.0.0.1"},
		{"a /32 has no subnet", []dhcpv4.Option{option(1, 255, 255, 255, 255)}, "10.0.0.77", "none"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l, err := parseLease(ack(tc.opts...), testMAC, 1500)
			if err != nil {
				t.Fatal(err)
			}
			got := "none"
			if gw, ok := l.via(addr(tc.to)); ok {
				got = ""
				if gw.IsValid() {
					got = gw.String()
				}
			}
			if got != tc.by {
				t.Errorf("to %s by %q, want %q", tc.to, got, tc.by)
			}
		})
	}
	for _, tc := range []struct {
		name        string
		opts        []dhcpv4.Option
		life, renew time.Duration
	}{
		{"half of the time, by default", nil, time.Hour, 30 * time.Minute},
		{"the server's T1", []dhcpv4.Option{dhcpv4.OptRenewTimeValue(10 * time.Minute)}, time.Hour, 10 * time.Minute},
		{"a T1 after the end is nonsense", []dhcpv4.Option{dhcpv4.OptRenewTimeValue(2 * time.Hour)}, time.Hour, 30 * time.Minute},
		{"a T1 of 0 is nonsense", []dhcpv4.Option{dhcpv4.OptRenewTimeValue(0)}, time.Hour, 30 * time.Minute},
		{"for ever", []dhcpv4.Option{option(51, 255, 255, 255, 255)}, forever, forever},
	} {
		t.Run("renewed after: "+tc.name, func(t *testing.T) {
			l, err := parseLease(ack(tc.opts...), testMAC, 1500)
			if err != nil || l.life != tc.life || l.renew != tc.renew {
				t.Errorf("%+v, %v", l, err)
			}
		})
	}
	t.Run("the MTU is taken from 576 up to the link's", func(t *testing.T) {
		for mtu, want := range map[uint16]uint32{0: 0, 68: 0, 575: 0, 576: 576, 1450: 1450, 1499: 1499, 1500: 0, 9000: 0} {
			l, err := parseLease(ack(option(26, byte(mtu>>8), byte(mtu))), testMAC, 1500)
			if err != nil || l.mtu != want {
				t.Errorf("MTU %d: %d, %v", mtu, l.mtu, err)
			}
		}
	})
	t.Run("ten thousand routes are cut to what makes sense", func(t *testing.T) {
		l, err := parseLease(ack(option(121, bytes.Repeat([]byte{8, 11, 10, 0, 0, 1}, 10_000)...)), testMAC, 1500)
		if err != nil || len(l.routes) > maxLeaseRoutes+1 {
			t.Errorf("%d routes, %v", len(l.routes), err)
		}
	})
	t.Run("somebody else's reply is refused", func(t *testing.T) {
		if _, err := parseLease(ack(), net.HardwareAddr{1, 2, 3, 4, 5, 6}, 1500); err == nil {
			t.Error("accepted")
		}
	})
}

func TestDatagram(t *testing.T) {
	// A server's answer is a client's message with the ports exchanged.
	answer := func(payload string) []byte {
		b := encodeDatagram(netip.MustParseAddr("10.0.0.1"), []byte(payload))
		b[20], b[21], b[22], b[23] = b[22], b[23], b[20], b[21]
		return b // exchanging words leaves the checksum as it is
	}
	t.Run("what is encoded is decoded, odd lengths and padding too", func(t *testing.T) {
		for _, p := range []string{"", "a", "ab", "abc", strings.Repeat("xyz", 400)} {
			got, ok := decodeDatagram(append(answer(p), 0, 0, 0))
			if !ok || string(got) != p {
				t.Errorf("%q: %q, %v", p, got, ok)
			}
		}
	})
	t.Run("no flipped bit goes unnoticed, but in what nobody looks at", func(t *testing.T) {
		whole := answer("some payload")
		for i := range len(whole) * 8 {
			b := slices.Clone(whole)
			b[i/8] ^= 1 << (i % 8)
			if got, ok := decodeDatagram(b); ok {
				t.Errorf("bit %d of byte %d: %q", i%8, i/8, got)
			}
		}
	})
	t.Run("a checksum left to the hardware is accepted", func(t *testing.T) {
		b := answer("some payload")
		partial := fold(pseudo(b))
		b[26], b[27] = byte(partial>>8), byte(partial)
		if _, ok := decodeDatagram(b); !ok {
			t.Error("refused")
		}
	})
	t.Run("the kernel's filter and the decoder agree", func(t *testing.T) {
		prog, err := dhcpFilter()
		if err != nil {
			t.Fatal(err)
		}
		vm := vmOf(t, prog)
		fragment := answer("x")
		fragment[6] |= 0x20
		tcp := answer("x")
		tcp[9] = 6
		for name, tc := range map[string]struct {
			b  []byte
			ok bool
		}{
			"an answer": {answer("x"), true}, "a question": {encodeDatagram(netip.IPv4Unspecified(), nil), false},
			"a fragment": {fragment, false}, "TCP": {tcp, false}, "nothing": {nil, false},
		} {
			if n, err := vm.Run(tc.b); err != nil || (n > 0) != tc.ok {
				t.Errorf("%s: the filter takes %d bytes, %v", name, n, err)
			}
			if _, ok := decodeDatagram(tc.b); ok != tc.ok {
				t.Errorf("%s: decoded: %v", name, ok)
			}
		}
	})
}

func vmOf(t testing.TB, prog []bpf.RawInstruction) *bpf.VM {
	t.Helper()
	ins, _ := bpf.Disassemble(prog)
	vm, err := bpf.NewVM(ins)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

func TestARP(t *testing.T) {
	ours, theirs := [6]byte(testMAC), [6]byte{1, 2, 3, 4, 5, 6}
	ip, other, none := netip.MustParseAddr("169.254.7.9"), netip.MustParseAddr("169.254.7.8"), netip.IPv4Unspecified()
	prog, err := arpFilter(ip)
	if err != nil {
		t.Fatal(err)
	}
	vm := vmOf(t, prog)
	for _, tc := range []struct {
		name             string
		p                arpPacket
		passes           bool // the kernel's filter
		probing, settled bool // a conflict: while probing, and later
	}{
		{"a reply to our probe", arpPacket{op: 2, senderMAC: theirs, senderIP: ip, targetMAC: ours, targetIP: none}, true, true, true},
		{"another host's announcement of our address", arpPacket{op: 1, senderMAC: theirs, senderIP: ip, targetIP: ip}, true, true, true},
		{"another host's question from our address", arpPacket{op: 1, senderMAC: theirs, senderIP: ip, targetIP: other}, true, true, true},
		{"another host's probe for our address", arpPacket{op: 1, senderMAC: theirs, senderIP: none, targetIP: ip}, true, true, false},
		{"our own probe, come back", arpPacket{op: 1, senderMAC: ours, senderIP: none, targetIP: ip}, true, false, false},
		{"our own announcement, come back", arpPacket{op: 1, senderMAC: ours, senderIP: ip, targetIP: ip}, true, false, false},
		{"a question for our address", arpPacket{op: 1, senderMAC: theirs, senderIP: other, targetIP: ip}, true, false, false},
		{"a probe for another address", arpPacket{op: 1, senderMAC: theirs, senderIP: none, targetIP: other}, false, false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := tc.p.marshal()
			got, ok := parseARP(b)
			if !ok || got != tc.p {
				t.Fatalf("%+v came back as %+v, %v", tc.p, got, ok)
			}
			if n, err := vm.Run(b); err != nil || (n > 0) != tc.passes {
				t.Errorf("the filter takes %d bytes, %v", n, err)
			}
			if c := got.conflicts(ours, ip, true); c != tc.probing {
				t.Errorf("while probing: %v", c)
			}
			if c := got.conflicts(ours, ip, false); c != tc.settled {
				t.Errorf("later: %v", c)
			}
		})
	}
	t.Run("what is not ARP for IPv4 over Ethernet is passed over", func(t *testing.T) {
		b := arpPacket{op: 2, senderMAC: theirs, senderIP: ip, targetIP: ip}.marshal()
		b[4] = 8
		if _, ok := parseARP(b); ok {
			t.Error("accepted")
		}
		if _, ok := parseARP(b[:27]); ok {
			t.Error("accepted")
		}
	})
}

func TestPath(t *testing.T) {
	ctx := context.Background()
	dial := dialVia(1, "lo", netip.MustParseAddr("127.0.0.1"), false)
	for _, tc := range []struct{ name, network, address string }{
		{"a name", "tcp", "localhost:80"},
		{"no port", "tcp", "127.0.0.1"},
		{"another family", "tcp", "[::1]:80"},
		{"another network", "unix", "127.0.0.1:80"},
	} {
		t.Run(tc.name+" is refused", func(t *testing.T) {
			p := NewPath(ctx, "lo", LinkLocal, dial)
			if c, err := p.DialContext(ctx, tc.network, tc.address); err == nil {
				c.Close()
				t.Error("accepted")
			}
		})
	}
	t.Run("a path of NewPath lasts until its context ends, and connections over it are closed then", func(t *testing.T) {
		ctx, cancel := context.WithCancel(ctx)
		near, far := net.Pipe()
		p := NewPath(ctx, "eth0", DHCP, func(context.Context, string, string) (net.Conn, error) { return near, nil })
		if p.String() != "eth0/dhcp" || p.Err() != nil {
			t.Errorf("%v: %v", p, p.Err())
		}
		if _, err := p.DialContext(ctx, "tcp", "169.254.169.254:80"); err != nil {
			t.Fatal(err)
		}
		cancel()
		<-p.Done()
		if _, err := far.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("read: %v", err)
		}
		if !errors.Is(p.Err(), ErrPathDone) || !errors.Is(p.Err(), context.Canceled) {
			t.Errorf("ended by %v", p.Err())
		}
	})
	t.Run("a closed connection is forgotten", func(t *testing.T) {
		near, _ := net.Pipe()
		p := NewPath(ctx, "eth0", DHCP, func(context.Context, string, string) (net.Conn, error) { return near, nil })
		c, err := p.DialContext(ctx, "tcp", "169.254.169.254:80")
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if len(p.conns) != 0 {
			t.Errorf("%d connections are remembered", len(p.conns))
		}
	})
}

func TestText(t *testing.T) {
	for _, tc := range []struct{ got, want string }{
		{(&Error{Op: "no offer", Interface: "eth0", Method: DHCP, Tries: 6, Elapsed: 3140 * time.Millisecond}).Error(), "earlynet: eth0 (dhcp): no offer after 6 tries in 3.1s"},
		{(&Error{Op: "find a NIC", Err: ErrNoNIC}).Error(), "earlynet: find a NIC: no usable NIC"},
		{(&UndoError{Interface: "eth0", What: "address 169.254.7.9/32", Err: unix.EBUSY}).Error(), "earlynet: eth0: address 169.254.7.9/32 is left behind: device or resource busy"},
		{Event{Interface: "eth0", Method: LinkLocal, Kind: PathReady, Detail: "169.254.7.9"}.String(), "eth0 (linklocal): path ready: 169.254.7.9"},
	} {
		if tc.got != tc.want {
			t.Errorf("%q, want %q", tc.got, tc.want)
		}
	}
	for k := NICFound; k <= NoNIC; k++ {
		if strings.HasPrefix(k.String(), "event ") {
			t.Errorf("kind %d has no words", k)
		}
	}
	for _, m := range []Method{LinkLocal, DHCP, IPv6} {
		if got, err := ParseMethod(m.String()); err != nil || got != m {
			t.Errorf("%v: %v, %v", m, got, err)
		}
	}
	if _, err := ParseMethod("carrier pigeon"); err == nil {
		t.Error("carrier pigeon is accepted")
	}
}

func TestForeign(t *testing.T) {
	for _, tc := range []struct {
		name                string
		a                   address
		ours, foreign, used bool
	}{
		{"ours", address{prefix: netip.MustParsePrefix("169.254.7.9/32"), proto: rtprotNametag, valid: 60}, true, true, true},
		{"ours, on a kernel without marks", address{prefix: netip.MustParsePrefix("169.254.7.9/32"), valid: 59}, true, true, true},
		{"taken over for ever", address{prefix: netip.MustParsePrefix("169.254.7.9/32"), valid: ^uint32(0)}, false, true, true},
		{"taken over for a lease", address{prefix: netip.MustParsePrefix("169.254.7.9/32"), proto: rtprotNametag, valid: 3600}, false, true, true},
		{"the kernel's fe80::", address{prefix: netip.MustParsePrefix("fe80::1/64"), proto: 3, valid: ^uint32(0)}, false, false, true},
		{"the kernel's fe80::, not usable yet", address{prefix: netip.MustParsePrefix("fe80::1/64"), flags: unix.IFA_F_TENTATIVE, valid: ^uint32(0)}, false, false, false},
		{"the kernel's fe80::, which somebody else has", address{prefix: netip.MustParsePrefix("fe80::1/64"), flags: unix.IFA_F_DADFAILED, valid: ^uint32(0)}, false, false, false},
		{"from a router advertisement", address{prefix: netip.MustParsePrefix("2001:db8::1/64"), valid: 3600}, false, false, true},
		{"somebody's IPv6 address", address{prefix: netip.MustParsePrefix("2001:db8::1/64"), flags: unix.IFA_F_PERMANENT, valid: ^uint32(0)}, false, true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.a.ours(); got != tc.ours {
				t.Errorf("ours: %v", got)
			}
			if got := tc.a.foreign(); got != tc.foreign {
				t.Errorf("foreign: %v", got)
			}
			if got := tc.a.usable(); got != tc.used {
				t.Errorf("usable: %v", got)
			}
		})
	}
}

// FuzzARP reads a packet, and what is made of it again.
func FuzzARP(f *testing.F) {
	f.Add(arpPacket{op: 1, senderMAC: [6]byte(testMAC), senderIP: netip.IPv4Unspecified(), targetIP: netip.MustParseAddr("169.254.7.7")}.marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := parseARP(b)
		if !ok {
			return
		}
		if again, ok := parseARP(p.marshal()); !ok || again != p {
			t.Errorf("%+v became %+v, %v", p, again, ok)
		}
		if p.conflicts([6]byte(testMAC), p.targetIP, true) && p.senderMAC == [6]byte(testMAC) {
			t.Errorf("our own packet is a conflict: %+v", p)
		}
	})
}

// replyIn is the reply in a datagram, or nil.
func replyIn(datagram []byte) *dhcpv4.DHCPv4 {
	payload, ok := decodeDatagram(datagram)
	if !ok {
		return nil
	}
	return parseReply(payload, testMAC)
}

// FuzzDHCP sends a datagram through everything that looks at one.
func FuzzDHCP(f *testing.F) {
	for _, m := range []*dhcpv4.DHCPv4{
		ack(), ack(option(121, 0, 10, 0, 0, 1, 32, 169, 254, 169, 254, 10, 0, 0, 2)), ack(option(26, 5, 0xaa), option(3, 1, 2)),
	} {
		f.Add(m.ToBytes(), uint16(0))
	}
	f.Fuzz(func(t *testing.T, payload []byte, cut uint16) {
		if len(payload) > 1400 {
			return
		}
		b := encodeDatagram(netip.MustParseAddr("10.0.0.1"), payload)
		b[20], b[21], b[22], b[23] = b[22], b[23], b[20], b[21]
		replyIn(b[:len(b)-min(int(cut), len(b))])
		m := replyIn(b)
		if m == nil {
			return
		}
		l, err := parseLease(m, testMAC, 1500)
		if err != nil {
			return
		}
		if !l.prefix.IsValid() || !assignable(l.prefix.Addr()) || l.life < minLease || l.renew <= 0 || l.renew > l.life || len(l.routes) > maxLeaseRoutes+1 {
			t.Errorf("absurd lease: %+v", l)
		}
		gw, ok := l.via(metadata)
		if gw.IsValid() && (!ok || !assignable(gw)) {
			t.Errorf("absurd gateway %v", gw)
		}
		for _, r := range l.routes {
			rt := route{index: 1, dst: r.dst, gateway: r.gateway}
			if _, err := rt.message().MarshalBinary(); err != nil {
				t.Errorf("route %+v: %v", r, err)
			}
		}
	})
}

// FuzzNetlink feeds notifications to a network that does not act on them.
func FuzzNetlink(f *testing.F) {
	l, _ := (&rtnetlink.LinkMessage{Index: 2, Type: unix.ARPHRD_ETHER, Attributes: &rtnetlink.LinkAttributes{Name: "eth0", Address: testMAC}}).MarshalBinary()
	f.Add(uint16(unix.RTM_NEWLINK), l)
	f.Add(uint16(unix.RTM_DELLINK), l)
	a, _ := addressMessage(2, netip.MustParsePrefix("10.0.0.1/24")).MarshalBinary()
	f.Add(uint16(unix.RTM_NEWADDR), a)
	f.Add(uint16(unix.RTM_DELADDR), a)
	rt, _ := route{index: 2, dst: netip.MustParsePrefix("10.0.0.0/8"), gateway: metadata}.message().MarshalBinary()
	f.Add(uint16(unix.RTM_NEWROUTE), rt)
	f.Fuzz(func(_ *testing.T, typ uint16, data []byte) {
		n, err := newNetwork(context.Background(), Config{NICs: []string{"none of these"}})
		if err != nil {
			return
		}
		defer n.rtnl.close()
		defer n.cancel()
		n.host = &Path{} // nothing is brought up
		n.apply(netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(typ)}, Data: data})
		_, _ = parseRoute(data)
		_, _, _ = parseNeighbourTable(data)
	})
}

func TestCloseDoesNotWaitForEverForTheKernel(t *testing.T) {
	n, err := Host(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	release, closed := make(chan struct{}), make(chan struct{})
	n.closers.Go("closing", func() { <-release; close(closed) }, n.died)
	if err := n.Close(); err != nil { // or the test hangs
		t.Error(err)
	}
	close(release)
	<-closed
}
