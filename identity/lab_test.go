//go:build linux

package identity_test

import (
	"cmp"
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/dmi"
	"github.com/nametag-boot/nametag/identity/hetzner"
	"github.com/nametag-boot/nametag/internal/testvm"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/netns"
)

func TestMain(m *testing.M) {
	if raceEnabled {
		// Go's race detector crashes (1.26.8: SIGSEGV below maybeRunChan) where two processors run timers of one bubble
		// of virtual time for the first time at once: unlockAndRun makes the bubble's race context without a lock.
		runtime.GOMAXPROCS(1)
	}
	netns.Main(m)
}

// These scenarios run over real links, in a namespace plugged into a fake cloud.
// Starting the lab takes a snapshot of the node, and its end compares: links,
// addresses, routes, rules, neighbours, settings, goroutines and descriptors
// are what they were, whatever came out.
func TestLab(t *testing.T) {
	server := cloud.Server{Hostname: "my-server.example.com", InstanceID: "42"}
	far := cloud.Config{Link: cloud.Link{RTT: 20 * time.Millisecond}} // so that the path of fewer round trips wins
	cases := []struct {
		about    string
		cloud    cloud.Config
		lab      []testvm.Option
		nics     []string // eth0 if empty
		methods  []earlynet.Method
		serial   string // 42 if empty
		atLeast  time.Duration
		path     string // that wins; any if empty
		trouble  string // in the error's message, when it has lasted for a second; a name is expected if empty
		requests int    // at most; unchecked if 0
	}{
		{about: "a link that is down, and everything in order", cloud: far, path: "eth0/linklocal", requests: 6},
		{about: "by DHCP alone", methods: []earlynet.Method{earlynet.DHCP}, path: "eth0/dhcp"},
		{about: "a private network: no answer to link-local, DHCP through the gateway", lab: []testvm.Option{testvm.NIC("eth0", cloud.NIC{Shape: cloud.Private})}, path: "eth0/dhcp"},
		{about: "a server without public IPv4", lab: []testvm.Option{testvm.NIC("eth0", cloud.NIC{Shape: cloud.IPv6Only})}, cloud: far, path: "eth0/linklocal"},
		{
			about: "one NIC of two is dead", cloud: far, path: "eth1/linklocal", nics: []string{"eth0", "eth1"},
			lab: []testvm.Option{testvm.NIC("eth0", cloud.NIC{Shape: cloud.Dead}), testvm.NIC("eth1", cloud.NIC{})},
		},
		{about: "metadata that vanishes for the first 2 s", cloud: phase(2*time.Second, cloud.Unreachable()), atLeast: 2 * time.Second},
		{about: "metadata that is filtered for the first 2 s", cloud: phase(2*time.Second, cloud.Dropped()), atLeast: 2 * time.Second},
		{about: "metadata that is refused for the first 2 s", cloud: phase(2*time.Second, cloud.Refused()), atLeast: 2 * time.Second},
		{about: "metadata that is silent for the first 2 s", cloud: phase(2*time.Second, cloud.Silent()), atLeast: 2 * time.Second},
		{about: "503 for the first 2 s", cloud: phase(2*time.Second, cloud.Status(503)), atLeast: 2 * time.Second},
		{about: "204 for the first second", cloud: phase(time.Second, cloud.Status(204)), atLeast: time.Second},
		{about: "an endless body for the first second", cloud: phase(time.Second, cloud.Endless()), atLeast: time.Second},
		{about: "another server's answers for the first second", cloud: phase(time.Second, cloud.Other(cloud.Server{Hostname: "other", InstanceID: "43"})), atLeast: time.Second},
		{about: "half a name, valid too, for the first second", cloud: phase(time.Second, cloud.OnName(cloud.Raw("HTTP/1.1 200 OK\r\n\r\nhostname: my-serv", cloud.Close))), atLeast: time.Second},
		{about: "a fifth of the frames lost each way", cloud: cloud.Config{Link: cloud.Link{RTT: 5 * time.Millisecond, Up: cloud.Impairment{Loss: 0.2}, Down: cloud.Impairment{Loss: 0.2}}}},

		{about: "metadata that never comes", cloud: phase(time.Hour, cloud.Dropped()), trouble: "eth0/linklocal: no answer in "},
		{about: "503 for ever", cloud: phase(time.Hour, cloud.Status(503)), trouble: "status 503 (Service Unavailable)"},
		{about: "another server for ever", serial: "44", trouble: `the answer is for instance "42", but this machine's serial is "44"`},
		{about: "one byte a second", cloud: phase(time.Hour, cloud.Slow(1)), trouble: "eth0/linklocal: no answer in "},
		{about: "a dead wire", lab: []testvm.Option{testvm.NIC("eth0", cloud.NIC{Shape: cloud.Dead})}, trouble: "eth0/linklocal: no answer in "},
	}
	for _, c := range cases {
		t.Run(c.about, func(t *testing.T) {
			c.cloud.Server = server
			lab := testvm.Start(t, c.cloud, c.lab...)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if c.nics == nil {
				c.nics = []string{"eth0"}
			}
			var events []identity.Event
			began := time.Now()
			id, err := identity.ResolveWith(ctx, hetzner.Source(),
				func(r *identity.Resolver) { r.Link.NICs, r.Link.Methods = c.nics, c.methods },
				identity.WithObserver(func(e identity.Event) {
					events = append(events, e)
					silence := strings.HasPrefix(c.trouble, "eth0/linklocal: no answer") && e.Kind == identity.EventTrying && e.Path.String() == "eth0/linklocal"
					if c.trouble != "" && (silence || e.Kind == identity.EventFailed && strings.Contains(e.Err.Error(), c.trouble)) {
						time.AfterFunc(time.Second, cancel) // it has been met, and goes on
					}
				}),
				identity.WithFacts(dmi.Facts{Vendor: hetzner.Vendor, Serial: cmp.Or(c.serial, "42")}))
			took := time.Since(began)
			if c.trouble != "" {
				var timeout *identity.TimeoutError
				if !errors.As(err, &timeout) || !strings.Contains(err.Error(), c.trouble) {
					t.Fatalf("got %+v, %v; want one that says %q", id, err, c.trouble)
				}
				t.Logf("%v: %v", took, err)
				for _, e := range events {
					t.Log(e)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range id.Timeline {
				t.Log(e)
			}
			if id.Hostname != server.Hostname || id.InstanceID != "42" || took < c.atLeast {
				t.Errorf("got %+v after %v", id, took)
			}
			if got := id.Path.String(); c.path != "" && got != c.path {
				t.Errorf("the path is %s, want %s", got, c.path)
			}
			if n := len(lab.Cloud.Requests()); c.requests != 0 && n > c.requests {
				t.Errorf("%d requests: %v", n, lab.Cloud.Requests())
			}
		})
	}
}

func TestLabCancelled(t *testing.T) {
	for _, after := range []time.Duration{0, time.Millisecond, 3 * time.Millisecond, 10 * time.Millisecond, 30 * time.Millisecond, 100 * time.Millisecond, 400 * time.Millisecond} {
		t.Run("cancelled after "+after.String()+", nothing is left", func(t *testing.T) {
			testvm.Start(t, cloud.Config{Metadata: []cloud.Phase{{Until: time.Hour, Answer: cloud.Silent()}}})
			ctx, cancel := context.WithCancelCause(t.Context())
			why := errors.New("SIGTERM")
			time.AfterFunc(after, func() { cancel(why) })
			_, err := identity.ResolveWith(ctx, hetzner.Source(), func(r *identity.Resolver) { r.Link.NICs = []string{"eth0"} }, identity.WithFacts(dmi.Facts{Serial: "42"}))
			if !errors.Is(err, why) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func phase(until time.Duration, b cloud.Behaviour) cloud.Config {
	return cloud.Config{Metadata: []cloud.Phase{{Until: until, Answer: b}}}
}
