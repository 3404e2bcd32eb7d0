//go:build linux

// Package testvm is the test bench: a node with NICs that are down and bare, plugged into a fake Hetzner Cloud.
//
// A scenario is a few lines:
//
//	lab := testvm.Start(t, cloud.Config{
//		Server:   cloud.Server{Hostname: "my-server"},
//		Link:     cloud.Link{RTT: 20 * time.Millisecond, Up: cloud.Impairment{Loss: 0.2}},
//		Metadata: []cloud.Phase{{Until: 3 * time.Second, Answer: cloud.Unreachable()}},
//	})
//	id, err := identity.Resolve(ctx, hetzner.Source(), …)
//
// The node is the network namespace that the test runs in; so the package's TestMain calls [netns.Main], and tests that
// start a lab do not run in parallel. When the test ends, everything must be as it was right after Start: links,
// addresses, routes, rules, neighbours, settings, goroutines and descriptors; what is not fails the test.
package testvm

import (
	"context"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/identity/dmi"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/netns"
)

// settle is how long what a test began may take to end.
const settle = 3 * time.Second

// Lab is a node and its cloud.
type Lab struct {
	// Cloud is the network behind the NICs.
	Cloud *cloud.Cloud

	t      testing.TB
	before netns.Snapshot
	cables map[string]*netns.Cable
	remove map[string]func() error
	late   []string // plugged after Start
	failed []func() // what to log
}

// Option changes what [Start] makes.
type Option func(*options)

type options struct {
	nics   []nic
	noTrap bool
}

type nic struct {
	name string
	desc cloud.NIC
}

// NIC plugs a NIC called name. Without any for "eth0", that is a public one; see [Without].
func NIC(name string, desc cloud.NIC) Option {
	return func(o *options) {
		o.nics = slices.DeleteFunc(o.nics, func(n nic) bool { return n.name == name })
		o.nics = append(o.nics, nic{name, desc})
	}
}

// Without leaves a NIC out, such as the "eth0" that is there by default.
func Without(name string) Option {
	return func(o *options) {
		o.nics = slices.DeleteFunc(o.nics, func(n nic) bool { return n.name == name })
	}
}

// KeepTraces does not compare the node's state at the end, for scenarios that leave something on purpose.
func KeepTraces() Option { return func(o *options) { o.noTrap = true } }

// Start builds a lab. It fails the test when it cannot, and skips it where there are no namespaces.
func Start(t testing.TB, cfg cloud.Config, opts ...Option) *Lab {
	t.Helper()
	netns.Require(t)
	o := options{nics: []nic{{name: "eth0"}}}
	for _, opt := range opts {
		opt(&o)
	}
	c, err := cloud.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	facts := t.TempDir()
	if err := c.WriteDMI(facts); err != nil {
		t.Fatal(err)
	}
	t.Setenv(dmi.DirVariable, facts) // for whatever runs in the node, the test itself among it
	lab := &Lab{Cloud: c, t: t, cables: map[string]*netns.Cable{}, remove: map[string]func() error{}}
	t.Cleanup(func() { lab.close(o.noTrap) })
	for _, n := range o.nics {
		lab.plug(n.name, n.desc)
	}
	if lab.before, err = netns.Snap(); err != nil {
		t.Fatal(err)
	}
	c.Restart() // the schedule begins now, not when the NICs were being made
	return lab
}

// Plug adds a NIC while the lab runs, as hot-plugging does. It is removed before the state is compared at the end.
func (l *Lab) Plug(name string, desc cloud.NIC) {
	l.t.Helper()
	l.plug(name, desc)
	l.late = append(l.late, name)
}

// Unplug removes a NIC that [Lab.Plug] added.
func (l *Lab) Unplug(name string) {
	l.t.Helper()
	if remove := l.remove[name]; remove != nil {
		if err := remove(); err != nil {
			l.t.Errorf("unplug %s: %v", name, err)
		}
	}
}

// SetCarrier pulls the cable out of a NIC or puts it in again.
func (l *Lab) SetCarrier(name string, up bool) {
	l.t.Helper()
	if err := l.cables[name].SetCarrier(up); err != nil {
		l.t.Errorf("carrier of %s: %v", name, err)
	}
}

func (l *Lab) plug(name string, desc cloud.NIC) {
	l.t.Helper()
	var opts []netns.PlugOption
	if desc.MAC != nil {
		opts = append(opts, netns.MAC(desc.MAC))
	}
	port, remove, err := netns.Plug(name, opts...)
	if err != nil {
		l.t.Fatal(err)
	}
	l.cables[name], l.remove[name] = port, remove
	if desc.Name == "" {
		desc.Name = name
	}
	if err := l.Cloud.Attach(desc, port); err != nil {
		l.t.Fatal(err)
	}
}

// Changes says what differs from the state right after [Start], after a moment for what is just ending; empty when
// nothing does. The end of the test checks the same.
func (l *Lab) Changes() string {
	l.t.Helper()
	diff, err := l.before.Settle(settle)
	if err != nil {
		l.t.Error(err)
	}
	return diff
}

// OnFailure calls fn at the end of a test that has failed, traces that were left included: to log what only then is of interest.
func (l *Lab) OnFailure(fn func()) { l.failed = append(l.failed, fn) }

// Command is a command in the node that does not outlive the test by long.
func (l *Lab) Command(name string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	l.t.Cleanup(cancel)
	return exec.CommandContext(ctx, name, args...)
}

func (l *Lab) close(noTrap bool) {
	l.t.Helper()
	for _, name := range l.late {
		l.Unplug(name)
	}
	if !noTrap {
		if diff := l.Changes(); diff != "" {
			l.t.Errorf("traces left (- gone, + new):\n%s", diff)
		}
	}
	if l.t.Failed() {
		for _, fn := range l.failed {
			fn()
		}
	}
	if err := l.Cloud.Close(); err != nil {
		l.t.Errorf("close the cloud: %v", err)
	}
	for name, remove := range l.remove {
		if err := remove(); err != nil {
			l.t.Errorf("unplug %s: %v", name, err)
		}
	}
}
