//go:build linux

package boot_test

import (
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm/chaos"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/qemu"
	"github.com/nametag-boot/nametag/internal/testvm/qemu/report"
	"github.com/nametag-boot/nametag/internal/testvm/talos"
	"github.com/nametag-boot/nametag/procfs"
)

// TestChaos boots random machines on random networks with random faults under random policies. What other packages play
// with the library is played here with everything, from the kernel argument to the next init or to what then= says.
func TestChaos(t *testing.T) {
	t.Parallel()
	chaos.Run(t, 3, func(t *testing.T, d *chaos.Dice) {
		t.Parallel()
		w := newWorld(d)
		defer func() {
			if t.Failed() {
				t.Log(strings.Join(w.about, "\n"))
			}
		}()
		w.check(t, boot(t, w.scenario))
	})
}

// A world is a machine, its network, and what must come out.
type world struct {
	scenario qemu.Scenario
	policy   procfs.Policy
	mistake  bool
	heals    bool // the metadata service, within seconds
	about    []string
}

func (w *world) say(format string, args ...any) {
	w.about = append(w.about, fmt.Sprintf(format, args...))
}

// newWorld draws worlds until there is one that ends within the patience of a test: one that waits long gets its name.
func newWorld(d *chaos.Dice) *world {
	for {
		w := drawWorld(d)
		if w.short() || w.sure() {
			return w
		}
	}
}

func (w *world) short() bool {
	return w.policy.Mode == procfs.Bounded && w.policy.Wait < 30*time.Second
}

func drawWorld(d *chaos.Dice) *world {
	w := &world{}
	s := &w.scenario
	s.OS = chaos.Pick[qemu.OS](d, talos.OS{Line: talos.V1_9}, talos.OS{Line: talos.V1_12}, talos.Plain{}, talos.Plain{})
	s.Way = chaos.Pick(d, qemu.RDInit, qemu.AsInit)
	s.NoRDRAND = d.Chance(0.1)
	s.Timeout = 4 * time.Minute
	s.Until = func(v *qemu.Verdict) bool {
		_, settled := v.First(report.Settled)
		_, failed := v.First(report.Fatal)
		// An OS that looks for the metadata service by itself may not find it on such a network. By then it has its name, or
		// has started without, and never comes to one.
		_, started := v.First(report.Started)
		given := len(v.Names()) > 0 && v.Said("the system has its name")
		without := started && v.Said("booting on without the name")
		return settled || failed || given || without || v.Said("staying here")
	}
	s.Cloud.Seed = d.Uint64()
	s.Cloud.Server = cloud.Server{Hostname: server, InstanceID: "42", Newline: d.Chance(0.5)}
	w.say("%T %+v, way %d, no RDRAND %v", s.OS, s.OS, s.Way, s.NoRDRAND)
	for i := range 1 + d.IntN(3) {
		w.addNIC(d, i)
	}
	w.heals = true
	var at time.Duration
	for range d.IntN(3) {
		at += d.Between(time.Second, 6*time.Second)
		if d.Chance(0.15) {
			at, w.heals = time.Hour, false
		}
		fault, what := fault(d)
		s.Cloud.Metadata = append(s.Cloud.Metadata, cloud.Phase{Until: at, Answer: fault})
		w.say("metadata until %v: %s", at, what)
	}
	w.ask(d)
	if d.Chance(0.15) {
		s.RTC = "1970-01-01T00:00:00"
	}
	if d.Chance(0.15) {
		s.Args = append(s.Args, jumps)
	}
	if d.Chance(0.1) {
		s.Args = append(s.Args, "sysctl.kernel.yama.ptrace_scope=3")
	}
	w.say("clock %q, %q", s.RTC, s.Args)
	return w
}

