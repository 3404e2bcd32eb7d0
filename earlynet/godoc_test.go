//go:build linux

package earlynet

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/testvm/netns"
)

// What the documentation says of concurrency, contexts, zero values and bad arguments: a test for each sentence, named
// after it. Sentences that a scenario elsewhere holds give their names to that.

// Concurrency.

// "Its methods are safe for concurrent use."
func TestTheMethodsOfANetworkAreSafeForConcurrentUse(t *testing.T) {
	serving(t)
	n := openBy(t, LinkLocal, DHCP)
	p := next(t, n)
	reaches(t, p)
	var all sync.WaitGroup
	for _, use := range []func(){
		func() { n.Status() },
		func() { n.Changes() },
		func() { n.Paths() },
		func() { _ = n.Keep(p) },
	} {
		for range 2 {
			all.Go(func() {
				for range 20 {
					use()
				}
			})
		}
	}
	all.Go(func() { // and the kernel has something to tell meanwhile
		_ = exec.Command("/bin/sh", "-c", "ip link add other0 type veth peer name other1; ip link del other0").Run()
	})
	for range 2 {
		all.Go(func() {
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// Path: "It is safe for concurrent use."
func TestAPathIsSafeForConcurrentUse(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p := NewPath(ctx, "eth0", DHCP, func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		far.Close()
		return near, nil
	})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 100 {
				if conn, err := p.DialContext(ctx, "tcp", "169.254.169.254:80"); err == nil {
					all.Go(func() { conn.Close() })
				} else if !errors.Is(err, ErrPathDone) {
					t.Error(err)
				}
			}
		})
		all.Go(func() {
			for range 100 {
				_, _ = p.String(), p.Err()
			}
		})
		all.Go(func() { <-p.Done() })
	}
	cancel()
	all.Wait()
}

// "It is called from one goroutine at a time"
func TestTheObserverIsCalledFromOneGoroutineAtATime(t *testing.T) {
	serving(t)
	var within atomic.Int32
	told := 0 // the race detector looks at it too
	n := open(t.Context(), t, Config{Methods: []Method{LinkLocal, DHCP, IPv6}, Observer: func(Event) {
		if within.Add(1) != 1 {
			t.Error("called while it is called")
		}
		told++
		time.Sleep(time.Millisecond) // so that another has time to come in between
		within.Add(-1)
	}})
	next(t, n)
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if told == 0 {
		t.Error("nothing was told")
	}
}

// "Paths delivers each new path once."
func TestPathsDeliversEachNewPathOnce(t *testing.T) {
	serving(t)
	n := openBy(t, LinkLocal)
	got := make(chan *Path, 8)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for p := range n.Paths() {
				got <- p
			}
		})
	}
	ready := n.told.first(t, PathReady)
	p := <-got
	if p.Source != ready.Address {
		t.Errorf("%v is from %v, not from %v", p, p.Source, ready.Address)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	all.Wait()
	if len(got) > len(n.told.of(PathReady))-1 {
		t.Errorf("%d more paths were delivered, and %d made", len(got), len(n.told.of(PathReady)))
	}
}

