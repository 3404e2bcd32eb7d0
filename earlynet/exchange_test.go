//go:build linux

package earlynet

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// An answer that comes when others are asked is not lost.
func TestAnAcknowledgementThatComesLate(t *testing.T) {
	network, err := bareNetwork(context.Background(), Config{Destinations: []netip.Addr{metadata}})
	if err != nil {
		t.Fatal(err)
	}
	defer network.cancel()
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	slow := offered("10.0.0.9", "10.0.0.1", "10.0.0.1")
	begin := func() (*exchange, *candidate) {
		x := newExchange(newNIC(network, newView(link{index: 1, name: "eth0", mac: mac})), link{index: 1, name: "eth0", mac: mac})
		c, _ := x.heard.hear(slow, slow.yields(network.cfg.Destinations), [6]byte{1})
		return x, c
	}
	ack := func(id dhcpv4.TransactionID, life time.Duration) reply {
		m, err := dhcpv4.New(
			dhcpv4.WithTransactionID(id), dhcpv4.WithMessageType(dhcpv4.MessageTypeAck), dhcpv4.WithYourIP(slow.prefix.Addr().AsSlice()),
			dhcpv4.WithServerIP(slow.server.AsSlice()), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(slow.server.AsSlice())),
			dhcpv4.WithRouter(slow.server.AsSlice()), dhcpv4.WithLeaseTime(uint32(life/time.Second)), dhcpv4.WithHwAddr(mac),
		)
		if err != nil {
			t.Fatal(err)
		}
		m.OpCode = dhcpv4.OpcodeBootReply
		return reply{DHCPv4: m}
	}
	requested := func(x *exchange, c *candidate) time.Time {
		when := time.Now().Add(-3 * time.Second)
		waitFor([]*candidate{c}, when)
		return when
	}

	t.Run("counts when its turn comes, once, and from when it was asked for", func(t *testing.T) {
		x, c := begin()
		when := requested(x, c)
		for range 2 { // a server says it twice
			if got := x.granted(ack(x.transaction, time.Hour), nil); got != c {
				t.Fatalf("it is said to be of %+v", got)
			}
		}
		if l := c.take(); l == nil || !l.begun.Equal(when) || l.life != time.Hour {
			t.Errorf("got %+v, want an hour from %v", l, when)
		}
		if x.granted(ack(x.transaction, time.Hour), nil); c.take() != nil {
			t.Error("it counts twice")
		}
	})
	t.Run("counts for as long as the longest of them says", func(t *testing.T) {
		x, c := begin()
		requested(x, c)
		for _, life := range []time.Duration{time.Minute, time.Hour, 2 * time.Minute} {
			x.granted(ack(x.transaction, life), nil)
		}
		if l := c.take(); l == nil || l.life != time.Hour {
			t.Errorf("got %+v, want an hour", l)
		}
	})
	t.Run("does not count when the lease is over", func(t *testing.T) {
		x, c := begin()
		waitFor([]*candidate{c}, time.Now().Add(-time.Hour))
		x.granted(ack(x.transaction, time.Hour), nil)
		if l := c.take(); l != nil {
			t.Errorf("got %+v", l)
		}
	})
	t.Run("does not count where nobody has asked, or in another transaction", func(t *testing.T) {
		x, c := begin()
		x.granted(ack(x.transaction, time.Hour), nil)
		if c.grant != nil {
			t.Errorf("got %+v, which nobody has asked for", c.grant)
		}
		requested(x, c)
		if got := x.granted(ack(dhcpv4.TransactionID{1, 2, 3, 4}, time.Hour), nil); got != nil || c.grant != nil {
			t.Errorf("got %+v in another transaction", c.grant)
		}
	})
	t.Run("is for the request where that is under way", func(t *testing.T) {
		x, c := begin()
		requested(x, c)
		if got := x.granted(ack(x.transaction, time.Hour), []*candidate{c}); got != nil || c.grant != nil {
			t.Errorf("%+v is taken away from it", c.grant)
		}
	})
	t.Run("ends the wait for offers at once, if it was asked for last", func(t *testing.T) {
		x, c := begin()
		requested(x, c)
		if _, l := x.late(ack(x.transaction, time.Hour)); l != nil {
			t.Errorf("got %+v, which was not asked for last", l)
		}
		x.pending = []*candidate{c}
		if of, l := x.late(ack(x.transaction, time.Hour)); of != c || l == nil {
			t.Errorf("got %+v of %+v", l, of)
		}
	})
}
