//go:build linux

package earlynet

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// bound opens a socket of another program on eth0, and closes it when the test ends.
func bound(t testing.TB, family, kind, proto int) {
	t.Helper()
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if family == unix.AF_PACKET {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: eth0(t).Index, Protocol: 0x0008})
	} else {
		err = unix.BindToDevice(fd, "eth0")
		if kind == unix.SOCK_DGRAM && err == nil {
			err = unix.Bind(fd, map[int]unix.Sockaddr{unix.AF_INET: &unix.SockaddrInet4{Port: 68}, unix.AF_INET6: &unix.SockaddrInet6{Port: 546}}[family])
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// What another program has begun on the link keeps it up, though it has put nothing on it yet.
func TestWhatOthersHaveBegunKeepsTheLinkUp(t *testing.T) {
	for name, begin := range map[string]func(testing.TB){
		"a packet socket, as of a DHCP client without a lease": func(t testing.TB) { bound(t, unix.AF_PACKET, unix.SOCK_DGRAM, 0) },
		"a UDP socket that is bound to it":                     func(t testing.TB) { bound(t, unix.AF_INET, unix.SOCK_DGRAM, 0) },
		"a UDP socket of IPv6":                                 func(t testing.TB) { bound(t, unix.AF_INET6, unix.SOCK_DGRAM, 0) },
		"a raw socket, as of who asks for routers":             func(t testing.TB) { bound(t, unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6) },
	} {
		t.Run(name, func(t *testing.T) {
			serving(t)
			n := openBy(t, LinkLocal, DHCP)
			reaches(t, next(t, n))
			begin(t)
			if strings.Contains(name, "raw") && len(boundSockets(unix.AF_INET6, unix.IPPROTO_RAW, eth0(t).Index)) == 0 {
				t.Log("this kernel was made without CONFIG_INET_RAW_DIAG: nobody can tell")
				return
			}
			leftUp(t, n, "has a socket on it")
			if !n.saw(LinkLeftUp, "(process "+strconv.Itoa(os.Getpid())+")") {
				t.Error("nobody was told whose it is")
			}
		})
		t.Run(name+", does not where nobody else can be there", func(t *testing.T) {
			plug(t)
			n := open(context.Background(), t, Config{Methods: []Method{LinkLocal}, Alone: true})
			next(t, n)
			begin(t)
			if err := n.Close(); err != nil {
				t.Error(err)
			}
			if l := run(t, "ip -o link show eth0"); strings.Contains(l, ",UP") {
				t.Errorf("link: %s", l)
			}
		})
	}
	t.Run("a socket for all links is no sign", func(t *testing.T) {
		plug(t)
		restored(t)
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0x0008)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		next(t, openBy(t, LinkLocal, DHCP))
	})
	t.Run("autoconfiguration that somebody switches on", func(t *testing.T) {
		plug(t)
		n := openBy(t, LinkLocal)
		next(t, n)
		run(t, "echo 2 > /proc/sys/net/ipv6/conf/eth0/accept_ra")
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		if got := setting(t, "accept_ra"); got != "2" || !strings.Contains(run(t, "ip -o link show eth0"), ",UP") {
			t.Errorf("accept_ra is %s, and the link %s", got, run(t, "ip -o link show eth0"))
		}
		if !n.saw(LinkLeftUp, "accept_ra to 2") {
			t.Error("nobody was told")
		}
	})
	t.Run("whoever the link is left to hears the routers that were not heard before", func(t *testing.T) {
		c := plug(t)
		asked := c.solicitations()
		n := openBy(t, LinkLocal)
		next(t, n)
		bound(t, unix.AF_PACKET, unix.SOCK_DGRAM, 0)
		leftUp(t, n, "has a socket on it")
		select {
		case <-asked:
		case <-time.After(longEnough()):
			t.Error("the routers were not asked")
		}
	})
}

// solicitations tells when a router on the cloud's side is asked to advertise itself.
func (c *peer) solicitations() <-chan struct{} {
	c.t.Helper()
	var conn net.PacketConn
	var err error
	c.inside(func() {
		c.run("ip maddr add 33:33:00:00:00:02 dev cloud0; echo 2 > /proc/sys/net/ipv6/conf/cloud0/forwarding")
		conn, err = net.ListenPacket("ip6:ipv6-icmp", "::")
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { conn.Close() })
	asked := make(chan struct{})
	go func() {
		b := make([]byte, 1500)
		for {
			n, _, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			if n > 0 && b[0] == 133 {
				close(asked)
				return
			}
		}
	}()
	return asked
}

// killed runs this test binary as a program that brings a link up and is killed while it uses it.
func killed(t testing.TB) {
	t.Helper()
	killedAt(t, LinkLocal, "path ready")
}

// killedAt is killed at another moment: when it has told that.
func killedAt(t testing.TB, by Method, moment string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestRunThatIsKilled$", "-test.count=1")
	cmd.Env = append(os.Environ(), "NAMETAG_TEST_KILLED="+by.String())
	if strings.HasPrefix(moment, "undone") {
		cmd.Env = append(cmd.Env, "NAMETAG_TEST_CLOSES=1")
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	b := make([]byte, 4096)
	for !strings.Contains(said.String(), moment) {
		n, err := out.Read(b)
		if err != nil {
			t.Fatalf("it was not told %q: %v\n%s", moment, err, said.String())
		}
		said.Write(b[:n])
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

func TestRunThatIsKilled(t *testing.T) {
	by, err := ParseMethod(os.Getenv("NAMETAG_TEST_KILLED"))
	if err != nil {
		return // a part of others
	}
	n, err := Open(context.Background(), Config{NICs: []string{"eth0"}, Methods: []Method{by}, Destinations: []netip.Addr{metadata}, Observer: func(e Event) {
		_, _ = os.Stdout.WriteString(e.String() + "\n")
	}})
	if err != nil {
		t.Fatal(err)
	}
	<-n.Paths()
	if os.Getenv("NAMETAG_TEST_CLOSES") != "" {
		_ = n.Close()
	}
	select {}
}

func TestAfterARunThatWasKilled(t *testing.T) {
	t.Run("the next puts everything back as the first had found it", func(t *testing.T) {
		serving(t)
		restored(t)
		killed(t)
		if l := run(t, "ip link show eth0"); !strings.Contains(l, "alias nametag: in use by process") || setting(t, "accept_ra") != "0" {
			t.Errorf("what is left does not say whose it is:\n%s", l)
		}
		n := openBy(t, LinkLocal)
		reaches(t, next(t, n))
		if !n.saw(TakenOver, "address 169.254.") {
			t.Error("nobody was told")
		}
	})
	t.Run("what is kept within the minute lasts", func(t *testing.T) {
		serving(t)
		killed(t)
		p := kept(t, openBy(t, LinkLocal))
		if a := addrs(t, "eth0"); !strings.Contains(a, p.Source.String()+"/32") || strings.Count(a, "inet ") != 1 || !strings.Contains(a, "valid_lft forever") {
			t.Errorf("addresses: %s", a)
		}
		if rt := run(t, "ip route show table all proto 110"); rt != "" {
			t.Errorf("routes that go with the killed run's address: %s", rt)
		}
		hostReaches(t, p.Source)
		if v := run(t, "cat /proc/sys/net/ipv4/neigh/eth0/retrans_time_ms"); v != "1000\n" || setting(t, "accept_ra") != "1" {
			t.Errorf("retrans_time_ms %s, accept_ra %s", v, setting(t, "accept_ra"))
		}
	})
	t.Run("a kernel that does not keep the mark of addresses", func(t *testing.T) {
		serving(t)
		restored(t)
		killed(t)
		old := strings.Fields(addrs(t, "eth0"))[3]
		run(t, "ip addr del "+old+" dev eth0; ip addr add "+old+" dev eth0 noprefixroute valid_lft 55 preferred_lft 55")
		reaches(t, next(t, openBy(t, LinkLocal)))
	})
	t.Run("an alias of the administrator's stays", func(t *testing.T) {
		serving(t)
		run(t, "ip link set eth0 alias 'the uplink: see the plan, page 3'")
		restored(t)
		reaches(t, next(t, openBy(t, LinkLocal)))
		if l := run(t, "ip link show eth0"); !strings.Contains(l, "alias the uplink: see the plan, page 3") {
			t.Error(l)
		}
	})
}

func TestAlias(t *testing.T) {
	for _, b := range []before{
		{down: true, acceptRA: "1", rpFilter: "1", arp: arpTimers{1000, 3}},
		{acceptRA: "", rpFilter: "0", arp: arpTimers{250, 60}},
	} {
		if got, ok := parseAlias(b.alias()); !ok || got != b || len(b.alias()) > 255 {
			t.Errorf("%q is read as %+v, %v", b.alias(), got, ok)
		}
	}
	for _, s := range []string{"", "the uplink", "nametag: in use by process 1; was down", "nametag: in use by process 1; was down, accept_ra x, rp_filter 1, retrans_time_ms 1000, mcast_solicit 3"} {
		if b, ok := parseAlias(s); ok {
			t.Errorf("%q is read as %+v", s, b)
		}
	}
}
