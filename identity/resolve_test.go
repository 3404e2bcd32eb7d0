package identity_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/dmi"
	"github.com/nametag-boot/nametag/identity/hetzner"
	. "github.com/nametag-boot/nametag/identity/identitytest"
	"github.com/nametag-boot/nametag/internal/safely"
)

// A lab is a network that a test plays with in virtual time, and an observer.
type lab struct {
	*testing.T
	*identity.FakeNet
	began  time.Time
	events []identity.Event
}

// scenario runs play in a bubble of virtual time. The bubble itself checks that
// no goroutine is left.
func scenario(t *testing.T, about string, play func(l *lab)) {
	t.Helper()
	t.Run(about, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := &lab{T: t, FakeNet: identity.NewFakeNet(), began: time.Now()}
			play(l)
			l.ClosedOnce(t)
		})
	})
}

// resolve is Resolve with a bound, over the lab's network.
func (l *lab) resolve(bound time.Duration, src identity.Source, opts ...identity.Tweak) (*identity.Identity, error) {
	ctx, cancel := context.WithTimeout(l.Context(), bound)
	defer cancel()
	opts = append([]identity.Tweak{
		identity.WithFacts(dmi.Facts{Serial: "42"}),
		identity.WithObserver(func(e identity.Event) { l.events = append(l.events, e) }),
		identity.Over(l.FakeNet),
	}, opts...)
	return identity.ResolveWith(ctx, src, opts...)
}

