package cloud

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

func TestLease(t *testing.T) {
	for _, test := range []struct {
		name                     string
		shape                    Shape
		address, server, routers string
		routes                   string
		mtu                      int
	}{
		{
			"a public NIC gets a /32 and a gateway outside it", Public, "203.0.113.17", "172.31.1.1", "[172.31.1.1]",
			"route to 172.31.1.1/32 via 0.0.0.0; route to 0.0.0.0/0 via 172.31.1.1", 1500,
		},
		{
			"a private NIC gets option 121 alone and a smaller MTU", Private, "10.0.0.2", "10.0.0.1", "[]",
			"route to 10.0.0.1/32 via 0.0.0.0; route to 10.0.0.0/16 via 10.0.0.1; route to 169.254.169.254/32 via 10.0.0.1", 1450,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCloud(t, Config{})
			w := plugWire(t, c, NIC{Shape: test.shape})
			offered := w.dhcp(discover(t), soon)
			if offered == nil || offered.MessageType() != dhcpv4.MessageTypeOffer {
				t.Fatalf("offer: %v", offered)
			}
			acked := w.dhcp(request(t, offered), soon)
			if acked == nil || acked.MessageType() != dhcpv4.MessageTypeAck {
				t.Fatalf("acknowledgement: %v", acked)
			}
			for _, o := range []*offer{offered, acked} {
				ones, _ := o.SubnetMask().Size()
				routes := dhcpv4.Routes(o.ClasslessStaticRoute())
				if o.YourIPAddr.String() != test.address || ones != 32 || o.ServerIdentifier().String() != test.server ||
					sprint(o.Router()) != test.routers || routes.String() != test.routes || mtuOf(o) != test.mtu ||
					o.IPAddressLeaseTime(0) != 24*time.Hour {
					t.Errorf("got %s\n%s", o.Summary(), routes)
				}
				if o.mac.String() != hostMAC.String() || o.to.String() != test.address {
					t.Errorf("sent to %s at %s", o.to, o.mac)
				}
			}
			if e := c.Exchanges(); len(e) != 2 || e[0].Message.MessageType() != dhcpv4.MessageTypeDiscover ||
				e[1].Message.MessageType() != dhcpv4.MessageTypeRequest {
				t.Errorf("exchanges: %v", e)
			}
		})
	}
}

func sprint(ips []net.IP) string {
	s := "["
	for i, ip := range ips {
		if i > 0 {
			s += " "
		}
		s += ip.String()
	}
	return s + "]"
}

func TestDHCPRules(t *testing.T) {
	plug := func(t *testing.T) *wire { return plugWire(t, newCloud(t, Config{}), NIC{}) }
	t.Run("a client that wants a broadcast gets one", func(t *testing.T) {
		if o := plug(t).dhcp(discover(t, dhcpv4.WithBroadcast(true)), soon); o == nil || o.mac.String() != everybody.String() ||
			o.to.String() != "255.255.255.255" {
			t.Errorf("got %+v", o)
		}
	})
	t.Run("options that were not asked for are not sent", func(t *testing.T) {
		msg, err := dhcpv4.NewDiscovery(hostMAC)
		if err != nil {
			t.Fatal(err)
		}
		msg.UpdateOption(dhcpv4.OptParameterRequestList(dhcpv4.OptionSubnetMask))
		if o := plug(t).dhcp(msg, soon); o == nil || o.Router() != nil || o.ClasslessStaticRoute() != nil || mtuOf(o) != 0 {
			t.Errorf("got %v", o)
		}
	})
	t.Run("a request to another server is left to it", func(t *testing.T) {
		w := plug(t)
		o := w.dhcp(discover(t), soon)
		r := request(t, o)
		r.UpdateOption(dhcpv4.OptServerIdentifier(net.IP{192, 0, 2, 1}))
		if a := w.dhcp(r, quiet); a != nil {
			t.Errorf("got %s", a.Summary())
		}
	})
	t.Run("a request for an address of another network is refused by broadcast", func(t *testing.T) {
		w := plug(t)
		o := w.dhcp(discover(t), soon)
		r := request(t, o)
		r.UpdateOption(dhcpv4.OptRequestedIPAddress(net.IP{192, 0, 2, 77}))
		if a := w.dhcp(r, soon); a == nil || a.MessageType() != dhcpv4.MessageTypeNak || a.mac.String() != everybody.String() {
			t.Errorf("got %v", a)
		}
	})
	t.Run("garbage gets no answer and does no harm", func(t *testing.T) {
		w := plug(t)
		for _, body := range [][]byte{nil, {1}, make([]byte, 240), discover(t).ToBytes()[:100]} {
			w.sendDHCP(body)
		}
		if o := w.nextDHCP(quiet); o != nil {
			t.Errorf("got %s", o.Summary())
		}
		if o := w.dhcp(discover(t), soon); o == nil {
			t.Error("it is dead")
		}
	})
}

