//go:build linux

package earlynet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// eth0 is the NIC as the kernel has it.
func eth0(t testing.TB) *net.Interface {
	t.Helper()
	nic, err := net.InterfaceByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	return nic
}

// picks gives the addresses that eth0 takes, the first one first.
func picks(t testing.TB) func() netip.Addr {
	t.Helper()
	return addressPicker(eth0(t).HardwareAddr, []netip.Addr{metadata})
}

func TestUndo(t *testing.T) {
	ctx := context.Background()

	t.Run("a context that ends while nobody answers DHCP ends the paths, and nothing is left", func(t *testing.T) {
		plug(t)
		restored(t)
		ctx, cancel := context.WithCancel(ctx)
		n := open(ctx, t, Config{Methods: []Method{DHCP}})
		eventually(t, "the fourth DISCOVER", func() bool { return n.saw(PathFailed, "no offer after 4 tries") })
		cancel()
		if p, ok := <-n.Paths(); ok {
			t.Errorf("a path from nowhere: %v", p)
		}
		var e *Error
		if st := n.Status(); len(st) != 1 || !errors.As(st[0], &e) || e.Tries < 4 || e.Method != DHCP {
			t.Errorf("status: %v", st)
		}
	})

	t.Run("when the context ends the work stops and Paths is closed, but what was done stays until Close, which does not depend on it", func(t *testing.T) {
		serving(t)
		restored(t)
		ctx, cancel := context.WithCancel(ctx)
		n := open(ctx, t, Config{Methods: []Method{LinkLocal}})
		p := next(t, n)
		cancel()
		for range n.Paths() {
			t.Error("a further path")
		}
		if _, err := ask(context.Background(), p); err != nil {
			t.Errorf("after the context's end: %v", err)
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		ended(t, p)
		if _, err := ask(context.Background(), p); !errors.Is(err, ErrPathDone) {
			t.Errorf("after Close: %v", err)
		}
	})

	t.Run("Close closes every connection over the paths, and ends an attempt to connect", func(t *testing.T) {
		serving(t)
		n := traceless(t, LinkLocal)
		p := next(t, n)
		conn, err := p.DialContext(ctx, "tcp", "169.254.169.254:80")
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
				t.Errorf("read: %v", err)
			}
		})
		wg.Go(func() {
			if _, err := p.DialContext(ctx, "tcp", "169.254.169.250:80"); err == nil {
				t.Error("connected to nothing")
			}
		})
		time.Sleep(20 * time.Millisecond)
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
	})

	t.Run("an address that is there already is used, and left", func(t *testing.T) {
		serving(t)
		source := picks(t)()
		run(t, "ip link set eth0 up; ip addr add "+source.String()+"/32 dev eth0; sleep 0.05")
		n := traceless(t, LinkLocal)
		p := next(t, n)
		if got, err := ask(ctx, p); err != nil || got != source.String() {
			t.Errorf("the service saw %q, want %v: %v", got, source, err)
		}
		// The address stays, so that the kernel goes on answering for it: whoever ends a connection late is asked for
		// once more, and known again.
		eventually(t, "the end of the connection on both sides", func() bool {
			return run(t, "ss -Htan exclude time-wait src "+source.String()) == ""
		})
	})

	t.Run("an address that somebody takes over is left, and the link with it", func(t *testing.T) {
		plug(t)
		n := openBy(t, LinkLocal)
		p := next(t, n)
		run(t, "ip addr replace "+p.Source.String()+"/32 dev eth0")
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		if a := addrs(t, "eth0"); !strings.Contains(a, p.Source.String()) || !strings.Contains(a, "forever") {
			t.Errorf("the address is not as somebody left it: %s", a)
		}
		if !n.saw(LinkLeftUp, p.Source.String()) {
			t.Error("nobody was told that the link is left up")
		}
	})

	t.Run("an address whose time is up is never given one without end, which would outlive the network", func(t *testing.T) {
		plug(t)
		n := traceless(t, LinkLocal)
		next(t, n)
		n.mu.Lock()
		standing := n.attempts[0]
		n.mu.Unlock()
		if err := standing.extend(-time.Second); err != nil {
			t.Error(err)
		}
		late := standing.nic.begin(DHCP)
		if err := late.put(netip.MustParseAddr("192.0.2.7"), -time.Second, nil); err != nil {
			t.Error(err)
		}
		if a := addrs(t, "eth0"); strings.Contains(a, "forever") {
			t.Errorf("addresses: %s", a)
		}
	})

	t.Run("an address that somebody adds keeps the link up, without our neighbours", func(t *testing.T) {
		serving(t)
		n := openBy(t, LinkLocal)
		p := next(t, n)
		reaches(t, p)
		run(t, "ip addr add 192.0.2.1/24 dev eth0")
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		if a := addrs(t, "eth0"); !strings.Contains(a, "192.0.2.1/24") || strings.Contains(a, p.Source.String()) {
			t.Errorf("addresses: %s", a)
		}
		if l := run(t, "ip -o link show eth0"); !strings.Contains(l, "state UP") {
			t.Errorf("link: %s", l)
		}
		if nb := run(t, "ip -4 neigh show dev eth0"); strings.Contains(nb, "169.254.169.254") {
			t.Errorf("neighbours: %s", nb)
		}
		if rt := run(t, "ip route show table all proto "+fmt.Sprint(rtprotNametag)); rt != "" {
			t.Errorf("routes: %s", rt)
		}
		if !n.saw(LinkLeftUp, "192.0.2.1/24") {
			t.Error("nobody was told that the link is left up")
		}
	})

	t.Run("an alias that somebody gives the link meanwhile stays", func(t *testing.T) {
		plug(t)
		n := openBy(t, LinkLocal)
		next(t, n)
		run(t, "ip link set eth0 alias 'the uplink'") // as udev does by a .link file
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		if l := run(t, "ip link show eth0"); !strings.Contains(l, "alias the uplink") {
			t.Errorf("link: %s", l)
		}
	})

	t.Run("a route that somebody adds keeps the link up", func(t *testing.T) {
		plug(t)
		n := openBy(t, LinkLocal)
		next(t, n)
		run(t, "ip route add 198.51.100.0/24 dev eth0")
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		if !n.saw(LinkLeftUp, "198.51.100.0/24") || !strings.Contains(run(t, "ip route"), "198.51.100.0/24") {
			t.Error("the link is not left up with its route")
		}
	})

	t.Run("a link that is up before, with a lease in use, is untouched", func(t *testing.T) {
		serving(t)
		run(t, "ip link set eth0 up; ip addr add 10.9.0.7/24 dev eth0; ip route add default via 10.9.0.1; sleep 0.05")
		n := traceless(t, LinkLocal)
		reaches(t, next(t, n))
	})

	t.Run("somebody's own route to the service with our metric does not matter", func(t *testing.T) {
		serving(t)
		run(t, "ip link set eth0 up; sleep 0.05")
		run(t, fmt.Sprintf("ip route add 169.254.169.254/32 dev eth0 metric %d", metricLinkLocal+eth0(t).Index))
		n := traceless(t, LinkLocal)
		reaches(t, next(t, n))
	})

	t.Run("a black-hole route to the service over another NIC does not matter", func(t *testing.T) {
		serving(t)
		run(t, "ip link add trap0 type veth peer name trap1; ip link set trap0 up; ip link set trap1 up; ip addr add 10.8.0.2/24 dev trap0")
		t.Cleanup(func() { run(t, "ip link del trap0") })
		run(t, "ip route add 169.254.169.254/32 via 10.8.0.1 dev trap0; sleep 0.05")
		n := traceless(t, LinkLocal)
		reaches(t, next(t, n))
	})

	t.Run("what a killed process leaves has a lifetime, and the routes go with the address", func(t *testing.T) {
		plug(t)
		n := openBy(t, LinkLocal)
		p := next(t, n)
		a := addrs(t, "eth0")
		var seconds int
		if _, life, _ := strings.Cut(a, "valid_lft "); life == "" {
			t.Errorf("address: %s", a)
		} else if _, err := fmt.Sscanf(life, "%dsec", &seconds); err != nil || seconds > 60 {
			t.Errorf("its lifetime is %d s, %v: %s", seconds, err, a)
		}
		// The kernel removes an address whose time is up as RTM_DELADDR does.
		run(t, "ip addr del "+p.Source.String()+"/32 dev eth0")
		if rt := run(t, "ip route show table all proto "+fmt.Sprint(rtprotNametag)+" src "+p.Source.String()); strings.Contains(rt, "169.254.169.254") && p.Err() == nil {
			t.Errorf("routes: %s", rt)
		}
	})
}

