//go:build linux

package scenarios

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/hetzner"
	"github.com/nametag-boot/nametag/internal/testvm"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
)

var (
	private   = cloud.NIC{Shape: cloud.Private}
	blackHole = cloud.NIC{Shape: cloud.Private, BlackHole: true}
	dead      = cloud.NIC{Shape: cloud.Dead}
)

// Every network that a server can find itself in.
func TestShapes(t *testing.T) {
	eight := func(works string) (opts []testvm.Option, nics []string) {
		for i := range 8 {
			nic := fmt.Sprintf("eth%d", i)
			desc := dead
			if nic == works {
				desc = cloud.NIC{}
			}
			opts, nics = append(opts, testvm.NIC(nic, desc)), append(nics, nic)
		}
		return opts, nics
	}
	eightNICs, eightNames := eight("eth5")
	both := []string{"eth0", "eth1"}

	play(t, []scenario{
		{about: "a public IPv4 address", cloud: cloud.Config{Link: far}, via: "eth0/linklocal"},
		{about: "a server without IPv4", lab: []testvm.Option{testvm.NIC("eth0", cloud.NIC{Shape: cloud.IPv6Only})}, via: "eth0/linklocal"},
		{
			about: "a service that answers at its IPv6 address alone", methods: []earlynet.Method{earlynet.IPv6},
			cloud: cloud.Config{IPv6: true}, via: "eth0/ipv6",
		},
		{
			about: "a service that answers at its IPv6 address does not slow the others down",
			cloud: cloud.Config{IPv6: true, Link: far}, via: "eth0/linklocal",
		},
		{
			about: "nobody at the IPv6 address, where only that one may be used", methods: []earlynet.Method{earlynet.IPv6},
			// The kernel looks for duplicates of an IPv6 address for up to 2 s before it may be used.
			bound: 4 * time.Second, trouble: []string{"eth0/ipv6: no answer in "},
		},
		{about: "a private network alone", lab: []testvm.Option{testvm.NIC("eth0", private)}, via: "eth0/dhcp"},
		{
			about: "a private network alone, without the right method", lab: []testvm.Option{testvm.NIC("eth0", private)},
			methods: []earlynet.Method{earlynet.LinkLocal}, bound: time.Second, trouble: []string{"eth0/linklocal: no answer in "},
		},
		{
			about: "a private network that is attached late", lab: []testvm.Option{testvm.Without("eth0")}, via: "eth0/dhcp",
			during: func(_ *testing.T, l *testvm.Lab) {
				time.Sleep(300 * time.Millisecond)
				l.Plug("eth0", private)
			},
		},
		{about: "public and private", nics: both, lab: []testvm.Option{testvm.NIC("eth1", private)}, cloud: cloud.Config{Link: far}, via: "eth0/linklocal"},
		{
			about: "public and private, with the route to the service that leads nowhere", nics: both,
			lab: []testvm.Option{testvm.NIC("eth1", blackHole)}, cloud: cloud.Config{Link: far}, via: "eth0/linklocal",
		},
		{
			about: "public and private, with the route that leads nowhere, by DHCP alone", nics: both, methods: []earlynet.Method{earlynet.DHCP},
			lab: []testvm.Option{testvm.NIC("eth1", blackHole)}, via: "eth0/dhcp",
		},
		{
			about: "a private network whose route to the service leads nowhere", lab: []testvm.Option{testvm.NIC("eth0", blackHole)},
			bound: 1500 * time.Millisecond, trouble: []string{"eth0/dhcp: no answer in "},
		},
		{about: "eight NICs of which one works", nics: eightNames, lab: eightNICs, via: "eth5/linklocal", cloud: cloud.Config{Link: far}},
		{about: "eight NICs by a pattern", nics: []string{"eth*"}, bound: time.Second, trouble: []string{"no usable NIC"}, lab: []testvm.Option{testvm.NIC("eth0", dead)}},
		{about: "no NIC at all", lab: []testvm.Option{testvm.Without("eth0")}, bound: 300 * time.Millisecond, trouble: []string{"no usable NIC"}},
	})
}

