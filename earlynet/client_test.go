//go:build linux

package earlynet

import (
	"context"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// A wire is a packet socket whose far end answers what is sent to it.
type wire struct {
	answers func(*dhcpv4.DHCPv4) [][]byte
	in      chan []byte
	done    chan struct{}

	mu     sync.Mutex
	sent   int
	stalls int           // so many messages more find no room, each until its deadline
	write  time.Duration // how long that is; 0: for ever

	latency time.Duration // of an answer
}

func (w *wire) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case p := <-w.in:
		if p == nil {
			panic("a reply that nobody has thought of")
		}
		return copy(b, p), nil, nil
	case <-w.done:
		return 0, nil, os.ErrDeadlineExceeded
	}
}

func (w *wire) WriteTo(b []byte, _ net.Addr) (int, error) {
	w.mu.Lock()
	w.sent++
	w.stalls--
	stalled, deadline := w.stalls >= 0, w.write
	w.mu.Unlock()
	if stalled {
		if deadline == 0 {
			select {}
		}
		time.Sleep(deadline)
		return 0, os.ErrDeadlineExceeded
	}
	m, err := dhcpv4.FromBytes(b[ipv4HeaderLen+udpHeaderLen:])
	if err != nil {
		return 0, err
	}
	for _, p := range w.answers(m) {
		if p == nil {
			w.in <- nil
			continue
		}
		reply := encodeDatagram(netip.MustParseAddr("10.0.0.1"), p)
		reply[20], reply[21], reply[22], reply[23] = reply[22], reply[23], reply[20], reply[21]
		arrive := func() {
			select {
			case w.in <- reply:
			default: // the socket's buffer is full
			}
		}
		if w.latency == 0 {
			arrive()
			continue
		}
		time.AfterFunc(w.latency, arrive)
	}
	return len(b), nil
}

func (w *wire) SetWriteDeadline(t time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.write = time.Until(t)
	return nil
}

func (*wire) Close() error                    { return nil }
func (*wire) LocalAddr() net.Addr             { return nil }
func (*wire) SetDeadline(time.Time) error     { return nil }
func (*wire) SetReadDeadline(time.Time) error { return nil }

// acquireFrom is the DHCP client as it is, over a wire, for half a minute of virtual time.
func acquireFrom(t *testing.T, answers func(*dhcpv4.DHCPv4) [][]byte) (l *lease, events, sent int) {
	t.Helper()
	l, sent = acquireWith(t, answers, func(Event) { events++ }, func(*Network) {})
	return l, events, sent
}

// acquireWith is acquireFrom with an observer, and a look at the network when it is over.
func acquireWith(t *testing.T, answers func(*dhcpv4.DHCPv4) [][]byte, observe func(Event), over func(*Network)) (l *lease, sent int) {
	t.Helper()
	return acquireOver(t, &wire{answers: answers}, observe, over)
}

// acquireOver is acquireWith over that wire.
func acquireOver(t *testing.T, w *wire, observe func(Event), over func(*Network)) (l *lease, sent int) {
	t.Helper()
	n, err := newNetwork(context.Background(), Config{
		NICs: []string{"none of these"}, Destinations: []netip.Addr{metadata},
		Observer: observe, Seed: 1,
	})
	if err != nil {
		t.Skip(err)
	}
	defer n.rtnl.close()
	defer n.cancel()
	synctest.Test(t, func(t *testing.T) {
		w.in, w.done = make(chan []byte, 1<<14), make(chan struct{})
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		on := link{index: 1, name: "eth0", mac: testMAC, mtu: 1500}
		x := newExchange(newNIC(n, newView(on)), on)
		x.conn, x.in = w, make(chan reply)
		var read sync.WaitGroup
		read.Go(func() { x.nic.goOn(ctx, DHCP, func() { x.receive(ctx) }) })
		_, l, _ = x.acquire(ctx)
		cancel()
		close(w.done)
		read.Wait()
		sent = w.sent
	})
	over(n)
	return l, sent
}

// replyTo makes a reply fit a message.
func replyTo(m, reply *dhcpv4.DHCPv4) []byte {
	reply.TransactionID = m.TransactionID
	if m.MessageType() == dhcpv4.MessageTypeDiscover {
		reply.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeOffer))
	}
	return reply.ToBytes()
}