func TestNIC(t *testing.T) {
	ctx := context.Background()

	t.Run("one without carrier becomes a path when it gets it", func(t *testing.T) {
		c := serving(t)
		c.run("ip link set cloud0 down")
		n := traceless(t, LinkLocal)
		eventually(t, "a status that says so", func() bool {
			st := n.Status()
			return len(st) == 1 && strings.Contains(st[0].Error(), "eth0: no carrier")
		})
		c.run("ip link set cloud0 up; ip route add 169.254.0.0/16 dev cloud0")
		reaches(t, next(t, n))
	})

	t.Run("one that loses its carrier ends its path, and makes another when it is back", func(t *testing.T) {
		c := serving(t)
		n := traceless(t, LinkLocal)
		p := next(t, n)
		c.run("ip link set cloud0 down")
		ended(t, p)
		c.run("ip link set cloud0 up; ip route add 169.254.0.0/16 dev cloud0")
		reaches(t, next(t, n))
	})

	t.Run("one that is set down by somebody is set up again after a moment, and down in the end", func(t *testing.T) {
		serving(t)
		n := traceless(t, LinkLocal)
		p := next(t, n)
		run(t, "ip link set eth0 down")
		ended(t, p)
		reaches(t, next(t, n))
		if !n.saw(LinkSetDown, "it is set up again in 1s") {
			t.Error("nobody was told")
		}
	})

	t.Run("one that is set down and up by somebody is used again, and left up: it is theirs", func(t *testing.T) {
		serving(t)
		n := openBy(t, LinkLocal)
		p := next(t, n)
		run(t, "ip link set eth0 down")
		ended(t, p)
		run(t, "ip link set eth0 up")
		reaches(t, next(t, n))
		leftUp(t, n, "somebody else has set it up")
	})

	t.Run("one that is down and up again between two looks gets its routes again, and is left up", func(t *testing.T) {
		serving(t)
		n := openBy(t, LinkLocal)
		p := next(t, n)
		n.mu.Lock() // nobody looks
		run(t, "ip link set eth0 down; ip link set eth0 up")
		n.mu.Unlock()
		ended(t, p)
		reaches(t, next(t, n))
		leftUp(t, n, "somebody else has set it up")
	})

	t.Run("Done is closed and connections are when the link is gone; one that is added later is used", func(t *testing.T) {
		serving(t)
		n := openBy(t, LinkLocal)
		p := next(t, n)
		conn, err := p.DialContext(ctx, "tcp", "169.254.169.254:80")
		if err != nil {
			t.Fatal(err)
		}
		run(t, "ip link del eth0")
		ended(t, p)
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("the connection is still there")
		}
		eventually(t, "NICGone", func() bool { return n.saw(NICGone, "eth0") })
		serving(t)
		reaches(t, next(t, n))
	})

	t.Run("one that is moved to another network namespace and back is used again, though it has the index that it had", func(t *testing.T) {
		serving(t)
		n := openBy(t, LinkLocal)
		p := next(t, n)
		index := eth0(t).Index
		elsewhere := exec.Command("unshare", "-n", "cat") // where no other link has that index
		in, err := elsewhere.StdinPipe()
		if err == nil {
			err = elsewhere.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { in.Close(); elsewhere.Wait() })
		there := fmt.Sprint(elsewhere.Process.Pid)
		eventually(t, "the other namespace", func() bool {
			ours, err := os.Readlink("/proc/thread-self/ns/net")
			theirs, err2 := os.Readlink("/proc/" + there + "/ns/net")
			return err == nil && err2 == nil && theirs != "" && theirs != ours
		})
		run(t, "ip link set eth0 netns "+there)
		ended(t, p)
		eventually(t, "NICGone", func() bool { return n.saw(NICGone, "eth0") })
		run(t, "p=$$; nsenter -t "+there+" -n ip link set eth0 netns $p")
		if again := eth0(t).Index; again != index {
			t.Fatalf("it has come back with index %d, not %d: the test shows nothing", again, index)
		}
		reaches(t, next(t, n))
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		if l := run(t, "ip -o link show eth0"); !strings.Contains(l, "state DOWN") || strings.Contains(l, "nametag") {
			t.Errorf("link: %s", l)
		}
	})

	t.Run("one that is renamed goes on", func(t *testing.T) {
		serving(t)
		n := openBy(t, LinkLocal)
		p := next(t, n)
		run(t, "ip link set eth0 name ens3")
		t.Cleanup(func() { run(t, "ip link del ens3") })
		eventually(t, "NICRenamed", func() bool { return n.saw(NICRenamed, "ens3: renamed: formerly eth0") })
		reaches(t, p)
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		if l := run(t, "ip -o link show ens3"); !strings.Contains(l, "state DOWN") {
			t.Errorf("link: %s", l)
		}
	})

	t.Run("one that is renamed while something is wrong with it has nothing wrong with it afterwards", func(t *testing.T) {
		serving(t)
		n := openBy(t, LinkLocal)
		ended := next(t, n)
		run(t, "ip link set eth0 down")
		eventually(t, "LinkSetDown", func() bool { return n.saw(LinkSetDown, "") })
		<-ended.Done()
		run(t, "ip link set eth0 name ens3")
		t.Cleanup(func() { run(t, "ip link del ens3") })
		eventually(t, "NICRenamed", func() bool { return n.saw(NICRenamed, "ens3: renamed: formerly eth0") })
		if st := fmt.Sprint(n.Status()); st != "[earlynet: ens3: set down by somebody else]" {
			t.Errorf("status: %v", st)
		}
		run(t, "ip link set ens3 up")
		reaches(t, next(t, n))
		if st := n.Status(); len(st) != 0 {
			t.Errorf("status: %v", st)
		}
	})

	t.Run("one that is gone has nothing wrong with it", func(t *testing.T) {
		peer := serving(t)
		peer.run("ip link set cloud0 down")
		n := openBy(t, LinkLocal)
		eventually(t, "no carrier", func() bool { return len(n.Status()) == 1 })
		run(t, "ip link del eth0")
		eventually(t, "NICGone", func() bool { return n.saw(NICGone, "") })
		eventually(t, "there to be no NIC, and nothing else", func() bool {
			st := n.Status()
			return len(st) == 1 && errors.Is(st[0], ErrNoNIC)
		})
	})

	t.Run("one that is renamed to the name asked for is used", func(t *testing.T) {
		plugAs(t, "other0").serve()
		n := openBy(t, LinkLocal)
		run(t, "ip link set other0 name eth0")
		t.Cleanup(func() { run(t, "ip link del eth0") })
		reaches(t, next(t, n))
	})

	t.Run("a veth that is not named is ignored, and the reason says what to do", func(t *testing.T) {
		plug(t)
		restored(t)
		n := open(ctx, t, Config{NICs: []string{"e*"}})
		if !n.saw(NICIgnored, "eth0: ignored: a veth, not a physical NIC; name it exactly to use it") {
			t.Error("nobody was told")
		}
		if st := n.Status(); len(st) != 1 || !errors.Is(st[0], ErrNoNIC) {
			t.Errorf("status: %v", st)
		}
	})

	t.Run("one named by its MAC address is used", func(t *testing.T) {
		plug(t)
		restored(t)
		next(t, open(ctx, t, Config{NICs: []string{eth0(t).HardwareAddr.String()}, Methods: []Method{LinkLocal}}))
	})

	t.Run("Done is closed when the address is gone, and another path is made", func(t *testing.T) {
		serving(t)
		n := traceless(t, LinkLocal)
		p := next(t, n)
		run(t, "ip addr del "+p.Source.String()+"/32 dev eth0")
		ended(t, p)
		reaches(t, next(t, n))
	})

	t.Run("another host with our address makes us yield and pick another", func(t *testing.T) {
		c := serving(t)
		taken := picks(t)()
		c.run("ip addr add " + taken.String() + "/32 dev cloud0")
		n := traceless(t, LinkLocal)
		p := next(t, n)
		if p.Source == taken {
			ended(t, p)
			if !errors.Is(p.Err(), ErrConflict) {
				t.Errorf("ended by %v", p.Err())
			}
			p = next(t, n)
		}
		if p.Source == taken || !n.saw(Conflict, taken.String()) {
			t.Errorf("did not yield %v", taken)
		}
		reaches(t, p)
		eventually(t, "the address given back", func() bool { return !strings.Contains(addrs(t, "eth0"), taken.String()) })
	})

	t.Run("a router that answers ARP for every address does not keep us from having one", func(t *testing.T) {
		c := serving(t)
		pick := picks(t)
		for range 8 {
			c.run("ip addr add " + pick().String() + "/32 dev cloud0")
		}
		restored(t)
		told := make(chan struct{})
		proxy := sync.OnceFunc(func() { close(told) })
		n := open(ctx, t, Config{Methods: []Method{LinkLocal}, Observer: func(e Event) {
			if e.Kind == ProxyARP {
				proxy()
			}
		}})
		// Those that are claimed end, in whatever order they are told of; one lasts.
		for lasts := false; !lasts; {
			p := next(t, n)
			select {
			case <-p.Done():
				continue
			case <-told:
			case <-time.After(longEnough()):
				t.Fatal("nobody was told of the proxy")
			}
			select {
			case <-p.Done():
			case <-time.After(500 * time.Millisecond): // longer than to the second probe, and than what is claimed is left in peace
				lasts = true
			}
		}
	})

	t.Run("the ARP timers are short while it is ours", func(t *testing.T) {
		plug(t)
		next(t, traceless(t, LinkLocal))
		if v := run(t, "cat /proc/sys/net/ipv4/neigh/eth0/retrans_time_ms"); v != "50\n" && v != "52\n" && v != "54\n" { // 1000, 250 and 300 ticks a second
			t.Errorf("retrans_time_ms: %s", v)
		}
	})

	t.Run("lost notifications are made up for", func(t *testing.T) {
		serving(t)
		n := openBy(t, LinkLocal)
		p := next(t, n)
		overrun(t, n.Network)
		run(t, "ip link del eth0")
		serving(t)
		n.mu.Unlock()
		ended(t, p)
		reaches(t, next(t, n))
		if !n.saw(NetlinkOverrun, "") {
			t.Error("no overrun: the test shows nothing")
		}
	})
}

