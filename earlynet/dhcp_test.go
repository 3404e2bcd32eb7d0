//go:build linux

package earlynet

import (
	"os/exec"
	"strings"
	"testing"
)

// dnsmasq starts an independent DHCP server on the cloud's side. It gives
// 10.9.0.50 to 10.9.0.60.
func (c *peer) dnsmasq(options ...string) {
	c.t.Helper()
	if _, err := exec.LookPath("dnsmasq"); err != nil {
		c.t.Skip("dnsmasq is missing: install dnsmasq-base")
	}
	c.run("ip addr add 10.9.0.1/24 dev cloud0; ip addr add 172.31.1.1/32 dev cloud0")
	args := append([]string{
		"-t", c.ns, "-n", "dnsmasq", "--no-daemon", "--port=0", "--conf-file=/dev/null", "--user=root", "--group=",
		"--interface=cloud0", "--bind-interfaces", "--dhcp-authoritative", "--no-ping",
		"--dhcp-range=10.9.0.50,10.9.0.60,255.255.255.0,1h", "--dhcp-leasefile=" + c.t.TempDir() + "/leases", "--pid-file=",
	}, options...)
	cmd := exec.Command("nsenter", args...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if c.t.Failed() {
			c.t.Log("dnsmasq:", out.String())
		}
	})
	eventually(c.t, "dnsmasq", func() bool { return strings.Contains(c.run("ss -lun"), ":67 ") })
}

func TestDHCP(t *testing.T) {
	t.Run("dnsmasq's lease with a subnet and a router becomes a path", func(t *testing.T) {
		c := serving(t)
		c.dnsmasq()
		n := traceless(t, DHCP)
		p := next(t, n)
		reaches(t, p)
		if !strings.HasPrefix(p.Source.String(), "10.9.0.") || p.Gateway.String() != "10.9.0.1" {
			t.Errorf("the path says %v by %v", p.Source, p.Gateway)
		}
	})
	t.Run("a /32 with a gateway outside of it by option 121, as on Hetzner's public network", func(t *testing.T) {
		c := serving(t)
		c.dnsmasq("--dhcp-option-force=1,255.255.255.255",
			"--dhcp-option-force=121,172.31.1.1/32,0.0.0.0,0.0.0.0/0,172.31.1.1",
			"--dhcp-option=3,10.9.0.99", "--dhcp-option-force=26,1450")
		n := traceless(t, DHCP)
		p := next(t, n)
		reaches(t, p)
		if p.Gateway.String() != "172.31.1.1" {
			t.Errorf("the path says %v by %v", p.Source, p.Gateway)
		}
		if a := addrs(t, "eth0"); !strings.Contains(a, p.Source.String()+"/32") {
			t.Errorf("address: %s", a)
		}
		if r := run(t, "ip route show 169.254.169.254"); !strings.Contains(r, "via 172.31.1.1 dev eth0") ||
			!strings.Contains(r, "mtu 1450") || !strings.Contains(r, "onlink") {
			t.Errorf("route: %s", r)
		}
	})
	t.Run("link-local and DHCP race, and both work at the same time", func(t *testing.T) {
		c := serving(t)
		c.dnsmasq()
		n := traceless(t)
		for range 2 {
			reaches(t, next(t, n))
		}
	})
	t.Run("another client with the same lease keeps it", func(t *testing.T) {
		c := serving(t)
		c.dnsmasq()
		n := openBy(t, DHCP)
		p := next(t, n)
		run(t, "ip addr add "+p.Source.String()+"/24 dev eth0; ip route add default via 10.9.0.1")
		reaches(t, p)
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		hostReaches(t, p.Source) // the other client's network
		if a := addrs(t, "eth0"); strings.Contains(a, "/32") {
			t.Errorf("ours is left: %s", a)
		}
	})
}