// Changes: "several changes may be told as one. It is never closed."
func TestSeveralChangesMayBeToldAsOneAndChangesIsNeverClosed(t *testing.T) {
	netns.Require(t)
	n, err := Host(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	for range 8 {
		n.changed() // nobody listens, and nobody waits
	}
	<-n.Changes()
	run(t, "ip link add other0 type veth peer name other1; ip link del other0")
	select {
	case <-n.Changes():
	case <-time.After(longEnough()):
		t.Error("no change was told")
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	for range 2 { // one may be left to be told
		select {
		case _, open := <-n.Changes():
			if !open {
				t.Error("it is closed")
			}
		default:
		}
	}
}

// Close: "The error joins one *UndoError for each thing that is left. Further calls return the same."
func TestFurtherCallsOfCloseReturnTheSame(t *testing.T) {
	serving(t)
	var refuse atomic.Bool
	n := openFaulty(context.Background(), t, Config{Methods: []Method{LinkLocal}}, func(m netlink.Message) unix.Errno {
		if refuse.Load() && (m.Header.Type == unix.RTM_DELADDR || m.Header.Type == unix.RTM_DELROUTE) {
			return unix.EBUSY
		}
		return 0
	})
	p := next(t, n)
	refuse.Store(true)
	err := n.Close()
	var left []string
	joined, _ := err.(interface{ Unwrap() []error }) //nolint:errorlint // what is joined
	if joined == nil {
		t.Fatalf("Close: %v", err)
	}
	for _, one := range joined.Unwrap() {
		var undo *UndoError
		if !errors.As(one, &undo) || undo.Interface != "eth0" || !errors.Is(undo, unix.EBUSY) {
			t.Errorf("%v", one)
			continue
		}
		left = append(left, undo.What)
	}
	if !slices.Equal(left, []string{"route to 169.254.169.254/32", "address " + p.Source.String() + "/32"}) {
		t.Errorf("what is left: %q", left)
	}
	refuse.Store(false)
	if again := n.Close(); again != err { //nolint:errorlint // the same one
		t.Errorf("the second time: %v", again)
	}
}

// Contexts.

// Open "returns at once: paths arrive later."
func TestOpenReturnsAtOnceAndPathsArriveLater(t *testing.T) {
	c := serving(t)
	c.run("ip link set cloud0 down")
	n := openBy(t, LinkLocal) // or the test hangs: there is no carrier yet
	select {
	case p := <-n.Paths():
		t.Errorf("path %v without a carrier", p)
	default:
	}
	c.run("ip link set cloud0 up; ip route add 169.254.0.0/16 dev cloud0")
	reaches(t, next(t, n))
}

// Open with a context that has ended is no special case of "When ctx ends".
func TestOpenWithAContextThatHasEndedLeavesNothing(t *testing.T) {
	plug(t)
	restored(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	n := open(ctx, t, Config{Methods: []Method{LinkLocal}})
	for p := range n.Paths() {
		t.Errorf("path %v", p)
	}
}

// Close "does not depend on the context that Open was given."
func TestCloseHasItsOwnDeadline(t *testing.T) {
	serving(t)
	ctx, cancel := context.WithCancel(t.Context())
	restored(t)
	n := open(ctx, t, Config{Methods: []Method{LinkLocal}})
	reaches(t, next(t, n))
	cancel()
	for range n.Paths() { // until nobody is at work any more
	}
	n.rtnl.bound(-time.Second) // any deadline of before has passed
	if _, err := n.rtnl.links(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a request after its deadline: %v", err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

// "Paths … is closed when the context ends or the network is closed."
func TestPathsIsClosedWhenTheNetworkIsClosed(t *testing.T) {
	plug(t)
	n := traceless(t, LinkLocal)
	next(t, n)
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if p, open := <-n.Paths(); open {
		t.Errorf("path %v", p)
	}
}

// Err "returns nil while the path lasts, and then an error that wraps ErrPathDone and says why it ended."
func TestErrIsNilWhileThePathLastsAndThenSaysWhyItEnded(t *testing.T) {
	why := errors.New("the reason")
	ctx, cancel := context.WithCancelCause(t.Context())
	p := NewPath(ctx, "eth0", DHCP, nil)
	if err := p.Err(); err != nil {
		t.Errorf("while it lasts: %v", err)
	}
	cancel(why)
	<-p.Done()
	if err := p.Err(); !errors.Is(err, ErrPathDone) || !errors.Is(err, why) {
		t.Errorf("it ended by %v", err)
	}
}

// DialContext honours its own context too, as every dialer does.
func TestDialContextEndsWithItsContext(t *testing.T) {
	p := NewPath(t.Context(), "eth0", DHCP, func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.DialContext(ctx, "tcp", "169.254.169.254:80"); !errors.Is(err, context.Canceled) || errors.Is(err, ErrPathDone) {
		t.Errorf("the error is %v", err)
	}
	if err := p.Err(); err != nil {
		t.Errorf("and the path has ended: %v", err)
	}
}

// Zero values.

// "The zero value brings up every physical Ethernet NIC by LinkLocal and DHCP, with routes to nowhere."
func TestTheZeroConfigBringsUpEveryPhysicalNICByLinkLocalAndDHCPWithRoutesToNowhere(t *testing.T) {
	netns.Require(t)
	n, err := newNetwork(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	n.cancel()
	n.rtnl.close()
	if !slices.Equal(n.methods, []Method{LinkLocal, DHCP}) {
		t.Errorf("by %v", n.methods)
	}
	for about, l := range map[string]link{
		"physical":     {name: "enp1s0", arphrd: unix.ARPHRD_ETHER, mac: testMAC},
		"the loopback": {name: "lo", arphrd: unix.ARPHRD_LOOPBACK},
		"a bridge":     {name: "br0", arphrd: unix.ARPHRD_ETHER, mac: testMAC, kind: "bridge"},
	} {
		if takes, why := n.selection.takes(l); takes != (about == "physical") {
			t.Errorf("%s: %v %s", about, takes, why)
		}
	}

	c := serving(t)
	c.dnsmasq()
	restored(t)
	// No NIC here is physical: it is named, and the rest is as it is by itself.
	zero, err := Open(t.Context(), Config{NICs: []string{"eth0"}})
	if err != nil {
		t.Fatal(err)
	}
	defer zero.Close()
	by := []Method{next(t, zero).Method, next(t, zero).Method}
	if !slices.Contains(by, LinkLocal) || !slices.Contains(by, DHCP) {
		t.Errorf("paths by %v", by)
	}
	if rt := run(t, "ip route show table all proto 110"); rt != "" {
		t.Errorf("routes to somewhere: %s", rt)
	}
	if err := zero.Close(); err != nil {
		t.Error(err)
	}
}

// Proc: "Without it settings of links are left as they are."
func TestWithoutProcSettingsOfLinksAreLeftAsTheyAre(t *testing.T) {
	serving(t)
	restored(t)
	n := open(t.Context(), t, Config{Methods: []Method{LinkLocal}, Proc: t.TempDir()})
	reaches(t, next(t, n))
	if got := setting(t, "accept_ra"); got != "1" {
		t.Errorf("accept_ra is %s", got)
	}
}

// Seed "makes random choices repeatable in tests. 0: a new one each time."
func TestSeedMakesRandomChoicesRepeatableAnd0IsANewOneEachTime(t *testing.T) {
	draw := func(seed uint64) uint64 { return (&Network{cfg: Config{Seed: seed}}).random(1).Uint64() }
	for seed, repeatable := range map[uint64]bool{7: true, 0: false} {
		if first, second := draw(seed), draw(seed); (first == second) != repeatable {
			t.Errorf("seed %d: %d, then %d", seed, first, second)
		}
	}
}

// Method: "The zero value is no method; in an Event it stands for the link itself."
func TestTheZeroMethodIsNoMethodAndStandsForTheLinkItself(t *testing.T) {
	var zero Method
	if _, err := ParseMethod(zero.String()); err == nil {
		t.Errorf("%v is a method", zero)
	}
	if s := (Event{Interface: "eth0", Kind: Carrier}).String(); s != "eth0: carrier" {
		t.Errorf("the event reads %q", s)
	}
}

// Error, Event: what is zero is not measured, not counted, or the network as a whole, and no word is lost on it.
func TestWhatIsZeroInAnErrorIsNotSaid(t *testing.T) {
	if s := (&Error{Op: "list links"}).Error(); s != "earlynet: list links" {
		t.Errorf("%q", s)
	}
	if s := (Event{Kind: NetlinkOverrun}).String(); s != "notifications lost" {
		t.Errorf("%q", s)
	}
}

// Bad arguments.

// Config: "… is an error of Open."
func TestWhatIsNoNICNoMethodAndNoAddressIsAnErrorOfOpen(t *testing.T) {
	netns.Require(t)
	for about, cfg := range map[string]Config{
		"an empty string":             {NICs: []string{"eth0", ""}},
		"a malformed glob":            {NICs: []string{"eth[0"}},
		"no method of that number":    {Methods: []Method{LinkLocal, 99}},
		"the zero method":             {Methods: []Method{0}},
		"the host's network":          {Methods: []Method{HostNetwork}},
		"a destination that is zero":  {Destinations: []netip.Addr{metadata, {}}},
		"IPv6 beyond the link":        {Methods: []Method{LinkLocal, IPv6}, Destinations: []netip.Addr{metadata, netip.MustParseAddr("fd00:ec2::254")}},
		"both, and nothing is opened": {NICs: []string{""}, Methods: []Method{99}},
	} {
		n, err := Open(t.Context(), cfg)
		var typed *Error
		if n != nil || !errors.As(err, &typed) || typed.Op != "configuration" || typed.Timeout() {
			t.Errorf("%s: %v, %v", about, n, err)
		}
	}
}

// Host: "Of cfg only Observer is used."
func TestOfTheConfigOfHostOnlyObserverIsUsed(t *testing.T) {
	var told recorder
	n, err := Host(t.Context(), Config{
		NICs: []string{""}, Methods: []Method{99}, Destinations: []netip.Addr{{}}, Proc: "/nowhere", Seed: 1, Observer: told.observe,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	p := next(t, n)
	if p.Interface != "" || p.Index != 0 || p.Source.IsValid() || p.Gateway.IsValid() || p.Method != HostNetwork {
		t.Errorf("the path is %+v", p)
	}
	if len(told.of(PathReady)) != 1 {
		t.Errorf("told was %v", told.events)
	}
}

// Repair: "Of cfg count Alone, Proc and Observer".
func TestOfTheConfigOfRepairCountAloneProcAndObserver(t *testing.T) {
	plug(t)
	restored(t)
	if err := Repair(t.Context(), Config{NICs: []string{""}, Methods: []Method{99}, Destinations: []netip.Addr{{}}, Seed: 1}); err != nil {
		t.Error(err)
	}
}

// ParseMethod: bad words are errors that say which there are.
func TestParseMethodRefusesEveryOtherWord(t *testing.T) {
	for _, word := range []string{"", "DHCP", "dhcp ", "host", "link", "carrier pigeon"} {
		if m, err := ParseMethod(word); err == nil || m != 0 || !strings.Contains(err.Error(), "linklocal, dhcp or ipv6") {
			t.Errorf("%q: %v, %v", word, m, err)
		}
	}
}

// DialContext: "A path of Host dials as any program does, names too; for others a name is an ErrName."
func TestAPathOfHostDialsNamesAndForOthersANameIsAnErrName(t *testing.T) {
	plug(t)
	if _, err := next(t, traceless(t, LinkLocal)).DialContext(t.Context(), "tcp", "localhost:80"); !errors.Is(err, ErrName) {
		t.Errorf("over a link: %v", err)
	}
	run(t, "ip link set lo up")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	n, err := Host(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	conn, err := next(t, n).DialContext(t.Context(), "tcp", "localhost:"+port)
	if err != nil {
		t.Fatalf("over the host's network: %v", err)
	}
	conn.Close()
}

// Keep: "Of a path of Host or NewPath there is nothing to keep", and another network's is not this one's to keep.
func TestOfAPathOfHostOrNewPathThereIsNothingToKeep(t *testing.T) {
	plug(t)
	n := traceless(t, LinkLocal)
	p := next(t, n)
	h, err := Host(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for _, nothing := range []*Path{next(t, h), NewPath(t.Context(), "eth0", DHCP, nil)} {
		if err := errors.Join(n.Keep(nothing), h.Keep(nothing)); err != nil {
			t.Errorf("%v: %v", nothing, err)
		}
	}
	if err := h.Keep(p); err == nil {
		t.Error("a path of another network is kept")
	}
}

// Reset: "A TCP connection is reset"; another is closed.
func TestResetResetsATCPConnectionAndClosesAnyOther(t *testing.T) {
	netns.Require(t)
	run(t, "ip link set lo up")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	Reset(near)
	if _, err := far.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the other end has %v", err)
	}
	pipe, end := net.Pipe()
	Reset(pipe)
	if _, err := end.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the other end of a pipe has %v", err)
	}
}

func TestAPathOfNewPathWithoutADialerDialsAsAnyProgramDoes(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := NewPath(t.Context(), "eth0", DHCP, nil).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}