func TestClient(t *testing.T) {
	t.Run("an offer that is acknowledged is a lease after two messages", func(t *testing.T) {
		l, _, sent := acquireFrom(t, func(m *dhcpv4.DHCPv4) [][]byte { return [][]byte{replyTo(m, ack())} })
		if l == nil || l.prefix.Addr() != netip.MustParseAddr("10.0.0.9") || sent != 2 {
			t.Errorf("got %+v after %d messages", l, sent)
		}
	})
	t.Run("messages for which a link that has come to a halt has no room are lost, and hold nothing up", func(t *testing.T) {
		w := &wire{stalls: 3, answers: func(m *dhcpv4.DHCPv4) [][]byte { return [][]byte{replyTo(m, ack())} }}
		if l, sent := acquireOver(t, w, nil, func(*Network) {}); l == nil || sent < 5 {
			t.Errorf("got %+v after %d messages", l, sent)
		}
	})
	t.Run("a server that takes seconds for each answer gives a lease", func(t *testing.T) {
		for latency := 200 * time.Millisecond; latency <= 10*time.Second; latency += 200 * time.Millisecond {
			w := &wire{latency: latency, answers: func(m *dhcpv4.DHCPv4) [][]byte { return [][]byte{replyTo(m, ack())} }}
			if l, sent := acquireOver(t, w, nil, func(*Network) {}); l == nil {
				t.Errorf("after %v each: nothing in half a minute, and %d messages", latency, sent)
			}
		}
	})
	t.Run("a reply that makes the reader panic is one lost reply", func(t *testing.T) {
		first := true
		l, events, _ := acquireFrom(t, func(m *dhcpv4.DHCPv4) [][]byte {
			if first {
				first = false
				return [][]byte{nil} // see wire
			}
			return [][]byte{replyTo(m, ack())}
		})
		if l == nil || events == 0 {
			t.Errorf("%+v, %d events", l, events)
		}
	})
	t.Run("a flood of useless answers costs neither memory nor a flood of events", func(t *testing.T) {
		for about, useless := range map[string]func() *dhcpv4.DHCPv4{
			"offers, and never an acknowledgement": func() *dhcpv4.DHCPv4 {
				return ack(dhcpv4.OptMessageType(dhcpv4.MessageTypeOffer))
			},
			"leases of no time": func() *dhcpv4.DHCPv4 { return ack(dhcpv4.OptIPAddressLeaseTime(0)) },
		} {
			l, events, sent := acquireFrom(t, func(m *dhcpv4.DHCPv4) [][]byte {
				var all [][]byte
				for i := range 500 {
					r := useless()
					r.UpdateOption(dhcpv4.OptServerIdentifier(net.IP{10, 0, byte(i >> 8), byte(1 + i%250)}))
					all = append(all, replyTo(m, r))
				}
				return all
			})
			if l != nil || events > (maxReplies+2)*sent {
				t.Errorf("%s: %+v, %d events for %d messages", about, l, events, sent)
			}
		}
	})
}

// FuzzDHCPClient has a server that answers each message of the whole client with what the fuzzer likes. What is not
// overwritten is what makes the client look at the rest at all.
func FuzzDHCPClient(f *testing.F) {
	f.Add(ack().ToBytes()[240:], ack().ToBytes()[240:], []byte{10, 0, 0, 9})
	f.Add([]byte{53, 1, 2, 54, 4, 10, 0, 0, 1}, []byte{53, 1, 6}, []byte{10, 0, 0, 9})
	f.Add([]byte{53, 1, 2, 54, 4, 10, 0, 0, 1, 51, 4, 0, 0, 0, 0}, []byte{53, 1, 5, 121, 5, 32, 1, 2, 3, 4}, []byte{169, 254, 169, 254})
	f.Add([]byte{53, 1, 2, 52, 1, 3, 255}, []byte{}, []byte{127, 0, 0, 1})
	f.Fuzz(func(t *testing.T, offer, answer, address []byte) {
		if len(offer)+len(answer) > 1200 || len(address) != 4 {
			return
		}
		l, events, sent := acquireFrom(t, func(m *dhcpv4.DHCPv4) [][]byte {
			r := ack()
			r.TransactionID, r.YourIPAddr, r.Options = m.TransactionID, net.IP(address), nil
			b := r.ToBytes()[:240]
			if m.MessageType() == dhcpv4.MessageTypeDiscover {
				return [][]byte{append(b, offer...)}
			}
			return [][]byte{append(b, answer...)}
		})
		if sent > 60 || events > 4*sent+4 {
			t.Errorf("%d messages and %d events in 30 s", sent, events)
		}
		if l != nil && (!assignable(l.prefix.Addr()) || l.prefix.Addr() == metadata || l.life < minLease || l.renew <= 0 || !assignable(l.server)) {
			t.Errorf("absurd lease: %+v", l)
		}
	})
}
