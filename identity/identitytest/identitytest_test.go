package identitytest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/dmi"
	. "github.com/nametag-boot/nametag/identity/identitytest"
)

// What the documentation promises. Each test has the name of its sentence.

var dhcp = earlynet.NewPath(context.Background(), "eth0", earlynet.DHCP, nil)

func TestASourceIsSafeForConcurrentUse(t *testing.T) {
	src := New(Answer("first", "1"), Answer("my-server", "42"))
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			src.On(fmt.Sprintf("eth%d/dhcp", i), Answer("own", "42"))
			if a, err := src.Fetch(t.Context(), dhcp); err != nil || a.Hostname == "" {
				t.Errorf("%+v, %v", a, err)
			}
			_ = src.Calls()
			_ = src.Present(dmi.Facts{})
		})
	}
	all.Wait()
	if n := len(src.Calls()); n != 8 {
		t.Errorf("%d calls", n)
	}
}

func TestASourcePlaysItsStepsInOrderAndTheLastOneRepeats(t *testing.T) {
	src := New(Answer("a", "1"), Fail(io.EOF), Answer("b", "2"))
	var played []string
	for range 5 {
		a, err := src.Fetch(t.Context(), dhcp)
		played = append(played, fmt.Sprint(a.Hostname, err))
	}
	if got, want := strings.Join(played, ", "), "a<nil>, EOF, b<nil>, b<nil>, b<nil>"; got != want {
		t.Errorf("it plays %s", got)
	}
	for i, call := range src.Calls() {
		if call.Path != "eth0/dhcp" || i > 0 && call.Time.Before(src.Calls()[i-1].Time) {
			t.Errorf("call %d is %+v", i+1, call)
		}
	}
}

func TestTheZeroSourceAndOneWithoutAStepAreSilent(t *testing.T) {
	for about, src := range map[string]*Source{"zero": {}, "without a step": New()} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			began := time.Now()
			via := earlynet.NewPath(t.Context(), "eth0", earlynet.DHCP, nil)
			if _, err := src.Fetch(ctx, via); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Hour {
				t.Errorf("%s: %v after %v", about, err, time.Since(began))
			}
		})
		if addrs, err := src.Addresses(); src.Present(dmi.Facts{}) != identity.PresenceUnknown || len(addrs) != 0 || err != nil {
			t.Errorf("%s: it says more than nothing", about)
		}
		src.On("eth1/dhcp", Answer("own", "42"))
		if a, err := src.Fetch(t.Context(), earlynet.NewPath(t.Context(), "eth1", earlynet.DHCP, nil)); err != nil || a.Hostname != "own" {
			t.Errorf("%s, with a script for a path: %+v, %v", about, a, err)
		}
	}
}

func TestEveryStepButAStubbornOneEndsWithItsContext(t *testing.T) {
	for about, c := range map[string]struct {
		step  Step
		after time.Duration
	}{
		"silence":    {Silence(), time.Second},
		"late":       {After(time.Hour, Answer("a", "1")), time.Second},
		"in no time": {After(time.Millisecond, Fail(io.EOF)), time.Millisecond},
		"stubborn":   {Stubborn(time.Hour, Fail(io.EOF)), time.Hour},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			why := errors.New("enough")
			time.AfterFunc(time.Second, func() { cancel(why) })
			began := time.Now()
			_, err := c.step(ctx, nil)
			if took := time.Since(began); took != c.after || errors.Is(err, why) != (c.after == time.Second) {
				t.Errorf("%s: %v after %v", about, err, took)
			}
		})
	}
}

func TestANilStepIsAPanic(t *testing.T) {
	for about, fn := range map[string]func(){
		"of New": func() { New(Silence(), nil) },
		"of On":  func() { New().On("eth0/dhcp", Silence(), nil) },
	} {
		if said := panicOf(fn); !strings.Contains(said, "step 2 is nil") {
			t.Errorf("%s: it says %q", about, said)
		}
	}
}

func TestAPathsNameOfAnotherFormIsAPanic(t *testing.T) {
	for _, name := range []string{"", "eth0", "/dhcp", "eth0/", "eth0/pigeon", "eth0/dhcp/x", "host"} {
		if said := panicOf(func() { Paths("eth0/dhcp", name) }); !strings.Contains(said, "no path") {
			t.Errorf("%q: it says %q", name, said)
		}
	}
}

// panicOf is what fn panics with, or nothing.
func panicOf(fn func()) (said string) {
	defer func() {
		if v := recover(); v != nil {
			said = fmt.Sprint(v)
		}
	}()
	fn()
	return ""
}

func TestPathsAreThereAtOnceAndLastForEverAndDialAsTheHostDoes(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	n := 0
	for path := range Paths("eth0/linklocal", "eth0/dhcp", "eth1/ipv6") {
		n++
		conn, err := path.DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil || path.Err() != nil {
			t.Errorf("%v: %v, %v", path, err, path.Err())
			continue
		}
		conn.Close()
	}
	if n != 3 {
		t.Errorf("%d paths", n)
	}
}