func TestIPv6(t *testing.T) {
	t.Run("the kernel's fe80:: address becomes a path when nobody contradicts it", func(t *testing.T) {
		c := plug(t)
		run(t, "echo 1 > /proc/sys/net/ipv6/conf/eth0/accept_dad")
		c.run("ip -6 addr add fe80::a9fe:a9fe/64 dev cloud0 nodad")
		var l net.Listener
		var err error
		c.inside(func() { l, err = net.Listen("tcp6", "[::]:80") })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		restored(t)
		service := netip.MustParseAddr("fe80::a9fe:a9fe")
		n := open(context.Background(), t, Config{Destinations: []netip.Addr{service}, Methods: []Method{IPv6}})
		p := next(t, n)
		if p.Method != IPv6 || p.Source.Zone() != "eth0" {
			t.Errorf("path %v from %v", p, p.Source)
		}
		conn, err := p.DialContext(context.Background(), "tcp", "[fe80::a9fe:a9fe]:80")
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	})
	t.Run("it is not tried by default: whoever claims the service's address there has no competitor", func(t *testing.T) {
		c := serving(t)
		c.dnsmasq()
		n := open(context.Background(), t, Config{Destinations: []netip.Addr{metadata, netip.MustParseAddr("fe80::a9fe:a9fe")}})
		eventually(t, "an address of the kernel's to ask from", func() bool {
			_, ok := n.linkLocal6(eth0(t).Index)
			return ok
		})
		for range 2 { // a path of IPv6 needs no round trip, and would be among the first
			if p := next(t, n); p.Method == IPv6 {
				t.Errorf("path %v", p)
			}
		}
	})
}

