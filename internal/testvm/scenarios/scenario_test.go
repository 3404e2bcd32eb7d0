//go:build linux

package scenarios

import (
	"cmp"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/dmi"
	"github.com/nametag-boot/nametag/identity/hetzner"
	"github.com/nametag-boot/nametag/internal/testvm"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/netns"
	"github.com/nametag-boot/nametag/internal/testvm/patience"
)

func TestMain(m *testing.M) {
	if order := os.Getenv(envDenied); order != "" {
		act(order, os.Args[1:])
	}
	netns.Main(m)
}

const (
	name = "my-server.example.com"
	id   = "42"
	// overtime is what the outcome may come later than the bound.
	overtime = time.Second
	// ample is the bound of scenarios in which a name comes. It has no influence on when.
	ample = time.Minute
)

// A scenario is a server, what goes wrong, and what must come out.
type scenario struct {
	about   string
	cloud   cloud.Config
	lab     []testvm.Option
	nics    []string                                      // eth0 if empty
	methods []earlynet.Method                             // all if empty
	bound   time.Duration                                 // ample if 0
	before  func(t *testing.T)                            // once the lab stands; its traces are its own to remove
	during  func(t *testing.T, l *testvm.Lab)             // beside Resolve
	flood   func(l *testvm.Lab, resolved <-chan struct{}) // beside it too, until it is over

	via     string         // the path that must win; any if empty
	took    *time.Duration // how long Resolve took is noted there; may be nil
	trouble []string       // each in the time-out's message; a name must come if empty
}

// play runs a table.
func play(t *testing.T, all []scenario) {
	for _, s := range all {
		t.Run(s.about, func(t *testing.T) { s.play(t) })
	}
}

func (s scenario) play(t *testing.T) {
	s.cloud.Server.Hostname, s.cloud.Server.InstanceID = name, id
	lab := testvm.Start(t, s.cloud, s.lab...)
	if s.before != nil {
		s.before(t)
	}
	if s.nics == nil {
		s.nics = []string{"eth0"}
	}
	s.bound = cmp.Or(s.bound, ample)
	ctx, cancel := context.WithTimeout(t.Context(), s.bound)
	defer cancel()
	var beside sync.WaitGroup
	defer beside.Wait()
	if s.during != nil {
		beside.Go(func() { s.during(t, lab) })
	}
	resolved := make(chan struct{})
	if s.flood != nil {
		beside.Go(func() { s.flood(lab, resolved) })
	}
	var events []identity.Event
	lab.OnFailure(func() {
		for _, e := range events { // why a link was left up among them
			t.Log(e)
		}
	})

	began := time.Now()
	r := identity.Resolver{
		Source: hetzner.Source(), Link: earlynet.Config{NICs: s.nics, Methods: s.methods},
		Facts:   &dmi.Facts{Vendor: hetzner.Vendor, Serial: id},
		OnEvent: func(e identity.Event) { events = append(events, e) },
	}
	got, err := r.Resolve(ctx)
	close(resolved)
	if s.took != nil {
		*s.took = time.Since(began)
	}
	if took := time.Since(began); took > s.bound+patience.Bound(overtime) {
		t.Errorf("it took %v of %v", took, s.bound)
	}
	if len(s.trouble) == 0 {
		switch {
		case err != nil:
			t.Errorf("no name: %v", err)
		case got.Hostname != name || got.InstanceID != id:
			t.Errorf("a wrong name: %+v", got)
		case s.via != "" && got.Path.String() != s.via:
			t.Errorf("by %v, want %s", got.Path, s.via)
		}
		return
	}
	var timeout *identity.TimeoutError
	if got != nil || !errors.As(err, &timeout) {
		t.Fatalf("got %+v, %v; want a time-out", got, err)
	}
	for _, text := range s.trouble {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q is not in the message: %v", text, err)
		}
	}
}

// sh runs lines of shell in the node.
func sh(t *testing.T, lines ...string) {
	t.Helper()
	if out, err := exec.Command("sh", "-ec", strings.Join(lines, "\n")).CombinedOutput(); err != nil {
		t.Errorf("%s\n%v\n%s", strings.Join(lines, "\n"), err, out)
	}
}

// first is a fault of the metadata service at first; then all is right.
func first(d time.Duration, b cloud.Behaviour) cloud.Config {
	return cloud.Config{Metadata: []cloud.Phase{{Until: d, Answer: b}}}
}

func always(b cloud.Behaviour) cloud.Config { return first(time.Hour, b) }

// far makes round trips long enough for the path with fewer of them to win.
var far = cloud.Link{RTT: 20 * time.Millisecond}
