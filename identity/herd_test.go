package identity_test

import (
	"context"
	"errors"
	"flag"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/dmi"
	"github.com/nametag-boot/nametag/internal/testvm/herd"
)

// A stampede is many servers that boot at one moment and ask one service.
type stampede struct {
	servers int
	service herd.Config
	backoff identity.Backoff
	wait    time.Duration // then a server reboots and begins anew; 0: it waits for ever
	seed    uint64
}

// A reboot takes 27 to 33 s: firmware and disks are not alike.
const (
	rebootTime   = 27 * time.Second
	rebootSpread = 6 * time.Second
)

// run plays it in virtual time. Each server is the whole of Resolve over one path, with random numbers of its own, and
// boots a microsecond after the one before: so hardly two events have the same time, and a seed gives the same figures
// every time.
func (s stampede) run(t *testing.T) (f herd.Figures) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		service := herd.New(s.service)
		began := time.Now()
		named := make([]time.Duration, s.servers)
		var herd sync.WaitGroup
		for i := range s.servers {
			herd.Go(func() {
				time.Sleep(time.Duration(i) * time.Microsecond)
				s.boot(t, service, uint64(i))
				named[i] = time.Since(began)
			})
		}
		herd.Wait()
		f = service.Figures(named)
	})
	return f
}

// boot is one server until it has its name.
func (s stampede) boot(t *testing.T, service *herd.Service, i uint64) {
	// Who waits and who travels draw side by side, and which of them first is open: each has numbers of its own.
	src := &citizen{service: service, travels: &numbers{r: rand.New(rand.NewPCG(s.seed, i))}}
	waits := &numbers{r: rand.New(rand.NewPCG(s.seed+1, i))}
	backoff := s.backoff
	backoff.Rand = waits.below
	for {
		net := identity.NewFakeNet()
		net.Up("eth0", earlynet.LinkLocal)
		ctx, cancel := context.WithCancel(t.Context())
		if s.wait > 0 {
			ctx, cancel = context.WithTimeout(t.Context(), s.wait)
		}
		id, err := identity.ResolveWith(ctx, src, identity.WithFacts(dmi.Facts{Serial: "42"}), identity.Over(net), identity.WithBackoff(backoff))
		cancel()
		if err == nil {
			if id.Hostname != "my-server" {
				t.Errorf("the name is %q", id.Hostname)
			}
			return
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("no name: %v", err)
			return
		}
		time.Sleep(rebootTime + time.Duration(waits.below(int64(rebootSpread))))
	}
}

// A citizen asks as the source of Hetzner does: for one document.
type citizen struct {
	service *herd.Service
	travels *numbers
}

// numbers are random ones, for several goroutines.
type numbers struct {
	mu sync.Mutex
	r  *rand.Rand
}

func (n *numbers) below(limit int64) int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.r.Int64N(limit)
}

func (c *citizen) Name() string                        { return "herd" }
func (c *citizen) Present(dmi.Facts) identity.Presence { return identity.PresenceUnknown }
func (c *citizen) InstanceID(f dmi.Facts) string       { return f.Serial }
func (c *citizen) Addresses() ([]netip.Addr, error)    { return nil, nil }

func (c *citizen) Fetch(ctx context.Context, _ *earlynet.Path) (identity.Answer, error) {
	if err := c.ask(ctx, c.trip()); err != nil {
		return identity.Answer{}, err
	}
	return identity.Answer{Hostname: "my-server", InstanceID: "42"}, nil
}

// A trip is how long a request takes to the service and how long back.
type trip struct{ there, back time.Duration }

// trip is a round trip of 1 to 2 ms.
func (c *citizen) trip() trip {
	half := func() time.Duration { return time.Duration(500_000 + c.travels.below(500_000)) }
	return trip{half(), half()}
}