func (l *lab) count(kind identity.EventKind) (n int) {
	for _, e := range l.events {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// repeat repeats fn beside the test until stop is called.
func (l *lab) repeat(fn func()) (stop func()) {
	ctx, cancel := context.WithCancel(l.Context())
	var work sync.WaitGroup
	work.Go(func() {
		for ctx.Err() == nil {
			fn()
		}
	})
	return func() { cancel(); work.Wait() }
}

// named checks for a name, and that it came between these times.
func (l *lab) named(id *identity.Identity, err error, name string, from, to time.Duration) {
	l.Helper()
	if err != nil {
		l.Fatalf("no name: %v", err)
	}
	if id.Hostname != name {
		l.Errorf("the name is %q, want %q", id.Hostname, name)
	}
	if took := time.Since(l.began); took < from || took > to {
		l.Errorf("it took %v, want %v to %v", took, from, to)
	}
	if l.count(identity.EventNamed) != 1 {
		l.Errorf("%d events say that the name is proven", l.count(identity.EventNamed))
	}
	for _, e := range id.Timeline {
		if e.Kind == identity.EventNamed && (e.At != id.Proven || id.Proven > to) {
			l.Errorf("proven after %v, by the event after %v", id.Proven, e.At)
		}
	}
}

// timedOut checks for a time-out at the bound, to the millisecond, and returns it.
func (l *lab) timedOut(id *identity.Identity, err error, bound time.Duration) *identity.TimeoutError {
	l.Helper()
	var timeout *identity.TimeoutError
	if id != nil || !errors.As(err, &timeout) {
		l.Fatalf("got %+v, %v; want a time-out", id, err)
	}
	if took := time.Since(l.began); took < bound || took > bound+10*time.Millisecond {
		l.Errorf("it took %v, want %v", took, bound)
	}
	if l.count(identity.EventNamed) != 0 {
		l.Error("a name was announced all the same")
	}
	return timeout
}

var (
	errRefused = errors.New("connection refused")
	eth0DHCP   = identity.PathInfo{Interface: "eth0", Method: "dhcp"}
	hetznerDMI = identity.WithFacts(dmi.Facts{Vendor: "Hetzner", Serial: "42"})
)

func TestResolve(t *testing.T) {
	scenario(t, "a service that answers at once", func(l *lab) {
		l.Up("eth0", earlynet.LinkLocal)
		id, err := l.resolve(time.Minute, New(Answer("db1.example.com", "42")))
		l.named(id, err, "db1.example.com", 0, 0)
		if id.ShortName() != "db1" || id.Domain != "example.com" || id.InstanceID != "42" || id.Source != "test" {
			l.Errorf("got %+v", id)
		}
		if want := (identity.PathInfo{Interface: "eth0", Method: "linklocal"}); id.Path != want {
			l.Errorf("the path is %+v, want %+v", id.Path, want)
		}
	})
	scenario(t, "a path that comes up late", func(l *lab) {
		time.AfterFunc(20*time.Second, func() { l.Up("eth1", earlynet.DHCP) })
		id, err := l.resolve(time.Minute, New(Answer("my-server", "42")))
		l.named(id, err, "my-server", 20*time.Second, 20*time.Second)
	})
	scenario(t, "a service that refuses for 20 s is asked again within the back-off's cap", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		src := New(until(20*time.Second, Fail(errRefused), Answer("my-server", "42")))
		id, err := l.resolve(time.Minute, src)
		l.named(id, err, "my-server", 20*time.Second, 30*time.Second+time.Millisecond)
		if n := len(src.Calls()); n < 8 || n > 60 {
			l.Errorf("%d attempts in 20 s", n)
		}
		if l.count(identity.EventFailed) != 1 {
			l.Errorf("the same failure was told %d times", l.count(identity.EventFailed))
		}
	})
	scenario(t, "a service that swallows what comes in the first 3 s", func(l *lab) {
		l.Up("eth0", earlynet.LinkLocal)
		id, err := l.resolve(time.Minute, New(until(3*time.Second, Silence(), Answer("my-server", "42"))))
		l.named(id, err, "my-server", 3*time.Second, 8*time.Second)
	})
	scenario(t, "a slow first path and a fast second one", func(l *lab) {
		l.Up("eth0", earlynet.LinkLocal)
		time.AfterFunc(50*time.Millisecond, func() { l.Up("eth0", earlynet.DHCP) })
		src := New().
			On("eth0/linklocal", After(9*time.Second, Answer("slow", "42"))).
			On("eth0/dhcp", After(time.Millisecond, Answer("fast", "42")))
		id, err := l.resolve(time.Minute, src)
		l.named(id, err, "fast", 51*time.Millisecond, 51*time.Millisecond)
	})
	scenario(t, "an answer that takes 9 s is waited for, though others were begun meanwhile", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		id, err := l.resolve(time.Minute, New(After(9*time.Second, Answer("my-server", "42"))))
		l.named(id, err, "my-server", 9*time.Second, 9*time.Second)
	})
	scenario(t, "a lost first attempt costs a hedge's delay, not its time-out", func(l *lab) {
		l.Up("eth0", earlynet.LinkLocal)
		id, err := l.resolve(time.Minute, New(Silence(), Answer("my-server", "42")))
		l.named(id, err, "my-server", 100*time.Millisecond, 250*time.Millisecond)
	})
	scenario(t, "at most 3 attempts are in flight on a path, and silence does not make them many", func(l *lab) {
		l.Up("eth0", earlynet.LinkLocal)
		var mu sync.Mutex
		flying, most := 0, 0
		fly := func(by int) {
			mu.Lock()
			defer mu.Unlock()
			flying += by
			most = max(most, flying)
		}
		src := New(func(ctx context.Context, _ *earlynet.Path) (identity.Answer, error) {
			fly(1)
			defer fly(-1)
			<-ctx.Done()
			time.Sleep(time.Millisecond) // slow to notice
			return identity.Answer{}, ctx.Err()
		})
		id, err := l.resolve(time.Minute, src)
		timeout := l.timedOut(id, err, time.Minute)
		if n := len(src.Calls()); most != 3 || n < 10 || n > 40 {
			l.Errorf("%d attempts, %d at one time", n, most)
		}
		if !strings.Contains(timeout.Error(), "eth0/linklocal: no answer in ") {
			l.Errorf("the message is %q", timeout)
		}
		if l.count(identity.EventFailed) != 1 {
			l.Errorf("silence was told %d times", l.count(identity.EventFailed))
		}
	})
	scenario(t, "a flapping path", func(l *lab) {
		src := New(After(time.Second, Answer("my-server", "42")))
		for i := range 5 {
			at := time.Duration(i) * 500 * time.Millisecond
			time.AfterFunc(at, func() { l.Up("eth0", earlynet.DHCP) })
			if i < 4 {
				time.AfterFunc(at+400*time.Millisecond, func() { l.Down("eth0/dhcp") })
			}
		}
		id, err := l.resolve(time.Minute, src)
		l.named(id, err, "my-server", 3*time.Second, 3*time.Second)
	})
	scenario(t, "a path that is gone for good says so", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		time.AfterFunc(time.Second, func() { l.Down("eth0/dhcp") })
		id, err := l.resolve(5*time.Second, New())
		timeout := l.timedOut(id, err, 5*time.Second)
		if !strings.Contains(timeout.Error(), "eth0/dhcp: the link or its address went away") {
			l.Errorf("the message is %q", timeout)
		}
	})
	scenario(t, "another server's instance id first, the right one later", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		src := New(Answer("other", "43"), Answer("other", ""), Answer("my-server", "42"))
		src.Presence = identity.PresenceYes
		id, err := l.resolve(time.Minute, src, hetznerDMI)
		l.named(id, err, "my-server", 0, time.Second)
		if l.count(identity.EventFailed) != 2 {
			l.Errorf("%d failures were told, want 2", l.count(identity.EventFailed))
		}
	})
	scenario(t, "another server's instance id to the end", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		src := New(Answer("other", "43"))
		src.Presence = identity.PresenceYes
		id, err := l.resolve(time.Minute, src, hetznerDMI)
		timeout := l.timedOut(id, err, time.Minute)
		var mismatch *identity.MismatchError
		if !errors.As(timeout, &mismatch) || *mismatch != (identity.MismatchError{InstanceID: "43", Serial: "42"}) {
			l.Errorf("got %v, want the mismatch", timeout)
		}
	})
	scenario(t, "an invalid name first, a valid one later", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		id, err := l.resolve(time.Minute, New(Answer("", "42"), Answer("<html>", "42"), Answer("localhost", "42"), Answer("my-server", "42")))
		l.named(id, err, "my-server", 0, time.Second)
	})
	scenario(t, "an invalid name to the end", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		id, err := l.resolve(time.Minute, New(Answer("my_server", "42")))
		var name *identity.NameError
		if timeout := l.timedOut(id, err, time.Minute); !errors.As(timeout, &name) || name.Name != "my_server" {
			l.Errorf("got %v, want the name's error", timeout)
		}
	})
	scenario(t, "a machine of another platform is told at once, before any packet", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		src := New(Answer("my-server", "42"))
		src.Presence = identity.PresenceNo
		_, err := l.resolve(time.Minute, src, identity.WithFacts(dmi.Facts{Vendor: "QEMU"}))
		var notPresent *identity.NotPresentError
		if !errors.As(err, &notPresent) || notPresent.Source != "test" || notPresent.Facts.Vendor != "QEMU" {
			l.Errorf("got %v", err)
		}
		if len(src.Calls()) != 0 || l.Opened() != 0 || time.Since(l.began) != 0 {
			l.Error("the network was touched")
		}
	})
	scenario(t, "no path ever: the network's own reasons are told", func(l *lab) {
		l.Reports = []error{errors.New("earlynet: eth0 (dhcp): no offer after 6 tries in 3.1s"), nil}
		id, err := l.resolve(2*time.Minute, New())
		timeout := l.timedOut(id, err, 2*time.Minute)
		if want := "identity: no valid name from test in 2m0s: earlynet: eth0 (dhcp): no offer after 6 tries in 3.1s"; timeout.Error() != want {
			l.Errorf("the message is\n%s\nwant\n%s", timeout, want)
		}
		if !errors.Is(timeout, l.Reports[0]) || !errors.Is(timeout, context.DeadlineExceeded) || !timeout.Timeout() {
			l.Error("it does not unwrap")
		}
	})
	scenario(t, "the time-out reads well", func(l *lab) {
		l.Up("eth0", earlynet.LinkLocal)
		src := New().On("eth0/linklocal", Silence()).On("eth0/dhcp", Fail(errRefused))
		time.AfterFunc(time.Millisecond, func() { l.Up("eth0", earlynet.DHCP) })
		time.AfterFunc(2*time.Second-100*time.Millisecond, func() { l.Up("eth1", earlynet.DHCP) })
		id, err := l.resolve(2*time.Second, src)
		text := l.timedOut(id, err, 2*time.Second).Error()
		for _, part := range []string{"identity: no valid name from test in 2s: eth0/linklocal: no answer in ", "; eth0/dhcp: connection refused (", " tries); eth1/dhcp: no answer in 100ms"} {
			if !strings.Contains(text, part) {
				l.Errorf("the message is %q, want %q in it", text, part)
			}
		}
	})
}