func (w *world) addNIC(d *chaos.Dice, i int) {
	n := qemu.NIC{NIC: cloud.NIC{Shape: chaos.Pick(d, cloud.Public, cloud.Public, cloud.Public, cloud.Private, cloud.Private, cloud.IPv6Only, cloud.Dead)}}
	n.MAC = net.HardwareAddr{0x92, 0, 0, 0, byte(d.Uint32()), byte(i + 1)}
	if n.Shape == cloud.Private {
		n.MAC[0] = 0x86
		n.BlackHole = d.Chance(0.2)
	}
	if d.Chance(0.4) {
		bad := func() cloud.Impairment {
			return cloud.Impairment{Loss: 0.2 * d.Float64(), Duplicate: 0.2 * d.Float64(), Reorder: 0.2 * d.Float64()}
		}
		n.Link = &cloud.Link{RTT: d.Between(100*time.Microsecond, 20*time.Millisecond), Up: bad(), Down: bad()}
	}
	if (n.Shape == cloud.Public || n.Shape == cloud.Private) && d.Chance(0.2) {
		n.DHCP = []cloud.DHCP{chaos.Pick(d, cloud.DHCP{Silent: true}, cloud.DHCP{NAK: true}, cloud.DHCP{OfferOnly: true}, cloud.DHCP{After: 2 * time.Second})}
	}
	switch d.IntN(6) {
	case 0:
		n.After = d.Between(500*time.Millisecond, 4*time.Second)
	case 1:
		n.Cable = d.Between(500*time.Millisecond, 4*time.Second)
	}
	w.scenario.NICs = append(w.scenario.NICs, n)
	w.say("%v: %v, black hole %v, link %+v, DHCP %+v, plugged in after %v, its cable after %v", n.MAC, n.Shape, n.BlackHole, n.Link, n.DHCP, n.After, n.Cable)
}

// fault is what the metadata service does for a while.
func fault(d *chaos.Dice) (cloud.Behaviour, string) {
	switch d.IntN(10) {
	case 0:
		return cloud.Unreachable(), "unreachable"
	case 1:
		return cloud.Dropped(), "dropped"
	case 2:
		return cloud.Refused(), "refused"
	case 3:
		return cloud.Silent(), "silent"
	case 4:
		code := chaos.Pick(d, 204, 404, 500, 503)
		return cloud.Status(code), fmt.Sprint(code)
	case 5:
		return cloud.Status(429, "Retry-After", "1"), "429"
	case 6:
		return cloud.Endless(), "endless"
	case 7:
		return cloud.Body("<html>"), "HTML"
	case 8:
		return cloud.OnName(cloud.Raw("HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\nexample-controlplane", cloud.Close)), "cut short"
	}
	return cloud.Other(cloud.Server{Hostname: "somebody-else", InstanceID: "13"}), "another server's"
}

// ask draws the kernel argument.
func (w *world) ask(d *chaos.Dice) {
	if d.Chance(0.12) {
		w.mistake, w.policy = true, procfs.Default()
		w.scenario.Args = append(w.scenario.Args, d.Malformed())
		return
	}
	wishes := chaos.Wishes{Wait: chaos.Pick(d, d.Between(5*time.Second, 12*time.Second).Truncate(time.Millisecond), 2*time.Minute, 0)}
	for _, n := range w.scenario.NICs {
		wishes.NICs = append(wishes.NICs, n.MAC.String())
	}
	wishes.NICs = append(wishes.NICs, "eth*")
	argument, means := d.Argument(wishes)
	w.policy = means
	w.scenario.Args = append(w.scenario.Args, argument)
	if d.Chance(0.3) {
		w.scenario.Args = append(w.scenario.Args, d.Later())
	}
}

// uses says whether the policy takes a NIC, and a method.
func (w *world) uses(n qemu.NIC, method string) bool {
	p := w.policy
	return (len(p.NICs) == 0 || slices.Contains(p.NICs, "eth*") || slices.Contains(p.NICs, n.MAC.String())) &&
		(len(p.Via) == 0 || slices.Contains(p.Via, method))
}