// ask is one request, there and back.
func (c *citizen) ask(ctx context.Context, on trip) error {
	if err := travel(ctx, on.there); err != nil {
		return err
	}
	err := c.service.Ask()
	if errors.Is(err, herd.ErrSilent) {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	if lost := travel(ctx, on.back); lost != nil {
		return lost
	}
	return err
}

func travel(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

const (
	theHerd   = 10_000
	theRate   = 1000 // requests a second
	theOutage = 10 * time.Minute
	thePolicy = 5 * time.Minute // the default: then a server reboots
)

var updateRetry = flag.String("update-retry", "", "simulate the whole herd and write the report there, as make herd does")

// TestHerd is the smaller brother of the report: the same code, and what the report's reader would rely on.
func TestHerd(t *testing.T) {
	const servers = 300
	limited := herd.Config{Rate: servers / 10, Burst: servers / 10}
	after := func(o herd.Outage, l herd.Limit) herd.Config {
		c := limited
		c.Outage, c.Until, c.Limit = o, 2*time.Minute, l
		return c
	}
	for about, s := range map[string]stampede{
		"servers that boot at one moment":                 {service: limited},
		"servers that boot at one moment and are refused": {service: herd.Config{Rate: limited.Rate, Burst: limited.Burst, Limit: herd.Refuse}},
		"the end of an outage with connections refused":   {service: after(herd.Refused, herd.TooMany)},
		"the end of an outage with packets lost":          {service: after(herd.Silent, herd.Refuse)},
		"the end of an outage with 503, and then a time":  {service: after(herd.Unavailable, herd.RetryAfter)},
		"the end of an outage in which servers rebooted":  {service: after(herd.Refused, herd.TooMany), wait: 45 * time.Second},
	} {
		t.Run(about+" get their names, at the rate of the service and without a flood", func(t *testing.T) {
			s.servers, s.seed = servers, 1
			f := s.run(t)
			t.Logf("%+v", f)
			// With no request wasted it would take 10 s: one each, at a tenth of the herd a second.
			if f.All > time.Minute {
				t.Errorf("the last name came after %v", f.All)
			}
			if f.Each > 20 {
				t.Errorf("%.0f requests a server", f.Each)
			}
			if s.service.Until > 0 && s.wait == 0 && f.After.Peak > 2*servers {
				t.Errorf("%d requests in a second after the outage", f.After.Peak)
			}
		})
	}
	t.Run("a seed gives the same figures again", func(t *testing.T) {
		s := stampede{servers: 100, seed: 7, service: herd.Config{Rate: 10, Burst: 10}}
		if a, b := s.run(t), s.run(t); a != b {
			t.Errorf("%+v\n%+v", a, b)
		}
	})
}

// TestHerdReport writes docs/retry.md.
func TestHerdReport(t *testing.T) {
	if *updateRetry == "" {
		return // it takes minutes: make herd
	}
	service := herd.Config{Rate: theRate, Burst: theRate}
	play := func(s stampede) herd.Figures {
		s.servers, s.seed = theHerd, 1
		began := time.Now()
		f := s.run(t)
		t.Logf("%+v: %+v, simulated in %v", s, f, time.Since(began).Round(time.Second))
		return f
	}
	var r herd.Report
	r.Servers, r.Rate, r.Outage = theHerd, theRate, theOutage
	for _, o := range []herd.Outage{herd.None, herd.Refused, herd.Silent} {
		for _, l := range []herd.Limit{herd.TooMany, herd.RetryAfter, herd.Refuse} {
			s := stampede{service: service}
			s.service.Outage, s.service.Limit = o, l
			if o != herd.None {
				s.service.Until = theOutage
			}
			r.Now = append(r.Now, herd.Row{Outage: o, Limit: l, Figures: play(s)})
		}
	}
	s := stampede{service: service, wait: thePolicy}
	s.service.Outage, s.service.Until = herd.Refused, theOutage
	r.Now = append(r.Now, herd.Row{Outage: herd.Refused, Note: "rebooting after 5 min", Figures: play(s)})
	for _, limit := range []time.Duration{5 * time.Second, 10 * time.Second, 20 * time.Second, 30 * time.Second} {
		boot := stampede{service: service, backoff: identity.Backoff{Cap: limit}}
		outage := boot
		outage.service.Outage, outage.service.Until = herd.Refused, theOutage
		r.Caps = append(r.Caps, herd.Choice{Cap: limit, Boot: play(boot), Outage: play(outage)})
	}
	if err := os.WriteFile(*updateRetry, r.Markdown(), 0o644); err != nil {
		t.Fatal(err)
	}
}
