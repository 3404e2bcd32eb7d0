package identity_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/dmi"
	. "github.com/nametag-boot/nametag/identity/identitytest"
	"github.com/nametag-boot/nametag/procfs"
)

// What the documentation promises of concurrency, contexts, zero values and bad arguments, as far as no other file has it.
// Each test has the name of its sentence.

func TestAResolverWithASourceAndNothingElseBringsUpEveryCardByEveryMethod(t *testing.T) {
	scenario(t, "the network's configuration", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		src := New(Answer("my-server", "42"))
		src.Dials = []netip.Addr{netip.MustParseAddr("169.254.169.254")}
		if _, err := l.resolve(time.Minute, src); err != nil {
			l.Fatal(err)
		}
		if c := l.Config; len(c.NICs) != 0 || len(c.Methods) != 0 || c.Alone || c.Proc != "" || len(l.Kept) != 0 {
			l.Errorf("%+v, kept %v", c, l.Kept)
		}
	})
}

func TestAResolverIsNotChangedByItsMethod(t *testing.T) {
	scenario(t, "one that has everything set", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		src := New(Answer("my-server", "42"))
		src.Dials = []netip.Addr{netip.MustParseAddr("169.254.169.254")}
		r := identity.Resolver{
			Source: src, Link: earlynet.Config{NICs: []string{"eth*"}}, Keep: true, Minimal: true,
			Facts: &dmi.Facts{Serial: "42"}, ExpectID: "42", Unproven: true,
		}
		identity.Over(l.FakeNet)(&r)
		before := fmt.Sprintf("%+v %+v", r, *r.Facts)
		if _, err := r.Resolve(l.Context()); err != nil {
			l.Fatal(err)
		}
		if after := fmt.Sprintf("%+v %+v", r, *r.Facts); after != before {
			l.Errorf("it was\n%s\nand is\n%s", before, after)
		}
	})
}

func TestDestinationsThatAreGivenAreNotThoseOfTheSource(t *testing.T) {
	scenario(t, "Link.Destinations", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		src := New(Answer("my-server", "42"))
		src.Dials = []netip.Addr{netip.MustParseAddr("169.254.169.254")}
		given := []netip.Addr{netip.MustParseAddr("192.0.2.1")}
		if _, err := l.resolve(time.Minute, src, func(r *identity.Resolver) { r.Link.Destinations = given }); err != nil {
			l.Fatal(err)
		}
		if !reflect.DeepEqual(l.Config.Destinations, given) {
			l.Errorf("routes are laid to %v", l.Config.Destinations)
		}
	})
}

func TestALinkObserverStillHearsItsEvents(t *testing.T) {
	scenario(t, "beside OnEvent", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		want := earlynet.Event{Interface: "eth0", Kind: earlynet.Undone, Time: time.Now()}
		l.OnClose = func() { l.Config.Observer(want) }
		var heard []earlynet.Event
		id, err := l.resolve(time.Minute, New(Answer("my-server", "42")), func(r *identity.Resolver) {
			r.Link.Observer = func(e earlynet.Event) { heard = append(heard, e) }
		})
		l.named(id, err, "my-server", 0, 0)
		if !reflect.DeepEqual(heard, []earlynet.Event{want}) || l.count(identity.EventLink) != 1 {
			l.Errorf("it heard %v, and OnEvent %v", heard, l.events)
		}
	})
}

func TestWithHostOfLinkOnlyTheObserverCounts(t *testing.T) {
	var heard atomic.Int32
	r := identity.Resolver{
		Source: New(Answer("my-server", "42")), Host: true, Facts: &dmi.Facts{Serial: "42"},
		Link: earlynet.Config{
			NICs: []string{"["}, Methods: []earlynet.Method{99}, Proc: "/nowhere",
			Observer: func(earlynet.Event) { heard.Add(1) },
		},
	}
	id, err := r.Resolve(t.Context())
	if err != nil || id.Path.String() != "host" || heard.Load() == 0 {
		t.Errorf("%+v, %v; the observer heard %d events", id, err, heard.Load())
	}
}

