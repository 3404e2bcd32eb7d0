//go:build linux

package talos_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/qemu"
	"github.com/nametag-boot/nametag/internal/testvm/qemu/report"
	"github.com/nametag-boot/nametag/internal/testvm/talos"
)

func TestAnOSThatIsNotTalosTellsWhatItWasGiven(t *testing.T) {
	t.Parallel()
	helper := careless(t)
	for name, way := range map[string]qemu.Way{"by rdinit": qemu.RDInit, "as init": qemu.AsInit} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := qemu.Boot(t, qemu.Scenario{
				OS: talos.Plain{}, Helper: helper, Way: way, Args: []string{"careless=name", "word", "key=value"},
			})
			s := v.State(report.Started)
			if v.Outcome != qemu.Running || s == nil {
				t.Fatalf("the boot ended: %v", v.Outcome)
			}
			if s.Hostname != "my-server" || s.Record != `{"hostname":"my-server"}` {
				t.Errorf("hostname %q, record %q", s.Hostname, s.Record)
			}
			if len(s.Args) != 2 || s.Args[1] != "word" || !slices.Contains(s.Env, "key=value") {
				t.Errorf("what the kernel does not know did not arrive: %q %q", s.Args, s.Env)
			}
		})
	}
}

func TestTheMachineIsWhatTheScenarioSays(t *testing.T) {
	t.Parallel()
	t.Run("a server of Hetzner with the cloud's instance id", func(t *testing.T) {
		t.Parallel()
		v := qemu.Boot(t, qemu.Scenario{OS: talos.Plain{}, Cloud: cloud.Config{Server: cloud.Server{InstanceID: "4711"}}})
		if s := v.State(report.Started); s == nil || s.Vendor != "Hetzner" || s.Serial != "4711" || s.NoRandom {
			t.Errorf("%+v", s)
		}
	})
	t.Run("another vendor's, and without random numbers", func(t *testing.T) {
		t.Parallel()
		v := qemu.Boot(t, qemu.Scenario{OS: talos.Plain{}, Vendor: "Example, Inc.", Serial: "x", NoRDRAND: true})
		if s := v.State(report.Started); s == nil || s.Vendor != "Example, Inc." || s.Serial != "x" || !s.NoRandom {
			t.Errorf("%+v", s)
		}
	})
	t.Run("without a NIC no lease is asked for, and the metadata gives no name", func(t *testing.T) {
		t.Parallel()
		v := qemu.Boot(t, qemu.Scenario{
			OS: talos.OS{}, NICs: []qemu.NIC{},
			Until: func(v *qemu.Verdict) bool { return len(v.All(report.Metadata)) > 2 },
		})
		if s := v.State(report.Switched); s == nil || len(s.Links) > 0 || len(v.Names()) > 0 {
			t.Errorf("%v, names %q", s, v.Names())
		}
	})
	t.Run("two NICs, one dead and one plugged in after three seconds", func(t *testing.T) {
		t.Parallel()
		v := qemu.Boot(t, qemu.Scenario{
			OS: talos.OS{},
			NICs: []qemu.NIC{
				{NIC: cloud.NIC{Shape: cloud.Dead}},
				{After: 3 * time.Second},
			},
			Clock: report.Switched,
		})
		switched, ok1 := v.First(report.Switched)
		network, ok2 := v.First(report.Network)
		if !ok1 || !ok2 || network.At-switched.At < 2900*time.Millisecond {
			t.Errorf("a lease came at %v, machined at %v", network.At, switched.At)
		}
		if v.Outcome != qemu.Running || v.Service() == "" {
			t.Errorf("%v, services as %q", v.Outcome, v.Service())
		}
	})
}

func TestTheDriversStandOnlyInTheSquashfs(t *testing.T) {
	t.Parallel()
	v := qemu.Boot(t, qemu.Scenario{OS: talos.OS{Packing: "zstd"}, Cloud: cloud.Config{Server: cloud.Server{Hostname: server}}})
	if s := v.State(report.Switched); s == nil || len(s.Links) > 0 {
		t.Errorf("there were NICs before machined: %v", s)
	}
	if end := v.State(report.Settled); end == nil || !slices.Contains(end.Links, "eth0 up") || end.Hostname != server {
		t.Errorf("in the end: %v", end)
	}
}

func TestTheCommandLineGivesTheFirstName(t *testing.T) {
	t.Parallel()
	t.Run("the server's own: one name, etcd's too, however late the metadata", func(t *testing.T) {
		t.Parallel()
		v := qemu.Boot(t, qemu.Scenario{
			OS:    talos.OS{Line: talos.V1_12, Etcd: true},
			Cloud: late,
			Args:  []string{"talos.hostname=" + server},
			Clock: report.Switched,
		})
		if names := v.Names(); len(names) != 1 || names[0] != server || v.Member() != server {
			t.Errorf("names %q, etcd's member %q", names, v.Member())
		}
		for _, m := range v.All(report.Mounted) {
			if !strings.HasPrefix(m.Text, "fsmount on thread ") {
				t.Errorf("%s: %s", m.Name, m.Text)
			}
		}
	})
	t.Run("another one: replaced when the platform's arrives", func(t *testing.T) {
		t.Parallel()
		v := qemu.Boot(t, qemu.Scenario{
			OS: talos.OS{}, Cloud: cloud.Config{Server: cloud.Server{Hostname: server}}, Args: []string{"talos.hostname=other"},
		})
		if names := v.Names(); !slices.Equal(names, []string{"other", server}) {
			t.Errorf("names %q", names)
		}
	})
	t.Run("none, and another platform: the default, and nobody asks for metadata", func(t *testing.T) {
		t.Parallel()
		v := qemu.Boot(t, qemu.Scenario{OS: talos.OS{Platform: "metal"}})
		names := v.Names()
		if len(names) != 1 || !strings.HasPrefix(names[0], "talos-") || len(v.Requests) > 0 {
			t.Errorf("names %q, requests %v", names, v.Requests)
		}
	})
}

func TestALeaseWithAHostnameIsALayerOfItsOwn(t *testing.T) {
	t.Parallel()
	const option12 = 12 // RFC 2132, section 3.14
	v := qemu.Boot(t, qemu.Scenario{
		OS:   talos.OS{},
		NICs: []qemu.NIC{{NIC: cloud.NIC{DHCP: []cloud.DHCP{{Extra: map[uint8][]byte{option12: []byte("leased")}}}}}},
	})
	if names := v.Names(); !slices.Equal(names, []string{"leased"}) {
		t.Errorf("names %q: the operator's layer is above the platform's", names)
	}
}