func TestPermission(t *testing.T) {
	t.Run("Open and Repair fail with ErrPermission where the process may not do so, and Host needs no privilege", func(t *testing.T) {
		plug(t)
		restored(t)
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
			var none [2]unix.CapUserData
			header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			if err := unix.Capset(&header, &none[0]); err != nil {
				t.Error(err)
				return
			}
			if n, err := Open(context.Background(), Config{}); !errors.Is(err, ErrPermission) {
				t.Errorf("Open: %v, %v", n, err)
			} else {
				t.Log(err)
			}
			if err := Repair(context.Background(), Config{}); !errors.Is(err, ErrPermission) {
				t.Errorf("Repair: %v", err)
			}
			n, err := Host(context.Background(), Config{})
			if err != nil {
				t.Error(err)
				return
			}
			if p := <-n.Paths(); p.String() != "host" {
				t.Errorf("path %v", p)
			}
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		}()
		<-done
	})
}

func TestHost(t *testing.T) {
	ctx := context.Background()
	t.Run("it is one path over a network that somebody else configured, changes nothing, and gives notice of its changes", func(t *testing.T) {
		serving(t)
		n, err := Host(ctx, Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		p := next(t, n)
		if _, err := ask(ctx, p); err == nil {
			t.Error("reached over a link that is down")
		}
		run(t, "ip link set eth0 up; ip addr add 169.254.7.7/16 dev eth0")
		select {
		case <-n.Changes():
		case <-time.After(longEnough()):
			t.Fatal("no change was told")
		}
		if got, err := ask(ctx, p); err != nil || got != "169.254.7.7" {
			t.Errorf("the service saw %q: %v", got, err)
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		ended(t, p)
		if !strings.Contains(addrs(t, "eth0"), "169.254.7.7") {
			t.Error("the host's address was touched")
		}
	})
}

// kept is the next path of a network that is closed, and keeps it.
func kept(t testing.TB, n *opened) *Path {
	t.Helper()
	p := next(t, n)
	if err := n.Keep(p); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestKeep(t *testing.T) {
	t.Run("a kept lease outlives the network with all of its routes", func(t *testing.T) {
		c := serving(t)
		c.dnsmasq("--dhcp-option-force=1,255.255.255.255",
			"--dhcp-option-force=121,172.31.1.1/32,0.0.0.0,0.0.0.0/0,172.31.1.1", "--dhcp-option-force=26,1450")
		p := kept(t, openBy(t, DHCP))
		rt := run(t, "ip route show table all dev eth0")
		for _, want := range []string{"default via 172.31.1.1 proto dhcp", "172.31.1.1 proto dhcp scope link"} {
			if !strings.Contains(rt, want) {
				t.Errorf("no %q in\n%s", want, rt)
			}
		}
		if strings.Contains(rt, fmt.Sprintf("proto %d", rtprotNametag)) {
			t.Errorf("our own routes are left:\n%s", rt)
		}
		if a := addrs(t, "eth0"); !strings.Contains(a, p.Source.String()+"/32") || !strings.Contains(a, "valid_lft 3") {
			t.Errorf("address: %s", a)
		}
		if l := run(t, "ip -o link show eth0"); !strings.Contains(l, "state UP") || !strings.Contains(l, "mtu 1450") {
			t.Errorf("link: %s", l)
		}
		hostReaches(t, p.Source)
	})
	t.Run("a kept lease with a subnet has its subnet", func(t *testing.T) {
		c := serving(t)
		c.dnsmasq()
		p := kept(t, openBy(t, DHCP))
		if a := addrs(t, "eth0"); !strings.Contains(a, p.Source.String()+"/24") || strings.Contains(a, "/32") {
			t.Errorf("address: %s", a)
		}
		rt := run(t, "ip route show dev eth0")
		for _, want := range []string{"default via 10.9.0.1", "10.9.0.0/24 proto dhcp scope link src " + p.Source.String()} {
			if !strings.Contains(rt, want) {
				t.Errorf("no %q in\n%s", want, rt)
			}
		}
		hostReaches(t, p.Source)
	})
	t.Run("a kept /32 has the way to a router that only option 3 names", func(t *testing.T) {
		c := serving(t)
		c.dnsmasq("--dhcp-option-force=1,255.255.255.255", "--dhcp-option-force=3,172.31.1.1")
		p := kept(t, openBy(t, DHCP))
		rt := run(t, "ip route show dev eth0")
		for _, want := range []string{"default via 172.31.1.1 proto dhcp", "172.31.1.1 proto dhcp scope link"} {
			if !strings.Contains(rt, want) {
				t.Errorf("no %q in\n%s", want, rt)
			}
		}
		hostReaches(t, p.Source)
	})
	for _, tc := range []struct{ what, mask string }{{"a lease without a subnet", "255.255.255.255"}, {"a lease with a subnet", "255.255.255.0"}} {
		t.Run(tc.what+" that cannot be kept whole is not kept, and works until Close", func(t *testing.T) {
			c := serving(t)
			c.dnsmasq("--dhcp-option-force=1,"+tc.mask, "--dhcp-option-force=26,1450",
				"--dhcp-option-force=121,172.31.1.0/24,0.0.0.0,0.0.0.0/0,172.31.1.1")
			n := traceless(t, DHCP)
			p := next(t, n)
			run(t, "ip route add broadcast 172.31.1.1 dev eth0 table local") // and so no gateway, for the kernel
			var err *Error
			if !errors.As(n.Keep(p), &err) || err.Op != "keep route to 0.0.0.0/0" {
				t.Errorf("Keep: %v", err)
			}
			run(t, "ip route del broadcast 172.31.1.1 dev eth0 table local")
			reaches(t, p)
		})
	}
	t.Run("a kept link-local address outlives the network", func(t *testing.T) {
		serving(t)
		p := kept(t, openBy(t, LinkLocal))
		if a := addrs(t, "eth0"); !strings.Contains(a, p.Source.String()+"/32") || !strings.Contains(a, "forever") {
			t.Errorf("address: %s", a)
		}
		hostReaches(t, p.Source)
	})
	t.Run("it must be called before Close: nothing can be kept of a path that is gone", func(t *testing.T) {
		plug(t)
		n := traceless(t, LinkLocal)
		p := next(t, n)
		n.Close()
		if err := n.Keep(p); !errors.Is(err, ErrPathDone) {
			t.Errorf("Keep: %v", err)
		}
	})
}

// overrun makes the kernel drop notifications for n, which does not get to read any until its lock is given back.
func overrun(t testing.TB, n *Network) {
	t.Helper()
	if err := n.events.SetReadBuffer(1); err != nil {
		t.Fatal(err)
	}
	n.mu.Lock()
	run(t, "ip link add storm0 type veth peer name storm1")
	t.Cleanup(func() { run(t, "ip link del storm0") })
	run(t, "for i in 1 2 3 4 5 6 7 8; do ip link set storm0 up; ip link set storm0 down; done")
}