func TestResolveReturnsWithinMillisecondsOfTheEndOfItsContext(t *testing.T) {
	scenario(t, "ended before it began: no network is opened", func(l *lab) {
		ctx, cancel := context.WithCancelCause(l.Context())
		why := errors.New("SIGTERM")
		cancel(why)
		_, err := identity.ResolveWith(ctx, New(Answer("my-server", "42")), identity.WithFacts(dmi.Facts{Serial: "42"}), identity.Over(l.FakeNet))
		var timeout *identity.TimeoutError
		if !errors.As(err, &timeout) || !errors.Is(err, why) || timeout.Timeout() || l.Opened() != 0 {
			l.Errorf("got %v, opened %d", err, l.Opened())
		}
	})
	for about, steps := range map[string][]Step{
		"while no path is there":          nil,
		"while an attempt is silent":      {Silence()},
		"while it backs off":              {Fail(errRefused)},
		"while an attempt trickles in":    {After(time.Hour, Answer("my-server", "42"))},
		"while a source panics":           {Panic("oops")},
		"in an attempt that is stubborn":  {Stubborn(30*time.Second, Answer("my-server", "42"))},
		"while the service is told to go": {Fail(later(time.Hour))},
	} {
		scenario(t, "cancelled "+about, func(l *lab) {
			if steps != nil {
				l.Up("eth0", earlynet.DHCP)
			}
			ctx, cancel := context.WithCancelCause(l.Context())
			why := errors.New("SIGTERM")
			time.AfterFunc(3*time.Second, func() { cancel(why) })
			var events []identity.Event
			_, err := identity.ResolveWith(ctx, New(steps...), identity.WithFacts(dmi.Facts{Serial: "42"}), identity.Over(l.FakeNet),
				identity.WithObserver(func(e identity.Event) { events = append(events, e) }))
			timeout := l.timedOut(nil, err, 3*time.Second)
			if !errors.Is(err, why) || timeout.Timeout() || errors.Is(err, context.DeadlineExceeded) {
				l.Errorf("got %v", err)
			}
			if !strings.Contains(err.Error(), "stopped after 3s (SIGTERM)") {
				l.Errorf("the message is %q", err)
			}
			left := 0
			for _, e := range events {
				if e.Kind == identity.EventLeftBehind {
					left++
				}
			}
			if stubborn := strings.Contains(about, "stubborn"); stubborn != (left == 1) {
				l.Errorf("%d attempts were left behind", left)
			}
			time.Sleep(time.Minute) // the stubborn one ends in the end; the bubble waits for no one
		})
	}
	scenario(t, "ended while the rest is fetched: the name stands", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		id, err := l.resolve(50*time.Millisecond, New(AnswerMore("my-server", "42", func(ctx context.Context, id *identity.Identity) error {
			id.Region = "eu-central"
			<-ctx.Done()
			return ctx.Err()
		})))
		l.named(id, err, "my-server", 50*time.Millisecond, 60*time.Millisecond)
		if id.Region != "eu-central" {
			l.Errorf("what was there is lost: %+v", id)
		}
	})
}

