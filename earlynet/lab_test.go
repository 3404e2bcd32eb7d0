//go:build linux

package earlynet

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/nametag-boot/nametag/internal/testvm"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
)

// hostname fetches the name over a path.
func hostname(t testing.TB, p *Path) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), longEnough())
	defer cancel()
	tr := &http.Transport{DialContext: p.DialContext, DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://169.254.169.254/hetzner/v1/metadata/hostname", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Errorf("%v: %v", p, err)
		return ""
	}
	defer resp.Body.Close()
	b := make([]byte, 300)
	n, _ := resp.Body.Read(b)
	return strings.TrimSpace(string(b[:n]))
}

// TestShapes goes through the kinds of NIC that Hetzner has.
func TestShapes(t *testing.T) {
	server := cloud.Server{Hostname: "my-server"}
	for _, tc := range []struct {
		name   string
		nic    cloud.NIC
		method Method
		reach  bool
	}{
		{"a public NIC answers from a link-local address", cloud.NIC{}, LinkLocal, true},
		{"a public NIC answers from its lease", cloud.NIC{}, DHCP, true},
		{"an IPv6-only NIC answers from a link-local address", cloud.NIC{Shape: cloud.IPv6Only}, LinkLocal, true},
		{"a private NIC answers from its lease by the gateway", cloud.NIC{Shape: cloud.Private}, DHCP, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			testvm.Start(t, cloud.Config{Server: server}, testvm.NIC("eth0", tc.nic))
			p := next(t, openBy(t, tc.method))
			if got := hostname(t, p); got != "my-server" {
				t.Errorf("name %q", got)
			}
		})
	}
	t.Run("two NICs, the second of which loses what is sent to the service: both become paths, one works", func(t *testing.T) {
		testvm.Start(t, cloud.Config{Server: server}, testvm.NIC("eth1", cloud.NIC{Shape: cloud.Private, BlackHole: true}))
		n := open(context.Background(), t, Config{NICs: []string{"eth0", "eth1"}, Methods: []Method{DHCP}})
		for range 2 {
			if p := next(t, n); p.Interface == "eth0" {
				if got := hostname(t, p); got != "my-server" {
					t.Errorf("name %q", got)
				}
			}
		}
	})
	for _, method := range []Method{LinkLocal, DHCP} {
		t.Run("two NICs, both of which reach the service: a connection goes over the NIC of its path, by "+method.String(), func(t *testing.T) {
			lab := testvm.Start(t, cloud.Config{Server: server}, testvm.NIC("eth1", cloud.NIC{}))
			n := open(context.Background(), t, Config{NICs: []string{"eth0", "eth1"}, Methods: []Method{method}})
			paths := []*Path{next(t, n), next(t, n)} // the kernel may choose between two routes when both are there
			if paths[0].Interface == paths[1].Interface {
				t.Fatalf("two paths over one NIC: %v", paths)
			}
			for _, p := range paths {
				asked := len(lab.Cloud.Requests())
				if got := hostname(t, p); got != "my-server" {
					t.Errorf("name %q", got)
				}
				if all := lab.Cloud.Requests()[asked:]; len(all) != 1 || all[0].NIC != p.Interface {
					t.Errorf("by the path over %s it was asked %+v", p.Interface, all)
				}
			}
		})
	}
	t.Run("a NIC that is attached late joins in", func(t *testing.T) {
		lab := testvm.Start(t, cloud.Config{Server: server}, testvm.Without("eth0"))
		n := openBy(t)
		if st := n.Status(); len(st) != 1 || !strings.Contains(st[0].Error(), ErrNoNIC.Error()) {
			t.Errorf("status: %v", st)
		}
		lab.Plug("eth0", cloud.NIC{})
		if got := hostname(t, next(t, n)); got != "my-server" {
			t.Errorf("name %q", got)
		}
		n.Close()
	})
	t.Run("a neighbour with our address makes us yield", func(t *testing.T) {
		mac := []byte{0x86, 0, 0, 1, 2, 3}
		taken := addressPicker(mac, nil)()
		testvm.Start(t, cloud.Config{Server: server}, testvm.NIC("eth0", cloud.NIC{MAC: mac, Neighbours: []netip.Addr{taken}}))
		n := openBy(t, LinkLocal)
		p := next(t, n)
		if p.Source == taken {
			ended(t, p)
			p = next(t, n)
		}
		if got := hostname(t, p); got != "my-server" || p.Source == taken {
			t.Errorf("name %q from %v", got, p.Source)
		}
	})
}

