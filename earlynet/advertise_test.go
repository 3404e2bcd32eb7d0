//go:build linux

package earlynet

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// advertisement is a frame that carries a router advertisement with everything in it that a kernel learns: a hop limit of
// 1, both flags, timers of an hour, an MTU, and a prefix to make addresses from.
func advertisement() []byte {
	router := netip.MustParseAddr("fe80::bad")
	all := netip.MustParseAddr("ff02::1")
	ra := []byte{134, 0, 0, 0, 1, 0xc0, 0x07, 0x08}
	ra = binary.BigEndian.AppendUint32(ra, 3600_000) // reachable time
	ra = binary.BigEndian.AppendUint32(ra, 3600_000) // retransmission timer
	ra = append(ra, 5, 1, 0, 0)
	ra = binary.BigEndian.AppendUint32(ra, 1280) // MTU
	ra = append(ra, 3, 4, 64, 0xc0, 0, 0, 0x0e, 0x10, 0, 0, 0x0e, 0x10, 0, 0, 0, 0)
	ra = append(ra, netip.MustParseAddr("2001:db8::").AsSlice()...)

	sum := uint32(len(ra)) + unix.IPPROTO_ICMPV6
	for _, b := range [][]byte{router.AsSlice(), all.AsSlice(), ra} {
		for i := 0; i < len(b); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(ra[2:], ^uint16(sum))

	frame := []byte{0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0x0b, 0xad, 0x86, 0xdd}
	frame = append(frame, 0x60, 0, 0, 0, 0, byte(len(ra)), unix.IPPROTO_ICMPV6, 255)
	frame = append(frame, router.AsSlice()...)
	return append(append(frame, all.AsSlice()...), ra...)
}

// advertise has a router on the cloud's side advertise itself every 2 ms, and returns how often it has.
func (c *peer) advertise() (heard *atomic.Int64) {
	c.t.Helper()
	fd := -1
	var err error
	c.inside(func() {
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return
		}
		var nic *net.Interface
		if nic, err = net.InterfaceByName("cloud0"); err == nil {
			err = unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: nic.Index})
		}
	})
	if err != nil {
		c.t.Fatal(err)
	}
	heard = new(atomic.Int64)
	stop, stopped := make(chan struct{}), make(chan struct{})
	c.t.Cleanup(func() { close(stop); <-stopped; unix.Close(fd) })
	frame := advertisement()
	go func() {
		defer close(stopped)
		for {
			if _, err := unix.Write(fd, frame); err == nil {
				heard.Add(1)
			}
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
			}
		}
	}()
	return heard
}

// setting reads a setting of eth0.
func setting(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile("/proc/sys/net/ipv6/conf/eth0/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func TestRouterAdvertisement(t *testing.T) {
	// The frames that the kernel must have seen while the link was ours, to be sure that it has made of them what it does.
	const enough = 20
	t.Run("nothing is learnt from one, and nothing of it is left", func(t *testing.T) {
		c := serving(t)
		n := traceless(t)
		reaches(t, next(t, n))
		heard := c.advertise()
		eventually(t, "router advertisements", func() bool { return heard.Load() >= enough })
		if a := run(t, "ip -6 addr show dev eth0; ip -6 route show table all"); strings.Contains(a, "2001:db8:") || strings.Contains(a, "fe80::bad") {
			t.Errorf("while the link is ours:\n%s", a)
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Run("on a link that was up, the system learns as it did", func(t *testing.T) {
		c := serving(t)
		run(t, "ip link set eth0 up")
		n := openBy(t, LinkLocal)
		next(t, n)
		heard := c.advertise()
		eventually(t, "router advertisements", func() bool { return heard.Load() >= enough })
		eventually(t, "an address from the advertised prefix", func() bool {
			return strings.Contains(run(t, "ip -6 addr show dev eth0"), "2001:db8:")
		})
	})
}