// TestProof is the table of docs/boot.md: what the cloud's firmware says, what the caller allows, and what an answer for
// instance 42 comes to.
func TestProof(t *testing.T) {
	var (
		yes, unknown = identity.PresenceYes, identity.PresenceUnknown
		hidden       = dmi.Facts{SerialHidden: true}
	)
	const (
		refused  = identity.Proof("refused")
		mismatch = identity.Proof("mismatch")
		atOnce   = identity.Proof("refused before the first packet")
	)
	for _, c := range []struct {
		presence identity.Presence
		facts    dmi.Facts
		expect   string
		unproven bool
		want     identity.Proof
	}{
		{yes, dmi.Facts{Serial: "42"}, "", false, identity.ProofDMI},
		{yes, dmi.Facts{Serial: "42"}, "", true, identity.ProofDMI},
		{yes, dmi.Facts{Serial: "42"}, "42", false, identity.ProofDMI},
		{yes, dmi.Facts{Serial: "42"}, "43", false, mismatch},
		{yes, dmi.Facts{Serial: "43"}, "", false, mismatch},
		{yes, dmi.Facts{Serial: "43"}, "", true, mismatch},
		{yes, dmi.Facts{Serial: "43"}, "42", true, mismatch},
		{yes, dmi.Facts{}, "", false, atOnce},
		{yes, dmi.Facts{}, "", true, identity.ProofNone},
		{yes, dmi.Facts{}, "42", false, identity.ProofExpected},
		{yes, dmi.Facts{}, "43", true, mismatch},
		{yes, hidden, "", false, atOnce},
		{yes, hidden, "", true, identity.ProofNone},
		{yes, hidden, "42", false, identity.ProofExpected},
		{unknown, dmi.Facts{Serial: "42"}, "", false, identity.ProofDMI},
		{unknown, dmi.Facts{Serial: "of a Dell"}, "", false, refused},
		{unknown, dmi.Facts{Serial: "of a Dell"}, "", true, identity.ProofNone},
		{unknown, dmi.Facts{Serial: "of a Dell"}, "42", false, identity.ProofExpected},
		{unknown, dmi.Facts{}, "", false, atOnce},
		{unknown, dmi.Facts{}, "", true, identity.ProofNone},
		{unknown, dmi.Facts{}, "42", false, identity.ProofExpected},
	} {
		scenario(t, fmt.Sprintf("present: %v, %+v, expected %q, unproven allowed: %v: %s", c.presence, c.facts, c.expect, c.unproven, c.want), func(l *lab) {
			l.Up("eth0", earlynet.DHCP)
			src := New(Answer("my-server", "42"))
			src.Presence = c.presence
			id, err := l.resolve(time.Minute, src, identity.WithFacts(c.facts), func(r *identity.Resolver) { r.ExpectID, r.Unproven = c.expect, c.unproven })
			_, other := errors.AsType[*identity.MismatchError](err)
			unproven, refusal := errors.AsType[*identity.UnprovenError](err)
			switch c.want {
			case mismatch:
				if l.timedOut(id, err, time.Minute); !other {
					l.Errorf("got %v", err)
				}
			case refused:
				if l.timedOut(id, err, time.Minute); !refusal || unproven.InstanceID != "42" {
					l.Errorf("got %v", err)
				}
			case atOnce:
				if !refusal || len(src.Calls()) != 0 || l.Opened() != 0 || time.Since(l.began) != 0 {
					l.Errorf("got %v, %v after %d calls", id, err, len(src.Calls()))
				}
			default:
				l.named(id, err, "my-server", 0, 0)
				if id.IDProvenBy != c.want {
					l.Errorf("proven by %q", id.IDProvenBy)
				}
				if warned := l.count(identity.EventUnproven) == 1; warned != (c.want == identity.ProofNone) {
					l.Errorf("warned: %v", warned)
				}
			}
		})
	}
}

func TestWhatCannotBeIsRefusedAtOnce(t *testing.T) {
	for about, r := range map[string]identity.Resolver{
		"no source":                 {},
		"paths and the host's too":  {Source: New(), Host: true, Paths: Paths("eth0/dhcp")},
		"no such method":            {Source: New(), Link: earlynet.Config{Methods: []earlynet.Method{99}}},
		"an endpoint that is none":  {Source: hetzner.Source(hetzner.WithEndpoint("://"))},
		"an endpoint with a name":   {Source: hetzner.Source(hetzner.WithEndpoint("http://metadata.example/"))},
		"an endpoint that is https": {Source: hetzner.Source(hetzner.WithEndpoint("https://169.254.169.254/"))},
	} {
		scenario(t, about, func(l *lab) {
			identity.Over(l.FakeNet)(&r)
			_, err := r.Resolve(l.Context())
			if _, is := errors.AsType[*identity.ConfigError](err); !is || l.Opened() != 0 {
				l.Errorf("got %v", err)
			}
		})
	}
}

func TestANotPresentErrorOfFetchEndsTheMatterForAllPaths(t *testing.T) {
	scenario(t, "a source that learns that it is not present ends it on every path", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		l.Up("eth1", earlynet.DHCP)
		src := New(Silence()).On("eth1/dhcp", After(time.Second, Fail(&identity.NotPresentError{Source: "test"})))
		id, err := l.resolve(time.Minute, src)
		if _, elsewhere := errors.AsType[*identity.NotPresentError](err); !elsewhere || id != nil || time.Since(l.began) > 2*time.Second {
			l.Errorf("got %v, %v after %v", id, err, time.Since(l.began))
		}
	})
}

func TestTimeoutReportsWhetherABoundPassed(t *testing.T) {
	scenario(t, "a bound with a cause of the caller's own is a time-out, and the cause is kept", func(l *lab) {
		why := errors.New("the boot's time is up")
		ctx, cancel := context.WithTimeoutCause(l.Context(), time.Second, why)
		defer cancel()
		_, err := identity.ResolveWith(ctx, New(), identity.WithFacts(dmi.Facts{Serial: "42"}), identity.Over(l.FakeNet))
		timeout, is := errors.AsType[*identity.TimeoutError](err)
		if !is || !timeout.Timeout() || !errors.Is(err, why) || !errors.Is(err, context.DeadlineExceeded) {
			l.Errorf("got %v", err)
		}
	})
	scenario(t, "a cancellation is none, whatever its cause", func(l *lab) {
		ctx, cancel := context.WithCancelCause(l.Context())
		time.AfterFunc(time.Second, func() { cancel(context.DeadlineExceeded) })
		_, err := identity.ResolveWith(ctx, New(), identity.WithFacts(dmi.Facts{Serial: "42"}), identity.Over(l.FakeNet))
		timeout, is := errors.AsType[*identity.TimeoutError](err)
		if !is || timeout.Timeout() || !errors.Is(err, context.Canceled) {
			l.Errorf("got %v", err)
		}
	})
}

