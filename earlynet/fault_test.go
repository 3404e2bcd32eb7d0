//go:build linux

package earlynet

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nltest"
	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/testvm"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
)

// faulty stands between a network and the kernel: what fault returns for a request, if it is not 0, is the answer.
func faulty(t testing.TB, kernel *netlink.Conn, fault func(netlink.Message) unix.Errno) rtnl {
	t.Helper()
	t.Cleanup(func() { kernel.Close() })
	return over(nltest.Dial(func(reqs []netlink.Message) ([]netlink.Message, error) {
		req := reqs[0]
		if errno := fault(req); errno != 0 {
			return nltest.Error(int(errno), reqs)
		}
		ask := req
		ask.Header.Sequence, ask.Header.PID = 0, 0
		replies, err := kernel.Execute(ask)
		var errno unix.Errno
		if errors.As(err, &errno) {
			return nltest.Error(int(errno), reqs)
		}
		for i := range replies {
			replies[i].Header.Sequence, replies[i].Header.PID = req.Header.Sequence, req.Header.PID
			replies[i].Header.Flags &^= netlink.Multi // all of them are here
		}
		if err == nil && len(replies) == 0 {
			return nil, io.EOF // which nltest takes for a dump of nothing
		}
		return replies, err
	}))
}

// openFaulty is Open over a faulty socket for requests.
func openFaulty(ctx context.Context, t testing.TB, cfg Config, fault func(netlink.Message) unix.Errno) *Network {
	t.Helper()
	return openOver(ctx, t, cfg, func(kernel *netlink.Conn) rtnl { return faulty(t, kernel, fault) })
}