// What happens to NICs while they are in use.
func TestNICsThatChange(t *testing.T) {
	settled := first(600*time.Millisecond, cloud.Silent()) // so that the change comes while an attempt is under way
	pause := func() { time.Sleep(200 * time.Millisecond) }
	play(t, []scenario{
		{
			about: "a NIC without carrier that gets it later",
			during: func(_ *testing.T, l *testvm.Lab) {
				l.SetCarrier("eth0", false)
				time.Sleep(500 * time.Millisecond)
				l.SetCarrier("eth0", true)
			},
		},
		{
			about: "a NIC that never gets a carrier", bound: time.Second, trouble: []string{"eth0", "carrier"},
			during: func(_ *testing.T, l *testvm.Lab) { l.SetCarrier("eth0", false) },
			before: func(*testing.T) { time.Sleep(time.Millisecond) },
		},
		{
			about: "a carrier that comes and goes five times", cloud: settled,
			during: func(_ *testing.T, l *testvm.Lab) {
				for range 5 {
					l.SetCarrier("eth0", false)
					time.Sleep(50 * time.Millisecond)
					l.SetCarrier("eth0", true)
					time.Sleep(50 * time.Millisecond)
				}
			},
		},
		{
			about: "a NIC that is renamed during the attempt", cloud: settled, lab: []testvm.Option{testvm.Without("eth0")}, nics: []string{"nic0"},
			during: func(t *testing.T, l *testvm.Lab) {
				l.Plug("nic0", cloud.NIC{})
				pause()
				// A link must be down to be renamed, before Linux 6.0 and by careful tools.
				sh(t, "ip link set nic0 down", "ip link set nic0 name ens10", "ip link set ens10 up")
				pause()
				sh(t, "ip link set ens10 down", "ip link set ens10 name nic0", "ip link set nic0 up")
			},
		},
		{
			about: "a NIC that is removed and comes back during the attempt", cloud: settled, lab: []testvm.Option{testvm.Without("eth0")},
			during: func(_ *testing.T, l *testvm.Lab) {
				l.Plug("eth0", cloud.NIC{})
				pause()
				l.Unplug("eth0")
				pause()
				l.Plug("eth0", cloud.NIC{})
			},
		},
		{
			about: "a NIC that is removed and does not come back", cloud: settled, lab: []testvm.Option{testvm.Without("eth0")},
			bound: time.Second, trouble: []string{"eth0"},
			during: func(_ *testing.T, l *testvm.Lab) {
				l.Plug("eth0", cloud.NIC{})
				pause()
				l.Unplug("eth0")
			},
		},
	})
}

// Interfaces that are no NICs are nobody's way to the service, and are left alone.
func TestOtherInterfaces(t *testing.T) {
	for kind, lines := range map[string][2]string{
		"a bridge":         {"ip link add br0 type bridge && ip link set br0 up", "ip link del br0"},
		"a bond":           {"ip link add bond0 type bond && ip link set bond0 up", "ip link del bond0"},
		"a VLAN":           {"ip link add link eth0 name eth0.5 type vlan id 5", "ip link del eth0.5"},
		"a macvlan":        {"ip link add link eth0 name mac0 type macvlan", "ip link del mac0"},
		"a tap":            {"ip tuntap add tap0 mode tap && ip link set tap0 up", "ip link del tap0"},
		"a tunnel":         {"ip tuntap add tun0 mode tun && ip link set tun0 up", "ip link del tun0"},
		"a veth of others": {"ip link add v0 type veth peer name v1 && ip link set v0 up && ip link set v1 up", "ip link del v0"},
	} {
		t.Run(kind+" around", func(t *testing.T) {
			scenario{
				nics: []string{"eth0", "br*", "bond*", "eth0.*", "mac*", "t[au][pn]*", "v[01]*"}, // by a pattern: what is no NIC is passed over
				before: func(t *testing.T) {
					t.Cleanup(func() { _ = exec.Command("sh", "-c", lines[1]).Run() })
					if out, err := exec.Command("sh", "-ec", lines[0]).CombinedOutput(); err != nil {
						t.Skipf("NOT TESTED: this kernel has no such interface: %s", out)
					}
				},
				via: "eth0/linklocal", cloud: cloud.Config{Link: far},
			}.play(t)
		})
	}
}

// RFC 3927: an address that somebody has is not taken from them.
func TestAddressConflict(t *testing.T) {
	mac := net.HardwareAddr{0x86, 0, 0, 9, 9, 9}
	var taken []netip.Addr
	for range 4 {
		t.Run(fmt.Sprintf("%d addresses in 169.254/16 are others'", len(taken)), func(t *testing.T) {
			// Its owner answers within one round trip, the service within three.
			testvm.Start(t, cloud.Config{Link: far, Server: cloud.Server{Hostname: name, InstanceID: id}},
				testvm.NIC("eth0", cloud.NIC{MAC: mac, Neighbours: taken}))
			ctx, cancel := context.WithTimeout(t.Context(), ample)
			defer cancel()
			conflicts := 0
			r := identity.Resolver{
				Source: hetzner.Source(), Link: earlynet.Config{NICs: []string{"eth0"}, Methods: []earlynet.Method{earlynet.LinkLocal}},
				OnEvent: func(e identity.Event) {
					if e.Link != nil && e.Link.Kind == earlynet.Conflict {
						conflicts++
					}
				},
			}
			got, err := r.Resolve(ctx)
			if err != nil || got.Hostname != name {
				t.Fatalf("got %+v, %v", got, err)
			}
			// A conflict is heeded: the next address follows at once. What was under way is finished, so that nobody on the link
			// can stop it; the name may come over the address that was given up.
			if len(taken) > 0 && conflicts == 0 {
				t.Error("nobody noticed that the address is another's")
			}
			if !slices.Contains(taken, got.Path.Address) {
				taken = append(taken, got.Path.Address)
			}
		})
	}
}