func TestOnNameIsCalledOnceBeforeTheLinkIsUndoneAndTheRestIsIn(t *testing.T) {
	scenario(t, "the name comes before the rest and before the end of the link", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		var named []identity.Identity
		src := New(AnswerMore("my-server", "42", func(_ context.Context, id *identity.Identity) error {
			if len(named) != 1 {
				l.Error("the rest came first")
			}
			id.Region = "eu-central"
			return nil
		}))
		l.OnClose = func() {
			if len(named) != 1 {
				l.Error("the link ended first")
			}
		}
		id, err := l.resolve(time.Minute, src, func(r *identity.Resolver) { r.OnName = func(id identity.Identity) { named = append(named, id) } })
		l.named(id, err, "my-server", 0, 0)
		if len(named) != 1 || named[0].Hostname != "my-server" || named[0].IDProvenBy != identity.ProofDMI || named[0].Region != "" {
			l.Errorf("heard %+v", named)
		}
	})
}

func TestLifetimes(t *testing.T) {
	scenario(t, "the network outlives the context until it is closed, and no longer", func(l *lab) {
		l.OnClose = func() {
			if err := l.Opening.Err(); err != nil {
				l.Errorf("its context has ended before: %v", err)
			}
		}
		id, err := l.resolve(time.Second, New())
		l.timedOut(id, err, time.Second)
		if l.Opening.Err() == nil {
			l.Error("its context has not ended")
		}
	})
	scenario(t, "an attempt's context stays open for More, and ends with it", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		var attempt context.Context
		src := New(func(ctx context.Context, _ *earlynet.Path) (identity.Answer, error) {
			attempt = ctx
			return identity.Answer{Hostname: "my-server", InstanceID: "42", More: func(context.Context, *identity.Identity) error { return attempt.Err() }}, nil
		})
		id, err := identity.ResolveWith(l.Context(), src, identity.WithFacts(dmi.Facts{Serial: "42"}), identity.Over(l.FakeNet))
		if err != nil {
			l.Fatal(err)
		}
		if last := id.Timeline[len(id.Timeline)-1]; last.Kind != identity.EventCompleted || last.Err != nil {
			l.Errorf("the last event is %v", last)
		}
		if attempt.Err() == nil {
			l.Error("it was never released")
		}
	})
	scenario(t, "a refused answer's context ends at once", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		var first context.Context
		src := New(func(ctx context.Context, _ *earlynet.Path) (identity.Answer, error) {
			first = ctx
			return identity.Answer{Hostname: "my_server"}, nil
		}, func(context.Context, *earlynet.Path) (identity.Answer, error) {
			if first.Err() == nil {
				l.Error("it is open still")
			}
			return identity.Answer{Hostname: "my-server", InstanceID: "42"}, nil
		})
		id, err := l.resolve(time.Minute, src)
		l.named(id, err, "my-server", 0, time.Second)
	})
	scenario(t, "OnEvent and Link.Observer are not called after Resolve has returned", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		heard := 0
		id, err := l.resolve(time.Minute, New(Answer("my-server", "42")), func(r *identity.Resolver) { r.Link.Observer = func(earlynet.Event) { heard++ } })
		l.named(id, err, "my-server", 0, 0)
		before := len(l.events)
		l.Config.Observer(earlynet.Event{Kind: earlynet.Undone})
		if len(l.events) != before || heard != 0 {
			l.Errorf("OnEvent heard %v, Link.Observer %d events", l.events[before:], heard)
		}
	})
}

// isPanic reports whether an error is a panic that was caught.
func isPanic(err error) bool {
	_, is := errors.AsType[*safely.PanicError](err)
	return is
}

// observed is the event that says of a callback's panic.
func observed(id *identity.Identity) (e identity.Event) {
	for _, e = range id.Timeline {
		if e.Kind == identity.EventObserver {
			return e
		}
	}
	return identity.Event{}
}

func TestPanics(t *testing.T) {
	boom := errors.New("boom")
	scenario(t, "in one attempt: the next one counts", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		id, err := l.resolve(time.Minute, New(Panic(boom), Panic("oops"), Answer("my-server", "42")))
		l.named(id, err, "my-server", 0, time.Second)
	})
	scenario(t, "in every attempt: the time-out tells", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		id, err := l.resolve(time.Minute, New(Panic(boom)))
		if timeout := l.timedOut(id, err, time.Minute); !errors.Is(timeout, boom) || !isPanic(timeout) {
			l.Errorf("got %v", timeout)
		}
	})
	scenario(t, "in More: the name stands", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		id, err := l.resolve(time.Minute, New(AnswerMore("my-server", "42", func(context.Context, *identity.Identity) error { panic(boom) })))
		l.named(id, err, "my-server", 0, 0)
		if last := id.Timeline[len(id.Timeline)-1]; last.Kind != identity.EventCompleted || !errors.Is(last.Err, boom) {
			l.Errorf("the last event is %v", last)
		}
	})
	scenario(t, "in Name, Present and InstanceID: nothing is known, so nothing is proven", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		_, err := l.resolve(time.Second, panicker{New(Answer("my-server", "42"))})
		if _, unproven := errors.AsType[*identity.UnprovenError](err); !unproven {
			l.Errorf("got %v", err)
		}
	})
	scenario(t, "in OnName: the name comes", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		id, err := l.resolve(time.Minute, New(Answer("my-server", "42")), func(r *identity.Resolver) { r.OnName = func(identity.Identity) { panic(boom) } })
		l.named(id, err, "my-server", 0, 0)
		if l.count(identity.EventObserver) != 1 {
			l.Error("nothing says that OnName panicked")
		}
	})
	scenario(t, "in the observer: it is not called again, and the name comes", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		calls := 0
		id, err := l.resolve(time.Minute, New(Answer("my-server", "42")), identity.WithObserver(func(identity.Event) { calls++; panic(boom) }))
		if err != nil || id.Hostname != "my-server" || calls != 1 || !errors.Is(observed(id).Err, boom) {
			l.Errorf("got %v, %v after %d calls", id, err, calls)
		}
	})
}