// sure says whether the name must come in time, if there is time enough.
func (w *world) sure() bool {
	return w.heals && slices.ContainsFunc(w.scenario.NICs, func(n qemu.NIC) bool {
		switch n.Shape {
		case cloud.Public:
			return w.uses(n, "linklocal") || w.uses(n, "dhcp") && n.DHCP == nil
		case cloud.IPv6Only:
			return w.uses(n, "linklocal")
		case cloud.Private:
			return w.uses(n, "dhcp") && n.DHCP == nil && !n.BlackHole
		}
		return false
	})
}

// never says whether there is no way to the name.
func (w *world) never() bool {
	return !slices.ContainsFunc(w.scenario.NICs, func(n qemu.NIC) bool {
		return n.Shape != cloud.Dead && (w.uses(n, "linklocal") || w.uses(n, "dhcp"))
	})
}

// ended is what the console says when the time was up, and how the machine ends then.
func (w *world) ended() (says string, outcome qemu.Outcome) {
	switch w.policy.Then {
	case procfs.PowerOff:
		return ": poweroff now", qemu.PoweredOff
	case procfs.Halt:
		return "staying here since", qemu.Running
	case procfs.Continue:
		return "booting on without the name", qemu.Running
	}
	return ": reboot now", qemu.Reset
}

// cause is the last word of a search without a name.
var cause = regexp.MustCompile(`no valid name from hetzner in [0-9.ms]+: \S+`)

func (w *world) check(t *testing.T, v *qemu.Verdict) {
	if w.mistake {
		says(t, v, "going by the default policy")
	}
	_, plain := w.scenario.OS.(talos.Plain)
	found := v.State(report.Started)
	ending, outcome := w.ended()
	if v.Said(ending) {
		if !w.short() {
			t.Errorf("there was time enough, and yet: %s", ending)
		}
		if v.Outcome != outcome {
			t.Errorf("the boot ended: %v, want %v", v.Outcome, outcome)
		}
		if !slices.ContainsFunc(v.Console, func(l qemu.Line) bool { return cause.MatchString(l.Text) }) {
			t.Error("the console does not name the cause")
		}
		within(t, v, w.policy.Wait, ending)
		switch {
		case w.policy.Then != procfs.Continue:
			if found != nil {
				t.Errorf("it booted on: %v", found)
			}
		case found == nil:
			t.Error("it did not boot on")
		case plain && found.Hostname != "(none)":
			t.Errorf("it boots on as %q", found.Hostname)
		}
		if found != nil {
			w.left(t, found, false)
		}
		return
	}
	if v.Outcome != qemu.Running || found == nil {
		t.Errorf("neither a name nor what then=%v says; it ended: %v", w.policy.Then, v.Outcome)
		return
	}
	if w.never() {
		t.Error("there was no way to the name, and yet the next init started")
	}
	if plain && found.Hostname != server {
		t.Errorf("the kernel's hostname is %q, not %s", found.Hostname, server)
	}
	if names := v.Names(); !plain && (len(names) != 1 || names[0] != server) {
		t.Errorf("the node was called %q, not %s alone", names, server)
	}
	w.left(t, found, w.policy.Keep == procfs.KeepNetwork)
}

// left checks what the next init finds of a network: one link that is up with an address, if any is to be there.
func (w *world) left(t *testing.T, found *report.State, kept bool) {
	t.Helper()
	up := slices.DeleteFunc(slices.Clone(found.Links), func(l string) bool { return !strings.HasSuffix(l, " up") })
	if !kept {
		if len(up)+len(found.Addresses)+len(found.Routes) > 0 {
			t.Errorf("a network is left: %q %q %q", up, found.Addresses, found.Routes)
		}
		return
	}
	if len(up) != 1 || len(found.Addresses) == 0 {
		t.Errorf("not one link is left: %q %q %q", up, found.Addresses, found.Routes)
		return
	}
	nic, _, _ := strings.Cut(up[0], " ")
	for _, of := range slices.Concat(found.Addresses, found.Routes) {
		if !strings.HasPrefix(of, nic+" ") {
			t.Errorf("%s is left, beside the link %s", of, nic)
		}
	}
}