func TestFactsAreUsedInsteadOfThoseOfTheFirmware(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "product_serial"), []byte("43\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(dmi.DirVariable, dir)
	for _, c := range []struct {
		facts *dmi.Facts
		id    string
	}{{nil, "43"}, {&dmi.Facts{Serial: "42"}, "42"}} {
		src := New(Answer("my-server", c.id))
		src.Presence = identity.PresenceYes
		r := identity.Resolver{Source: src, Paths: Paths("eth0/dhcp"), Facts: c.facts}
		id, err := r.Resolve(t.Context())
		if err != nil || id.InstanceID != c.id || id.IDProvenBy != identity.ProofDMI {
			t.Errorf("with %+v: %+v, %v", c.facts, id, err)
		}
	}
}

// Whichever comes first keeps the others out, however long it takes.
func TestOfTheCallbacksOneIsCalledAtATime(t *testing.T) {
	net := identity.NewFakeNet()
	for i := range 8 {
		net.Up(fmt.Sprintf("eth%d", i), earlynet.DHCP)
	}
	var inside, heard atomic.Int32
	callback := func() {
		if inside.Add(1) > 1 {
			t.Error("two are called at a time")
		}
		for range 100 {
			runtime.Gosched()
		}
		inside.Add(-1)
		heard.Add(1)
	}
	var others sync.WaitGroup
	src := New(Fail(errRefused), Fail(errRefused), Fail(errRefused), Fail(errRefused), Fail(errRefused), Fail(errRefused), Fail(errRefused), Answer("my-server", "42"))
	r := identity.Resolver{
		Source: src, Facts: &dmi.Facts{Serial: "42"},
		OnEvent: func(identity.Event) { callback() },
		OnName: func(identity.Identity) {
			for range 4 {
				others.Go(func() { net.Config.Observer(earlynet.Event{Kind: earlynet.Carrier}) })
			}
			callback()
		},
	}
	identity.Over(net)(&r)
	r.Link.Observer = func(earlynet.Event) { callback() }
	if _, err := r.Resolve(t.Context()); err != nil {
		t.Fatal(err)
	}
	others.Wait()
	if heard.Load() < 10 {
		t.Errorf("only %d calls", heard.Load())
	}
}

func TestOnEventIsCalledWithEachEventInOrder(t *testing.T) {
	scenario(t, "what it hears is the timeline, and the attempts between", func(l *lab) {
		l.Up("eth0", earlynet.LinkLocal)
		l.Up("eth0", earlynet.DHCP)
		src := New(until(5*time.Second, Fail(errRefused), Answer("my-server", "42"))).On("eth0/linklocal", Silence())
		id, err := l.resolve(time.Minute, src)
		l.named(id, err, "my-server", 5*time.Second, 16*time.Second)
		var heard []identity.Event
		at := time.Duration(0)
		for _, e := range l.events {
			if e.At < at {
				l.Errorf("%v comes after one at %v", e, at)
			}
			if at = e.At; e.Kind != identity.EventAttempt {
				heard = append(heard, e)
			}
		}
		if !reflect.DeepEqual(heard, id.Timeline) {
			l.Errorf("it heard\n%v\nthe timeline is\n%v", heard, id.Timeline)
		}
	})
}

func TestACallbackThatPanicsIsNotCalledAgain(t *testing.T) {
	boom := errors.New("boom")
	for about, set := range map[string]func(*identity.Resolver, func()){
		"OnEvent":       func(r *identity.Resolver, fn func()) { r.OnEvent = func(identity.Event) { fn() } },
		"OnName":        func(r *identity.Resolver, fn func()) { r.OnName = func(identity.Identity) { fn() } },
		"Link.Observer": func(r *identity.Resolver, fn func()) { r.Link.Observer = func(earlynet.Event) { fn() } },
	} {
		for _, named := range []bool{true, false} {
			if !named && about == "OnName" {
				continue
			}
			scenario(t, fmt.Sprintf("%s, and there is a name: %v", about, named), func(l *lab) {
				l.Up("eth0", earlynet.DHCP)
				calls := 0
				src := New(func(ctx context.Context, via *earlynet.Path) (identity.Answer, error) {
					for range 2 {
						l.Config.Observer(earlynet.Event{Kind: earlynet.Carrier, Time: time.Now()})
					}
					if named {
						return identity.Answer{Hostname: "my-server", InstanceID: "42"}, nil
					}
					return identity.Answer{}, errRefused
				})
				var r identity.Resolver
				set(&r, func() { calls++; panic(boom) })
				id, err := l.resolve(time.Minute, src, func(to *identity.Resolver) {
					to.OnEvent, to.OnName, to.Link.Observer = r.OnEvent, r.OnName, r.Link.Observer
				})
				switch {
				case calls != 1:
					l.Errorf("it was called %d times", calls)
				case named && (err != nil || id.Hostname != "my-server" || !errors.Is(observed(id).Err, boom)):
					l.Errorf("got %+v, %v", id, err)
				case !named && (!errors.Is(err, boom) || !isPanic(err)):
					l.Errorf("the error does not say so: %v", err)
				}
			})
		}
	}
}