func TestFloods(t *testing.T) {
	scenario(t, "a flood of changes is no flood of requests", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		stop := l.repeat(func() {
			l.Change()
			time.Sleep(time.Millisecond)
		})
		src := New(Fail(errRefused))
		id, err := l.resolve(time.Minute, src)
		stop()
		l.timedOut(id, err, time.Minute)
		if n := len(src.Calls()); n > 60*4 {
			l.Errorf("%d attempts in a minute of 60,000 changes", n)
		}
	})
	scenario(t, "a path that comes and goes a hundred times a second is no flood of requests", func(l *lab) {
		stop := l.repeat(func() {
			l.Up("eth0", earlynet.DHCP)
			time.Sleep(5 * time.Millisecond)
			l.Down("eth0/dhcp")
			time.Sleep(5 * time.Millisecond)
		})
		src := New()
		id, err := l.resolve(time.Minute, src)
		stop()
		l.timedOut(id, err, time.Minute)
		if n := len(src.Calls()); n > 60 {
			l.Errorf("%d attempts in a minute of 6,000 paths", n)
		}
	})
	scenario(t, "a path that has come and gone a thousand times is asked soon once it stays", func(l *lab) {
		var flapping sync.WaitGroup
		flapping.Go(func() {
			for range 1000 {
				l.Up("eth0", earlynet.DHCP)
				time.Sleep(5 * time.Millisecond)
				l.Down("eth0/dhcp")
				time.Sleep(5 * time.Millisecond)
			}
			l.Up("eth0", earlynet.DHCP)
		})
		calm := 10 * time.Second
		id, err := l.resolve(time.Hour, New(until(calm, Silence(), Answer("my-server", "42"))))
		flapping.Wait()
		l.named(id, err, "my-server", calm, calm+5*time.Second)
	})
	scenario(t, "a change ends a long back-off", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		changed := time.Minute
		time.AfterFunc(changed, l.Change)
		id, err := l.resolve(2*time.Minute, New(until(changed, Fail(errRefused), Answer("my-server", "42"))))
		l.named(id, err, "my-server", changed, changed)
	})
	scenario(t, "a new path ends the others' back-off", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		later := time.Minute
		time.AfterFunc(later, func() { l.Up("eth1", earlynet.DHCP) })
		src := New(until(later, Fail(errRefused), Answer("my-server", "42"))).On("eth1/dhcp", Silence())
		id, err := l.resolve(2*time.Minute, src)
		l.named(id, err, "my-server", later, later)
	})
	for range 10 { // as often as chance needs to show that it is no chance
		scenario(t, "attempts that fail together are one failure to the back-off", func(l *lab) {
			l.Up("eth0", earlynet.DHCP)
			end := time.Now().Add(time.Second) // three attempts are in flight by then
			src := New(func(context.Context, *earlynet.Path) (identity.Answer, error) {
				if now := time.Now(); now.Before(end) {
					time.Sleep(end.Sub(now))
					return identity.Answer{}, errRefused
				}
				return identity.Answer{Hostname: "my-server", InstanceID: "42"}, nil
			})
			id, err := l.resolve(time.Minute, src)
			l.named(id, err, "my-server", time.Second, 1100*time.Millisecond)
		})
	}
	scenario(t, "Retry-After is honoured, by changes too", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		time.AfterFunc(time.Second, l.Change)
		src := New(Fail(later(7*time.Second)), Answer("my-server", "42"))
		id, err := l.resolve(time.Minute, src)
		l.named(id, err, "my-server", 7*time.Second, 11*time.Second)
	})
	scenario(t, "Retry-After is honoured though its attempt was just to make room", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		src := New(Silence(), func(ctx context.Context, _ *earlynet.Path) (identity.Answer, error) {
			<-ctx.Done() // the answer comes in at this very moment
			return identity.Answer{}, later(7 * time.Second)
		}, Silence(), Answer("my-server", "42"))
		id, err := l.resolve(time.Minute, src)
		l.named(id, err, "my-server", 7*time.Second, 15*time.Second)
	})
	scenario(t, "Retry-After is honoured within bounds", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		id, err := l.resolve(time.Hour, New(Fail(later(24*time.Hour)), Answer("my-server", "42")))
		l.named(id, err, "my-server", 30*time.Second, 46*time.Second)
	})
	scenario(t, "a timeline is bounded, and keeps its ends", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		n := 0
		src := New(func(context.Context, *earlynet.Path) (identity.Answer, error) {
			if n++; n == 1000 {
				return identity.Answer{Hostname: "my-server", InstanceID: "42"}, nil
			}
			return identity.Answer{}, fmt.Errorf("failure %d", n)
		})
		id, err := l.resolve(24*time.Hour, src)
		l.named(id, err, "my-server", 0, 24*time.Hour)
		if got := len(id.Timeline); got > 200 {
			l.Errorf("%d events", got)
		}
		if first, last := id.Timeline[0], id.Timeline[len(id.Timeline)-1]; first.Kind != identity.EventPlatform || last.Kind != identity.EventNamed {
			l.Errorf("from %v to %v", first, last)
		}
		folded, before := 0, time.Duration(0)
		for _, e := range id.Timeline {
			if e.Kind == identity.EventFolded {
				folded++
			}
			if e.At < before {
				l.Errorf("%v is out of order", e)
			}
			before = e.At
		}
		if folded != 1 {
			l.Errorf("%d events stand for those left out", folded)
		}
	})
}