func TestDHCPFaults(t *testing.T) {
	plug := func(t *testing.T, servers ...DHCP) *wire {
		return plugWire(t, newCloud(t, Config{}), NIC{DHCP: append([]DHCP{}, servers...)})
	}
	t.Run("none", func(t *testing.T) {
		if o := plug(t).dhcp(discover(t), quiet); o != nil {
			t.Error("an offer")
		}
	})
	t.Run("silence", func(t *testing.T) {
		if o := plug(t, DHCP{Silent: true}).dhcp(discover(t), quiet); o != nil {
			t.Error("an offer")
		}
	})
	t.Run("silence until a time", func(t *testing.T) {
		w := plug(t, DHCP{After: 4 * quiet})
		if o := w.dhcp(discover(t), quiet); o != nil {
			t.Error("an early offer")
		}
		time.Sleep(4 * quiet)
		if o := w.dhcp(discover(t), soon); o == nil {
			t.Error("no offer")
		}
	})
	t.Run("an offer and no acknowledgement", func(t *testing.T) {
		w := plug(t, DHCP{OfferOnly: true})
		if a := w.dhcp(request(t, w.dhcp(discover(t), soon)), quiet); a != nil {
			t.Errorf("got %s", a.Summary())
		}
	})
	t.Run("a refusal of what was offered", func(t *testing.T) {
		w := plug(t, DHCP{NAK: true})
		if a := w.dhcp(request(t, w.dhcp(discover(t), soon)), soon); a == nil || a.MessageType() != dhcpv4.MessageTypeNak {
			t.Errorf("got %v", a)
		}
	})
	t.Run("options added, replaced and taken away", func(t *testing.T) {
		o := plug(t, DHCP{Extra: map[uint8][]byte{3: nil, 15: []byte("example"), 26: {0, 68}}}).dhcp(discover(t), soon)
		if o == nil || o.Router() != nil || o.DomainName() != "example" || mtuOf(o) != 68 {
			t.Errorf("got %v", o)
		}
	})
	t.Run("a rogue server answers first and each acknowledges its own", func(t *testing.T) {
		rogue := netip.MustParseAddr("192.0.2.1")
		w := plug(t, DHCP{ID: rogue, Address: netip.MustParsePrefix("192.0.2.77/24"), Router: rogue, Routes: []Route{}}, DHCP{})
		first := w.dhcp(discover(t), soon)
		second := w.nextDHCP(soon)
		if first == nil || second == nil || first.YourIPAddr.String() != "192.0.2.77" || second.YourIPAddr.String() != "203.0.113.17" ||
			first.ClasslessStaticRoute() != nil {
			t.Fatalf("got %v and %v", first, second)
		}
		if a := w.dhcp(request(t, second), soon); a == nil || a.YourIPAddr.String() != "203.0.113.17" {
			t.Errorf("got %v", a)
		}
	})
	t.Run("a mangled message goes out as it is", func(t *testing.T) {
		w := plug(t, DHCP{Mangle: func(b []byte) []byte { return b[:20] }})
		w.sendDHCP(discover(t).ToBytes())
		if f := w.next(soon); len(f) != 14+20+8+20 {
			t.Errorf("%d bytes", len(f))
		}
	})
}