// A test that fails for good in a callback ends its goroutine there.
func TestACallbackThatEndsItsGoroutineHoldsNobodyUp(t *testing.T) {
	scenario(t, "OnName", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _ = l.resolve(time.Minute, New(Answer("my-server", "42")), func(r *identity.Resolver) {
				r.OnName = func(identity.Identity) { runtime.Goexit() }
			})
			l.Error("it goes on")
		}()
		<-ended
		l.Config.Observer(earlynet.Event{Kind: earlynet.Carrier, Time: time.Now()}) // of a goroutine of the network
		if err := l.Close(); err != nil {
			l.Error(err)
		}
	})
}

func TestCallbacksThatAreNilAreNotMissed(t *testing.T) {
	scenario(t, "no OnEvent, no OnName, no Link.Observer", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		l.OnClose = func() { l.Config.Observer(earlynet.Event{Kind: earlynet.Undone, Time: time.Now()}) }
		id, err := identity.ResolveWith(l.Context(), New(Answer("my-server", "42")), hetznerDMI, identity.Over(l.FakeNet))
		if err != nil || id.Hostname != "my-server" || observed(id).Err != nil {
			l.Errorf("%+v, %v", id, err)
		}
	})
}

// What a source cannot tell for its panic is not blamed on the firmware alone.
func TestAPanicOfTheSourceBeforeItIsAskedIsSaid(t *testing.T) {
	scenario(t, "where its answer would be the proof", func(l *lab) {
		_, err := l.resolve(time.Minute, panicker{New(Answer("my-server", "42"))})
		if _, unproven := errors.AsType[*identity.UnprovenError](err); !unproven || !isPanic(err) || strings.Contains(err.Error(), "\n") {
			l.Errorf("got %v", err)
		}
	})
	scenario(t, "where the proof is another one", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		id, err := l.resolve(time.Minute, panicker{New(Answer("my-server", "42"))}, func(r *identity.Resolver) { r.ExpectID = "42" })
		l.named(id, err, "my-server", 0, 0)
		panics := 0
		for _, e := range id.Timeline {
			if isPanic(e.Err) {
				panics++
			}
		}
		if panics != 3 {
			l.Errorf("of name, presence and id it says %v", id.Timeline)
		}
	})
	scenario(t, "where there is no name", func(l *lab) {
		id, err := l.resolve(time.Minute, panicker{New()}, func(r *identity.Resolver) { r.ExpectID = "42" })
		if timeout := l.timedOut(id, err, time.Minute); !isPanic(timeout) {
			l.Errorf("got %v", timeout)
		}
	})
	t.Run("in Addresses: there is nothing to dial, for good", func(t *testing.T) {
		var none *Source
		r := identity.Resolver{Source: none, Paths: Paths("eth0/dhcp")}
		_, err := r.Resolve(t.Context())
		if config, is := errors.AsType[*identity.ConfigError](err); !is || config.Field != "Source" || !isPanic(err) {
			t.Errorf("got %v", err)
		}
	})
}