func TestOrder(t *testing.T) {
	scenario(t, "where only the name is wanted the rest is not fetched", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		src := New(AnswerMore("my-server", "42", func(_ context.Context, id *identity.Identity) error {
			l.Error("the rest is fetched")
			return nil
		}))
		id, err := l.resolve(time.Minute, src, func(r *identity.Resolver) { r.Minimal = true })
		if err != nil || id.Hostname != "my-server" || id.InstanceID != "42" || l.count(identity.EventCompleted) != 0 {
			l.Errorf("got %+v, %v", id, err)
		}
	})
	scenario(t, "the name is announced before the rest is fetched and the link undone", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		var order []string
		l.OnClose = func() { order = append(order, "closed") }
		src := New(AnswerMore("my-server", "42", func(_ context.Context, id *identity.Identity) error {
			order = append(order, "more")
			id.Hostname, id.Region = "hijacked", "eu-central"
			return nil
		}))
		id, err := l.resolve(time.Minute, src, func(r *identity.Resolver) { r.Keep = true }, identity.WithObserver(func(e identity.Event) {
			if e.Kind == identity.EventNamed {
				order = append(order, "named "+e.Hostname)
			}
		}))
		if err != nil || id.Hostname != "my-server" || id.Region != "eu-central" {
			l.Errorf("got %+v, %v", id, err)
		}
		if want := []string{"named my-server", "more", "closed"}; !reflect.DeepEqual(order, want) {
			l.Errorf("the order is %q, want %q", order, want)
		}
		if want := []string{"eth0/dhcp"}; !reflect.DeepEqual(l.Kept, want) {
			l.Errorf("kept %q, want %q", l.Kept, want)
		}
	})
	scenario(t, "the rest does not delay the name by more than a tenth of a second", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		id, err := l.resolve(time.Minute, New(AnswerMore("my-server", "42", func(ctx context.Context, _ *identity.Identity) error {
			time.Sleep(time.Hour) // heeds nothing
			return nil
		})))
		l.named(id, err, "my-server", 100*time.Millisecond, 120*time.Millisecond)
		time.Sleep(time.Hour)
	})
	scenario(t, "an undo that failed does not lose the name", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		l.Broken = errors.New("earlynet: eth0: address is left behind")
		id, err := l.resolve(time.Minute, New(Answer("my-server", "42")))
		l.named(id, err, "my-server", 0, 0)
		if last := id.Timeline[len(id.Timeline)-1]; last.Kind != identity.EventUndoFailed || !errors.Is(last.Err, l.Broken) {
			l.Errorf("the last event is %v", last)
		}
	})
	scenario(t, "an undo that failed is part of the time-out", func(l *lab) {
		l.Broken = errors.New("earlynet: eth0: address is left behind")
		id, err := l.resolve(time.Second, New())
		if timeout := l.timedOut(id, err, time.Second); !errors.Is(timeout, l.Broken) {
			l.Errorf("got %v", timeout)
		}
	})
	scenario(t, "routes are laid to what the source dials, and to nothing else", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		src := New(Answer("my-server", "42"))
		src.Dials = []netip.Addr{netip.MustParseAddr("169.254.169.254")}
		if _, err := l.resolve(time.Minute, src); err != nil {
			l.Fatal(err)
		}
		if !reflect.DeepEqual(l.Config.Destinations, src.Dials) {
			l.Errorf("destinations %v", l.Config.Destinations)
		}
	})
	scenario(t, "events of the network stand in the timeline", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		l.OnClose = func() {
			l.Config.Observer(earlynet.Event{Interface: "eth0", Method: earlynet.DHCP, Kind: earlynet.Undone, Detail: "address", Time: time.Now()})
		}
		id, err := l.resolve(time.Minute, New(Answer("my-server", "42")))
		l.named(id, err, "my-server", 0, 0)
		last := id.Timeline[len(id.Timeline)-1]
		if last.Kind != identity.EventLink || last.Path != eth0DHCP || last.Link == nil || last.Link.Kind != earlynet.Undone {
			l.Errorf("the last event is %+v", last)
		}
	})
}