// TestDHCPFaults goes through what servers do wrong.
func TestDHCPFaults(t *testing.T) {
	good := netip.MustParseAddr("172.31.1.1")
	other := netip.MustParseAddr("172.31.1.66")
	nowhere := []cloud.Route{{Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("172.31.1.99")}}
	bad := func(extra map[uint8][]byte) cloud.DHCP { return cloud.DHCP{ID: other, Extra: extra} }

	for _, tc := range []struct {
		name    string
		servers []cloud.DHCP
		link    cloud.Link
		kind    EventKind // that must be told, if any
		text    string
	}{
		{name: "the first server offers and never acknowledges", servers: []cloud.DHCP{{ID: other, OfferOnly: true}, {ID: good}}},
		{name: "the first server refuses its own offer", servers: []cloud.DHCP{{ID: other, NAK: true}, {ID: good}}, kind: DHCPNak, text: "172.31.1.66 refused its own offer"},
		{name: "the only server speaks up late", servers: []cloud.DHCP{{After: 500 * time.Millisecond}}},
		{name: "a server's lease leads nowhere, another's works", servers: []cloud.DHCP{{ID: other, Address: netip.MustParsePrefix("203.0.113.99/32"), Routes: nowhere}, {ID: good, After: 100 * time.Millisecond}}, kind: PathFailed, text: "leave the lease of 172.31.1.66"},
		{name: "a lease of one second", servers: []cloud.DHCP{bad(map[uint8][]byte{51: {0, 0, 0, 1}}), {ID: good}}, kind: PathFailed, text: "lease of 1s is too short"},
		{name: "an address from 127/8", servers: []cloud.DHCP{{ID: other, Address: netip.MustParsePrefix("127.0.0.9/8")}, {ID: good}}, kind: PathFailed, text: "127.0.0.9 cannot be used"},
		{name: "a multicast address", servers: []cloud.DHCP{{ID: other, Address: netip.MustParsePrefix("224.0.0.9/32")}, {ID: good}}, kind: PathFailed, text: "224.0.0.9 cannot be used"},
		{name: "the service's own address", servers: []cloud.DHCP{{ID: other, Address: netip.MustParsePrefix("169.254.169.254/32")}, {ID: good}}, kind: PathFailed, text: "169.254.169.254 cannot be used"},
		{name: "a mask with holes and an absurd MTU", servers: []cloud.DHCP{{Extra: map[uint8][]byte{1: {255, 0, 255, 0}, 26: {0, 1}}}}},
		{name: "classless routes that end in the middle: the router counts", servers: []cloud.DHCP{{Extra: map[uint8][]byte{121: {32, 1, 2, 3}}}}},
		{name: "messages cut off", servers: []cloud.DHCP{{ID: other, Mangle: func(b []byte) []byte { return b[:len(b)/2] }}, {ID: good}}},
		{name: "an option longer than the message", servers: []cloud.DHCP{{ID: other, Mangle: func(b []byte) []byte { return append(b[:240:240], 53, 200, 2) }}, {ID: good}}},
		{name: "no server identifier", servers: []cloud.DHCP{bad(map[uint8][]byte{54: nil}), {ID: good}}, kind: PathFailed, text: "unusable offer"},
		{name: "a link that loses a third, corrupts, duplicates and reorders", servers: []cloud.DHCP{{}}, link: cloud.Link{
			Up:   cloud.Impairment{Loss: 0.3, Duplicate: 0.1, Reorder: 0.1, Corrupt: 0.1},
			Down: cloud.Impairment{Loss: 0.3, Duplicate: 0.1, Reorder: 0.1, Corrupt: 0.1},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			testvm.Start(t, cloud.Config{Server: cloud.Server{Hostname: "my-server"}, Link: tc.link, Seed: 7},
				testvm.NIC("eth0", cloud.NIC{DHCP: tc.servers}))
			n := openBy(t, DHCP)
			p := next(t, n)
			if strings.Contains(tc.text, "leave the lease") {
				ended(t, p)
				p = next(t, n)
			}
			if tc.link == (cloud.Link{}) {
				if got := hostname(t, p); got != "my-server" {
					t.Errorf("name %q", got)
				}
			}
			if tc.kind != 0 && !n.saw(tc.kind, tc.text) {
				t.Errorf("nobody was told %q", tc.text)
			}
		})
	}

	t.Run("a renewal gives the address its time at once", func(t *testing.T) {
		testvm.Start(t, cloud.Config{}, testvm.NIC("eth0", cloud.NIC{
			DHCP: []cloud.DHCP{{Lease: 10 * time.Second, Extra: map[uint8][]byte{58: {0, 0, 0, 3}}}},
		}))
		n := openBy(t, DHCP)
		p := next(t, n)
		left := func() (seconds int) {
			as, err := n.rtnl.addresses(p.Index)
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range as {
				if a.prefix.Addr() == p.Source {
					seconds = int(a.valid)
				}
			}
			return seconds
		}
		eventually(t, "the lease to run down by a part", func() bool { return left() < 9 })
		eventually(t, "its whole time again", func() bool { return left() >= 9 })
		if p.Err() != nil {
			t.Errorf("the path ended: %v", p.Err())
		}
	})
	t.Run("a lease that ends is said to have ended", func(t *testing.T) {
		messages := 0
		testvm.Start(t, cloud.Config{}, testvm.NIC("eth0", cloud.NIC{DHCP: []cloud.DHCP{{
			Lease: 10 * time.Second,
			Mangle: func(b []byte) []byte {
				if messages++; messages > 2 { // the offer and its acknowledgement
					return b[:100]
				}
				return b
			},
		}}}))
		n := openBy(t, DHCP)
		p := next(t, n)
		select {
		case <-p.Done():
		case <-time.After(time.Minute):
			t.Fatal("it has not ended")
		}
		if err := p.Err(); !errors.Is(err, errLeaseEnded) {
			t.Errorf("the path ended by %v", err)
		}
	})
	t.Run("a lease is asked for again before it ends", func(t *testing.T) {
		lab := testvm.Start(t, cloud.Config{}, testvm.NIC("eth0", cloud.NIC{
			DHCP: []cloud.DHCP{{Lease: 20 * time.Second, Extra: map[uint8][]byte{58: {0, 0, 0, 1}}}},
		}))
		n := openBy(t, DHCP)
		p := next(t, n)
		eventually(t, "the second renewal", func() bool {
			renewals := 0
			for _, e := range lab.Cloud.Exchanges() {
				if e.Message.MessageType() == dhcpv4.MessageTypeRequest && e.Message.ClientIPAddr.String() == p.Source.String() {
					renewals++
				}
			}
			return renewals >= 2
		})
		if p.Err() != nil {
			t.Errorf("the path ended: %v", p.Err())
		}
	})
	for about, kind := range map[string]dhcpv4.MessageType{
		"a refusal of a renewal ends nothing":                        dhcpv4.MessageTypeNak,
		"a FORCERENEW (RFC 3203) ends nothing":                       9,
		"an offer where an acknowledgement is awaited ends nothing":  dhcpv4.MessageTypeOffer,
		"an acknowledgement of another lease in a renewal is no end": dhcpv4.MessageTypeAck,
	} {
		t.Run(about, func(t *testing.T) {
			lab := testvm.Start(t, cloud.Config{}, testvm.NIC("eth0", cloud.NIC{DHCP: []cloud.DHCP{
				cloud.ForgedDHCP(kind),
				{Lease: 20 * time.Second, Extra: map[uint8][]byte{58: {0, 0, 0, 1}}},
			}}))
			n := openBy(t, DHCP)
			p := next(t, n)
			renewals := func() (n int) {
				for _, e := range lab.Cloud.Exchanges() {
					if e.Message.MessageType() == dhcpv4.MessageTypeRequest && e.Message.ClientIPAddr.String() == p.Source.String() {
						n++
					}
				}
				return n
			}
			eventually(t, "the second renewal", func() bool { return renewals() >= 2 })
			if p.Err() != nil {
				t.Errorf("the path ended: %v", p.Err())
			}
			if kind == dhcpv4.MessageTypeNak && !n.saw(DHCPNak, "") {
				t.Error("nobody was told")
			}
		})
	}
}