func TestMoreIsCalledOnceAndCannotChangeWhatIsProven(t *testing.T) {
	scenario(t, "an error leaves what was filled in", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		l.Up("eth1", earlynet.DHCP)
		calls := 0
		why := errors.New("the rest is not to be had")
		id, err := l.resolve(time.Minute, New(AnswerMore("db1.example.com", "42", func(_ context.Context, id *identity.Identity) error {
			calls++
			*id = identity.Identity{Hostname: "other", InstanceID: "43", Domain: "example.org", IDProvenBy: identity.ProofNone, Source: "other", Region: "eu-central"}
			return why
		})))
		l.named(id, err, "db1.example.com", 0, 0)
		if calls != 1 || id.InstanceID != "42" || id.Domain != "example.com" || id.IDProvenBy != identity.ProofDMI || id.Source != "test" || id.Region != "eu-central" {
			l.Errorf("after %d calls %+v", calls, id)
		}
		if !slices.ContainsFunc(id.Timeline, func(e identity.Event) bool { return e.Kind == identity.EventCompleted && errors.Is(e.Err, why) }) {
			l.Errorf("the timeline is %v", id.Timeline)
		}
	})
}

func TestAnAttemptThatDoesNotReturnIsReleasedByTheClosingOfItsConnections(t *testing.T) {
	scenario(t, "it reads on, whatever its context says", func(l *lab) {
		ctx, gone := context.WithCancelCause(l.Context())
		defer gone(nil)
		path := earlynet.NewPath(ctx, "eth0", earlynet.DHCP, func(context.Context, string, string) (net.Conn, error) {
			near, _ := net.Pipe() // nobody writes at its other end
			return near, nil
		})
		l.OnClose = func() { gone(errors.New("closed")) } // as the network does with its paths
		var begun, returned atomic.Int32
		src := New(func(ctx context.Context, via *earlynet.Path) (identity.Answer, error) {
			begun.Add(1)
			defer returned.Add(1)
			conn, err := via.DialContext(ctx, "tcp", "169.254.169.254:80")
			if err == nil {
				_, err = conn.Read(make([]byte, 1))
			}
			return identity.Answer{}, err
		})
		l.Hand(path)
		id, err := l.resolve(time.Second, src)
		l.timedOut(id, err, time.Second)
		if n := begun.Load(); n == 0 || returned.Load() != n || l.count(identity.EventLeftBehind) != 0 {
			l.Errorf("of %d attempts %d returned; told was %v", n, returned.Load(), l.events)
		}
	})
}

func TestFetchIsNotCalledAgainBeforeTheServiceWantsIt(t *testing.T) {
	scenario(t, "RetryAfter of an error that is wrapped", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		src := New(Fail(fmt.Errorf("hostname: %w", later(7*time.Second))), Answer("my-server", "42"))
		id, err := l.resolve(time.Minute, src)
		l.named(id, err, "my-server", 7*time.Second, 11*time.Second)
	})
}

func TestTheZeroPresenceIsUnknown(t *testing.T) {
	if p := identity.Presence(0); p != identity.PresenceUnknown || p.String() != "unknown" {
		t.Errorf("it is %v", p)
	}
}

func TestAPolicysMethodThatThereIsNotIsAnError(t *testing.T) {
	if r, err := identity.FromPolicy(procfs.Policy{Via: []string{"dhcp", "pigeon"}}); err == nil {
		t.Errorf("got %+v", r.Link)
	}
	if r, err := identity.FromPolicy(procfs.Policy{}); err != nil || len(r.Link.Methods) != 0 || r.Keep || r.Unproven || r.Source != nil {
		t.Errorf("of the zero policy: %+v, %v", r.Link, err)
	}
}

func TestATimeoutUnwrapsToEverythingThatItSays(t *testing.T) {
	cause, undo, one, other := errors.New("SIGTERM"), errors.New("left behind"), errors.New("refused"), errors.New("no offer")
	err := error(&identity.TimeoutError{
		Source: "test", Ended: context.Canceled, Cause: cause, Undo: undo,
		Paths: []identity.PathError{{Path: eth0DHCP, Err: one}, {Err: other}},
	})
	for _, want := range []error{context.Canceled, cause, undo, one, other} {
		if !errors.Is(err, want) {
			t.Errorf("not %v: %v", want, err)
		}
	}
	var zero identity.TimeoutError
	if zero.Timeout() || zero.Error() == "" || len(zero.Unwrap()) != 0 {
		t.Errorf("the zero one: %v, %v", zero.Timeout(), zero.Error())
	}
}