func TestANetworkThatCannotBeOpenedAtAllIsAnErrorAndForWantOfMemoryIsTriedAgain(t *testing.T) {
	scenario(t, "a network that may not be opened is an error at once", func(l *lab) {
		_, err := l.resolve(time.Minute, New(), identity.OverBroken(earlynet.ErrPermission))
		var timeout *identity.TimeoutError
		if !errors.Is(err, earlynet.ErrPermission) || errors.As(err, &timeout) || time.Since(l.began) != 0 {
			l.Errorf("got %v", err)
		}
	})
	scenario(t, "a network that cannot be opened for want of memory is opened when there is some", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		id, err := l.resolve(time.Minute, New(Answer("my-server", "42")), identity.OverReluctant(l.FakeNet, syscall.ENOMEM, syscall.ENOMEM, syscall.EMFILE))
		l.named(id, err, "my-server", 3*time.Second, 3*time.Second)
		said := slices.DeleteFunc(id.Timeline, func(e identity.Event) bool { return e.Kind != identity.EventFailed })
		if len(said) != 2 || !errors.Is(said[0].Err, syscall.ENOMEM) || !errors.Is(said[1].Err, syscall.EMFILE) {
			l.Errorf("of the failures it says %v", said)
		}
	})
	scenario(t, "a network that never can be opened is a time-out that says why", func(l *lab) {
		_, err := l.resolve(time.Minute, New(), identity.OverBroken(&earlynet.Error{Op: "open a netlink socket", Err: syscall.EMFILE}))
		var timeout *identity.TimeoutError
		if !errors.As(err, &timeout) || !errors.Is(err, syscall.EMFILE) || time.Since(l.began) != time.Minute {
			l.Errorf("after %v: %v", time.Since(l.began), err)
		}
	})
	scenario(t, "the wait for a network that cannot be opened ends with its context", func(l *lab) {
		_, err := l.resolve(1500*time.Millisecond, New(), identity.OverBroken(syscall.ENOBUFS))
		if !errors.Is(err, syscall.ENOBUFS) || time.Since(l.began) != 1500*time.Millisecond {
			l.Errorf("after %v: %v", time.Since(l.began), err)
		}
	})
}

func TestJSON(t *testing.T) {
	id := identity.Identity{
		Hostname: "db1.example.com", Domain: "example.com", InstanceID: "42", Source: "hetzner",
		PublicIPv4: netip.MustParseAddr("203.0.113.7"),
		Path:       identity.PathInfo{Interface: "eth0", Method: "dhcp", Address: netip.MustParseAddr("203.0.113.7")},
		Timeline: []identity.Event{
			{At: 1200 * time.Microsecond, Kind: identity.EventPlatform, Presence: identity.PresenceYes},
			{At: 1300 * time.Microsecond, Kind: identity.EventLink, Path: identity.PathInfo{Interface: "eth0"}},
			{At: 1500 * time.Microsecond, Kind: identity.EventFailed, Path: eth0DHCP, Try: 1, Next: 100 * time.Millisecond, Err: errRefused},
			{At: 3 * time.Millisecond, Kind: identity.EventNamed, Path: eth0DHCP, Hostname: "db1.example.com", Detail: "db1.example.com"},
		},
	}
	b, err := json.Marshal(id)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"hostname":"db1.example.com","domain":"example.com","instance_id":"42","public_ipv4":"203.0.113.7","source":"hetzner",` +
		`"path":{"interface":"eth0","method":"dhcp","address":"203.0.113.7"},` +
		`"timeline":[{"at_ms":1.2,"kind":"platform","presence":"yes"},{"at_ms":1.3,"kind":"link","path":"eth0"},` +
		`{"at_ms":1.5,"kind":"failed","path":"eth0/dhcp","try":1,"next_ms":100,"error":"connection refused"},` +
		`{"at_ms":3,"kind":"named","path":"eth0/dhcp","hostname":"db1.example.com","detail":"db1.example.com"}]}`
	if string(b) != want {
		t.Errorf("got\n%s\nwant\n%s", b, want)
	}
	var back identity.Identity
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	for i, e := range back.Timeline {
		e.Err = id.Timeline[i].Err // of which the text is left
		if e != id.Timeline[i] {
			t.Errorf("%+v became %+v", id.Timeline[i], e)
		}
	}
	again, err := json.Marshal(back)
	if err != nil || string(again) != want {
		t.Errorf("read and written again it is\n%s, %v", again, err)
	}
}

func TestBackoff(t *testing.T) {
	t.Run("the bound doubles up to the cap, and begins anew", func(t *testing.T) {
		var bounds []time.Duration
		b := identity.Backoff{Base: time.Second, Cap: 5 * time.Second, Rand: func(n int64) int64 { bounds = append(bounds, time.Duration(n)); return n - 1 }}
		for range 5 {
			if d := b.Next(); d != bounds[len(bounds)-1] {
				t.Errorf("waits %v of %v", d, bounds[len(bounds)-1])
			}
		}
		b.Reset()
		b.Next()
		if want := []time.Duration{1e9, 2e9, 4e9, 5e9, 5e9, 1e9}; !reflect.DeepEqual(bounds, want) {
			t.Errorf("bounds %v, want %v", bounds, want)
		}
	})
	t.Run("the zero value waits, for at most 10 s, for ever", func(t *testing.T) {
		var b identity.Backoff
		for range 1000 {
			if d := b.Next(); d <= 0 || d > 10*time.Second {
				t.Fatalf("waits %v", d)
			}
		}
	})
}

// until plays first until d has passed since the first attempt's start of the
// scenario, then the other.
func until(d time.Duration, first, then Step) Step {
	end := time.Now().Add(d)
	return func(ctx context.Context, via *earlynet.Path) (identity.Answer, error) {
		if time.Now().Before(end) {
			return first(ctx, via)
		}
		return then(ctx, via)
	}
}

// later is an error of a service that wants to be left alone.
type later time.Duration

func (later) Error() string               { return "status 429" }
func (l later) RetryAfter() time.Duration { return time.Duration(l) }

// panicker panics wherever it can.
type panicker struct{ *Source }

func (panicker) Name() string                        { panic("name") }
func (panicker) Present(dmi.Facts) identity.Presence { panic("present") }
func (panicker) InstanceID(dmi.Facts) string         { panic("id") }
