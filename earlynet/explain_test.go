//go:build linux

package earlynet

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
)

// attempted has the service dialled over the next path, again and again until the test ends.
func attempted(t testing.TB, n *opened) *Path {
	t.Helper()
	p := next(t, n)
	attempting(t, p)
	return p
}

func attempting(t testing.TB, p *Path) {
	ctx, cancel := context.WithCancel(context.Background())
	var dialling sync.WaitGroup
	dialling.Go(func() {
		for ctx.Err() == nil && p.Err() == nil {
			moment, over := context.WithTimeout(ctx, 150*time.Millisecond)
			if conn, err := p.DialContext(moment, "tcp", "169.254.169.254:80"); err == nil {
				conn.Close()
			}
			<-moment.Done()
			over()
		}
	})
	t.Cleanup(func() { cancel(); dialling.Wait() })
}

// says waits until the network's status explains the silence so.
func says(t testing.TB, n *opened, what string) {
	t.Helper()
	eventually(t, "a status that says "+what, func() bool {
		for _, err := range n.Status() {
			var e *Error
			if errors.As(err, &e) && e.Interface == "eth0" && strings.Contains(err.Error(), what) {
				return true
			}
		}
		return false
	})
	t.Log(n.Status())
}

func TestSilenceIsExplained(t *testing.T) {
	t.Run("nobody answers ARP", func(t *testing.T) {
		c := plug(t)
		c.run("ip addr flush dev cloud0")
		n := openBy(t, LinkLocal)
		attempted(t, n)
		says(t, n, "reach 169.254.169.254: 169.254.169.254 does not answer ARP")
	})
	t.Run("ARP is answered and TCP is not", func(t *testing.T) {
		c := plug(t)
		c.run("ip route add blackhole 169.254.0.0/17 table 9; ip route add blackhole 169.254.128.0/17 table 9")
		n := openBy(t, LinkLocal)
		p := next(t, n)
		c.run("ip rule add to " + p.Source.String() + " iif lo table 9") // no answer but to ARP finds its way back
		attempting(t, p)
		says(t, n, "answers ARP (")
	})
	t.Run("the service's address is this machine's own", func(t *testing.T) {
		plug(t)
		run(t, "ip addr add 169.254.169.254/32 dev lo")
		t.Cleanup(func() { run(t, "ip addr del 169.254.169.254/32 dev lo") })
		n := openBy(t, LinkLocal)
		p := next(t, n)
		p.dialled.Store(true) // what comes of dialling one's own address is the kernel's affair
		says(t, n, "it is an address of this machine, on lo")
	})
	t.Run("the routing rules do not use the lease's router", func(t *testing.T) {
		c := serving(t)
		c.dnsmasq("--dhcp-option-force=121,169.254.169.254/32,10.9.0.1")
		c.run("ip addr del 169.254.169.254/32 dev cloud0")
		run(t, "ip rule add to 169.254.169.254 prohibit pref 5")
		t.Cleanup(func() { run(t, "ip rule del pref 5") })
		n := openBy(t, DHCP)
		attempted(t, n)
		says(t, n, "the system's routing rules do not lead there by the lease's router 10.9.0.1")
	})
	t.Run("what answers is not explained", func(t *testing.T) {
		serving(t)
		n := openBy(t, LinkLocal)
		reaches(t, next(t, n))
		if st := n.Status(); len(st) != 0 {
			t.Error(st)
		}
	})
}

func TestNICsThatAreLeftAreNamed(t *testing.T) {
	plug(t)
	run(t, "ip tuntap add tun0 mode tun; ip link property add dev eth0 altname enp9s0")
	t.Cleanup(func() { run(t, "ip link del tun0") })
	for nic, want := range map[string]string{
		"enp9*": "eth0 is a veth, not a physical NIC; name it exactly to use it", // the glob matches the other name
		"tun0":  "tun0 is not an Ethernet interface",
		"lo":    "lo is the loopback interface",
		"eth7":  "eth0 is not among the NICs asked for (eth7)",
	} {
		n := open(context.Background(), t, Config{NICs: []string{nic}})
		st := n.Status()
		if len(st) != 1 || !errors.Is(st[0], ErrNoNIC) || !strings.Contains(st[0].Error(), want) {
			t.Errorf("%s: %v; want %q", nic, st, want)
		}
	}
}

// Two NICs, and the kernel is strict about where an answer may come from: the way back to the service leads over the other one.
func TestStrictReversePathFilter(t *testing.T) {
	for _, where := range []string{"eth0", "all"} {
		t.Run("conf."+where, func(t *testing.T) {
			serving(t)
			run(t, "ip link add trap0 type veth peer name trap1; ip link set trap0 up; ip link set trap1 up; ip addr add 10.8.0.2/24 dev trap0")
			t.Cleanup(func() { run(t, "ip link del trap0") })
			run(t, "ip route add 169.254.169.254/32 via 10.8.0.1 dev trap0; echo 1 > /proc/sys/net/ipv4/conf/"+where+"/rp_filter; sleep 0.05")
			t.Cleanup(func() { run(t, "echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter") })
			reaches(t, next(t, traceless(t, LinkLocal)))
		})
	}
}