// openOver is Open over another socket for requests, which is made of the kernel's.
func openOver(ctx context.Context, t testing.TB, cfg Config, other func(kernel *netlink.Conn) rtnl) *Network {
	t.Helper()
	if len(cfg.Destinations) == 0 {
		cfg.Destinations = append(cfg.Destinations, metadata)
	}
	if len(cfg.NICs) == 0 {
		cfg.NICs = []string{"eth0"}
	}
	n, err := newNetwork(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.rtnl = other(n.rtnl.c)
	if err := errors.Join(n.subscribe(), n.refresh()); err != nil {
		t.Fatal(err)
	}
	n.tasks.Go("watching links", n.watch, n.died)
	n.finish()
	t.Cleanup(func() { n.Close() })
	return n
}

func TestFaults(t *testing.T) {
	t.Run("a link that cannot be set up at once is set up later", func(t *testing.T) {
		c := plug(t)
		c.serve()
		restored(t)
		var r recorder
		busy := 3 // as a virtual function's driver is that waits for its physical one
		n := openFaulty(context.Background(), t, Config{Methods: []Method{LinkLocal}, Observer: r.observe}, func(m netlink.Message) unix.Errno {
			if m.Header.Type == unix.RTM_NEWLINK && busy > 0 {
				busy--
				return unix.EBUSY
			}
			return 0
		})
		if _, err := ask(context.Background(), next(t, n)); err != nil {
			t.Error(err)
		}
		if !r.saw(PathFailed, "set the link up: ") {
			t.Error("nobody was told that it was busy")
		}
		if st := n.Status(); len(st) != 0 {
			t.Errorf("status: %v", st)
		}
	})

	t.Run("an address that is added while all of them are read anew is not taken for a lost one", func(t *testing.T) {
		plug(t)
		restored(t)
		var added atomic.Pointer[attempt] // the link's own goroutine asks for addresses too
		n := openFaulty(context.Background(), t, Config{Methods: []Method{IPv6}}, func(m netlink.Message) unix.Errno {
			if late := added.Load(); m.Header.Type == unix.RTM_GETADDR && late != nil {
				late.mu.Lock()
				late.prefix = netip.MustParsePrefix("169.254.7.7/32") // as if it were added after the answer
				late.mu.Unlock()
			}
			return 0
		})
		n.mu.Lock()
		c := n.nicsByAge[0]
		n.mu.Unlock()
		late := c.begin(LinkLocal)
		added.Store(late)
		if err := n.refreshAddresses(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-late.lost:
			t.Error("it is taken for lost")
		default:
		}
		added.Store(nil)
	})
	t.Run("lost notifications are made up for, though the kernel has no memory for the answer at first", func(t *testing.T) {
		c := plug(t)
		c.serve()
		var r recorder
		var short atomic.Int32
		n := openFaulty(context.Background(), t, Config{Methods: []Method{LinkLocal}, Observer: r.observe}, func(m netlink.Message) unix.Errno {
			if m.Header.Type == unix.RTM_GETLINK && short.Add(-1) >= 0 {
				return unix.ENOMEM
			}
			return 0
		})
		p := next(t, n)
		overrun(t, n)
		run(t, "ip link del eth0")
		c = plug(t)
		short.Store(3)
		n.mu.Unlock()
		c.serve()
		ended(t, p)
		if _, err := ask(context.Background(), next(t, n)); err != nil {
			t.Error(err)
		}
		if !r.saw(NetlinkOverrun, "") || short.Load() >= 0 {
			t.Error("no overrun, or no want of memory: the test shows nothing")
		}
		if st := n.Status(); slices.ContainsFunc(st, func(err error) bool { return strings.Contains(err.Error(), "watch links") }) {
			t.Errorf("status: %v", st)
		}
	})
	t.Run("while a renewal is not answered, the address is looked after", func(t *testing.T) {
		requests := 0
		lab := testvm.Start(t, cloud.Config{}, testvm.NIC("eth0", cloud.NIC{DHCP: []cloud.DHCP{{
			Lease: time.Hour, Extra: map[uint8][]byte{58: {0, 0, 0, 1}},
			Mangle: func(b []byte) []byte {
				if requests++; requests > 2 { // the offer and its acknowledgement
					return b[:100]
				}
				return b
			},
		}}}))
		n := open(context.Background(), t, Config{Methods: []Method{DHCP}})
		p := next(t, n)
		eventually(t, "a renewal", func() bool {
			return slices.ContainsFunc(lab.Cloud.Exchanges(), func(e cloud.Exchange) bool {
				return e.Message.MessageType() == dhcpv4.MessageTypeRequest && e.Message.ClientIPAddr.String() == p.Source.String()
			})
		})
		run(t, "ip addr del "+p.Source.String()+"/32 dev eth0")
		ended(t, p)
	})
}

func TestARogueDHCPServerIsComplainedOfSeldom(t *testing.T) {
	l, events, sent := acquireFrom(t, func(m *dhcpv4.DHCPv4) [][]byte {
		var all [][]byte
		for i := range 500 { // unusable, each for another reason
			r := ack()
			r.YourIPAddr = net.IP{127, 0, byte(i >> 8), byte(i)}
			all = append(all, replyTo(m, r))
		}
		return all
	})
	if l != nil || events > 3*sent+16 {
		t.Errorf("%+v, %d events for %d messages", l, events, sent)
	}
}

func TestOptionsInTheFieldsForNamesCount(t *testing.T) {
	reply := func(options, file, name []byte) *dhcpv4.DHCPv4 {
		b := ack().ToBytes()[:240]
		copy(b[108:236], file)
		copy(b[44:108], name)
		b = append(b, options...)
		datagram := encodeDatagram(netip.MustParseAddr("10.0.0.1"), b)
		datagram[22], datagram[23] = 0, dhcpClientPort
		datagram[26], datagram[27] = 0, 0 // no checksum
		return replyIn(datagram)
	}
	head := []byte{53, 1, 5, 54, 4, 10, 0, 0, 1, 51, 4, 0, 0, 14, 16}
	with := func(more ...byte) []byte { return append(slices.Clone(head), more...) }

	m := reply(with(52, 1, 3, 121, 4, 32, 169, 254, 169, 255), []byte{121, 2, 254, 10, 255}, []byte{0, 121, 3, 0, 0, 1, 255})
	if m == nil {
		t.Fatal("refused")
	}
	l, err := parseLease(m, testMAC, 1500)
	if err != nil {
		t.Fatal(err)
	}
	if gateway, ok := l.via(metadata); !ok || gateway != netip.MustParseAddr("10.0.0.1") {
		t.Errorf("the way to the service is %v, %v: %+v", gateway, ok, l)
	}
	if m := reply(with(255), []byte{121, 200, 1}, []byte("boot.example\x00")); m == nil || len(m.Options) != 3 {
		t.Errorf("names are names where nothing says otherwise: %v", m)
	}
	if m := reply(with(52, 1, 1, 255), append([]byte{121, 200}, make([]byte, 126)...), nil); m != nil {
		t.Errorf("an option that is longer than its field is taken: %v", m)
	}
}
