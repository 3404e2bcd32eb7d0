//go:build linux

package identity_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"path"
	"runtime"
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
	"github.com/nametag-boot/nametag/internal/node/links"
	"github.com/nametag-boot/nametag/internal/testvm/chaos"
	"github.com/nametag-boot/nametag/procfs"
)

const (
	rightName = "my-server.example.com"
	rightID   = "42"
	// patience is the longest that a service which is right again may have to wait: it had asked for 30 s, half as
	// much again is at random, then there is the back-off, an attempt that is still silent, and a slow link.
	patience = 75 * time.Second
)

// TestChaos plays a random schedule of faults on random paths under a random bound, in virtual time: all of Resolve
// and of the Hetzner source, down to the bytes on the connections. A seed gives the same scenario; which of two
// goroutines comes first at one moment stays open. The bubble of virtual time sees to it that no goroutine and no
// connection is left.
func TestChaos(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var named, timedOut, cancelled int
	chaos.Run(t, 200, func(t *testing.T, d *chaos.Dice) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(d)
			err := w.play(t)
			switch {
			case err == nil:
				named++
			case errors.Is(err, errStop):
				cancelled++
			default:
				timedOut++
			}
			if t.Failed() {
				t.Log(w)
			}
		})
	})
	runtime.GC()
	runtime.ReadMemStats(&after)
	t.Logf("%d named, %d timed out, %d cancelled", named, timedOut, cancelled)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 16<<20 {
		t.Errorf("%d MiB are still in use", grown>>20)
	}
}

var errStop = errors.New("told to stop")

// A world is a machine with paths to a service, and what goes wrong with them.
type world struct {
	seed    uint64
	line    string        // the kernel command line
	policy  procfs.Policy // what it means
	bound   time.Duration // the policy's; for ever is stopped by then
	stop    time.Duration // the caller's cancellation; 0: none
	facts   dmi.Facts
	lanes   []*way
	stages  []stage
	changes []time.Duration // of the network, for no visible reason
	net     *identity.FakeNet

	began time.Time
	conns sync.WaitGroup // each until the other end has closed it: one that nobody closes stops the bubble
	mu    sync.Mutex
	dials uint64
	reads uint64
}

// A way is a path that is there at times.
type way struct {
	name   string
	method earlynet.Method
	up     []time.Duration // it comes, goes, comes, …
	rtt    time.Duration
	lost   float64 // share of connection attempts that nobody hears of
}

// A stage is a stretch of time with one fault. After the last one, all is right.
type stage struct {
	until time.Duration
	fault fault
	only  string // the answer that it is about; empty: all. That about the host name is in the document too
}

func newWorld(d *chaos.Dice) *world {
	w := &world{seed: d.Uint64()}
	w.ask(d)
	known := d.Chance(0.7)
	if known {
		w.facts = dmi.Facts{Vendor: hetzner.Vendor, Serial: rightID}
	}
	for i := range 1 + d.IntN(4) {
		l := &way{name: fmt.Sprintf("eth%d", i/2), method: []earlynet.Method{earlynet.LinkLocal, earlynet.DHCP}[i%2], rtt: d.Between(50*time.Microsecond, 300*time.Millisecond)}
		if d.Chance(0.4) {
			l.lost = 0.5 * d.Float64()
		}
		at := d.Between(time.Microsecond, time.Second)
		for range 1 + 2*d.IntN(3)*d.IntN(2) { // odd, as a rule: it stays in the end
			l.up = append(l.up, at)
			at += d.Between(time.Millisecond, 20*time.Second)
		}
		w.lanes = append(w.lanes, l)
	}
	var at time.Duration
	for range d.IntN(5) {
		at += d.Between(time.Millisecond, time.Minute)
		s := stage{until: at, fault: chaos.Pick(d, faults...), only: chaos.Pick(d, "", "", "hostname", "instance-id")}
		if s.fault.foreign && !known {
			continue // nothing tells another server's answer from the right one then
		}
		if s.fault.foreign {
			s.only = "" // nor where the service mixes the answers of two servers
		}
		w.stages = append(w.stages, s)
	}
	if len(w.stages) > 0 && d.Chance(0.15) {
		w.stages[len(w.stages)-1].until = 24 * time.Hour
	}
	for range d.IntN(4) * d.IntN(3) {
		w.changes = append(w.changes, d.Between(time.Millisecond, w.bound))
	}
	return w
}

// ask draws the policy, as the text of the kernel argument.
func (w *world) ask(d *chaos.Dice) {
	w.bound = d.Between(20*time.Millisecond, 4*time.Minute).Truncate(time.Millisecond)
	wishes := chaos.Wishes{Wait: w.bound, NICs: []string{"eth0", "eth*", "86:00:00:12:34:56"}}
	if d.Chance(0.2) {
		wishes.Wait, w.bound = 0, procfs.DefaultWait
	}
	argument, means := d.Argument(wishes)
	w.line, w.policy = d.Line(argument, d.Later()), means
	if w.policy.Mode == procfs.Forever || d.Chance(0.2) {
		w.stop = d.Between(time.Millisecond, w.bound)
	}
}

// play runs Resolve once and checks what came out.
func (w *world) play(t *testing.T) error {
	w.began, w.net = time.Now(), identity.NewFakeNet()
	var stagehands sync.WaitGroup
	ctx, cancel := context.WithCancelCause(t.Context())
	defer stagehands.Wait()
	defer cancel(nil)
	at := func(when time.Duration, fn func()) {
		stagehands.Go(func() {
			timer := time.NewTimer(when)
			defer timer.Stop()
			select {
			case <-timer.C:
				fn()
			case <-ctx.Done():
			}
		})
	}
	for _, l := range w.lanes {
		for i, when := range l.up {
			if i%2 == 0 {
				at(when, func() { w.net.UpWith(l.name, l.method, w.dialer(l)) })
			} else {
				at(when, func() { w.net.Down(l.name + "/" + l.method.String()) })
			}
		}
	}
	for _, when := range w.changes {
		at(when, w.net.Change)
	}
	if w.stop > 0 {
		at(w.stop, func() { cancel(errStop) })
	}
	asked, err := procfs.ParseString(w.line)
	if err != nil || !chaos.Same(asked.Policy, w.policy) {
		t.Errorf("%q is understood as %v, %v; want %v", w.line, asked.Policy, err, w.policy)
	}
	resolver, err := links.Resolver(asked.Policy, links.Shared)
	if err != nil {
		t.Fatal(err)
	}
	bounded := ctx
	if asked.Policy.Mode == procfs.Bounded {
		var done context.CancelFunc
		bounded, done = context.WithTimeout(ctx, asked.Policy.Wait)
		defer done()
	}

	var events []identity.Event
	random := rand.New(rand.NewPCG(w.seed, 1))
	var mu sync.Mutex
	resolver.Source, resolver.Facts = hetzner.Source(), &w.facts
	resolver.Unproven = w.facts.Serial == ""
	resolver.OnEvent = func(e identity.Event) { events = append(events, e) }
	identity.Over(w.net)(&resolver)
	identity.WithBackoff(identity.Backoff{Rand: func(n int64) int64 {
		mu.Lock()
		defer mu.Unlock()
		return random.Int64N(n)
	}})(&resolver)
	id, err := resolver.Resolve(bounded)
	took := time.Since(w.began)
	w.net.ClosedOnce(t)
	w.conns.Wait()
	w.obeyed(t, id)

	w.mu.Lock()
	dials := w.dials
	w.mu.Unlock()
	// Two connections an attempt, and one more for what comes after the name; attempts come at most every 150 ms for long,
	// and each path has its first ones at once.
	if most := uint64(len(w.lanes)) * uint64(60+15*took.Seconds()); dials > most {
		t.Errorf("%d connections in %v, more than %d", dials, took, most)
	}
	end := w.bound
	if w.stop > 0 {
		end = w.stop
	}
	if took > end+20*time.Millisecond {
		t.Errorf("it took %v of %v", took, end)
	}
	if err == nil {
		if id.Hostname != rightName || id.InstanceID != rightID || id.Domain != "example.com" {
			t.Errorf("a wrong name: %+v", id)
		}
		return nil
	}
	if id != nil {
		t.Errorf("an error and %+v", id)
	}
	var timeout *identity.TimeoutError
	switch {
	case !errors.As(err, &timeout):
		t.Errorf("%T instead of a time-out: %v", err, err)
	case len(err.Error()) > 4096, strings.ContainsAny(err.Error(), "\n\x00\x1b"):
		t.Errorf("not a line for a console: %q", err)
	case w.calm()+patience < end:
		t.Errorf("all was right from %v on, and yet after %v: %v", w.calm(), took, err)
		for _, e := range events {
			t.Log(e)
		}
	}
	return err
}

// obeyed checks what the network was asked for: the policy's NICs and methods, and to keep the winner's link only where
// the policy says so and there is a name.
func (w *world) obeyed(t *testing.T, id *identity.Identity) {
	var methods []string
	for _, m := range w.net.Config.Methods {
		methods = append(methods, m.String())
	}
	if w.net.Opened() > 0 && !chaos.Same(w.policy, procfs.Policy{
		Mode: w.policy.Mode, Wait: w.policy.Wait, Then: w.policy.Then, Keep: w.policy.Keep, NICs: w.net.Config.NICs, Via: methods,
	}) {
		t.Errorf("the network is %q by %q, want %v", w.net.Config.NICs, methods, w.policy)
	}
	var keep []string
	if id != nil && w.policy.Keep == procfs.KeepNetwork {
		keep = []string{id.Path.String()}
	}
	if !slices.Equal(w.net.Kept, keep) {
		t.Errorf("%q were kept, want %q", w.net.Kept, keep)
	}
}

// calm is when everything is right for good, on one path at least.
func (w *world) calm() time.Duration {
	calm := 24 * time.Hour
	for _, l := range w.lanes {
		if len(l.up)%2 == 1 && l.lost == 0 {
			calm = min(calm, l.up[len(l.up)-1])
		}
	}
	if n := len(w.stages); n > 0 {
		calm = max(calm, w.stages[n-1].until)
	}
	return calm
}

// String is the whole scenario, for whoever has to understand a failure.
func (w *world) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q, stop %v, %+v, changes at %v\n", w.line, w.stop, w.facts, w.changes)
	for _, l := range w.lanes {
		fmt.Fprintf(&b, "%s/%v: comes and goes at %v, round trip %v, %.0f %% of the connections lost\n", l.name, l.method, l.up, l.rtt, 100*l.lost)
	}
	for _, s := range w.stages {
		fmt.Fprintf(&b, "until %v: %s %s\n", s.until, s.fault.about, s.only)
	}
	return b.String()
}

// now is the fault of this moment for a document.
func (w *world) now(doc string) fault {
	elapsed := time.Since(w.began)
	for _, s := range w.stages {
		if elapsed < s.until {
			if s.only == "" || s.only == doc || s.only == "hostname" && doc == "metadata" {
				return s.fault
			}
			break
		}
	}
	return fault{}
}

// dialer connects to the service over a pipe.
func (w *world) dialer(l *way) earlynet.DialFunc {
	return func(ctx context.Context, _, address string) (net.Conn, error) {
		if address != "169.254.169.254:80" {
			return nil, fmt.Errorf("dialled %s", address)
		}
		w.mu.Lock()
		w.dials++
		d := chaos.NewDice(w.seed + w.dials)
		w.mu.Unlock()
		f := w.now("")
		if f.reach == unanswered || d.Chance(l.lost) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		timer := time.NewTimer(l.rtt)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-timer.C:
		}
		if f.reach == refused {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
		}
		near, far := net.Pipe()
		w.conns.Go(func() { w.serve(l, far, d) })
		return near, nil
	}
}

// serve answers on one connection until it ends.
func (w *world) serve(l *way, conn net.Conn, d *chaos.Dice) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		time.Sleep(l.rtt)
		doc := path.Base(req.URL.Path)
		f := w.now(doc)
		w.mu.Lock()
		w.reads++
		x := exchange{conn: conn, doc: doc, right: documents[doc], dice: d, number: w.reads}
		w.mu.Unlock()
		answer := f.answer
		if answer == nil {
			answer = right
		}
		if !answer(x) {
			return
		}
	}
}

var documents = map[string]string{
	"hostname": rightName, "instance-id": rightID, "region": "eu-central", "availability-zone": "hel1-dc2",
	"public-ipv4": "203.0.113.7", "private-networks": "[]",
	"metadata": "availability-zone: hel1-dc2\nhostname: " + rightName + "\ninstance-id: " + rightID + "\nregion: eu-central\n",
}

// An exchange is one request that is to be answered.
type exchange struct {
	conn       net.Conn
	doc, right string
	dice       *chaos.Dice
	number     uint64 // of all requests
}

// say writes, and reports whether it was taken.
func (x exchange) say(format string, args ...any) bool {
	_, err := fmt.Fprintf(x.conn, format, args...)
	return err == nil
}

// body answers 200 with a length.
func (x exchange) body(s string) bool {
	return x.say("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(s), s)
}

// hang says no more until the other end hangs up.
func (x exchange) hang() bool {
	_, _ = io.Copy(io.Discard, x.conn)
	return false
}

// endless goes on until the other end hangs up.
func (x exchange) endless(s string) bool {
	for x.say("%s", s) {
		time.Sleep(time.Microsecond) // or virtual time would stand still
	}
	return false
}

// A fault is one thing that a service does wrong.
type fault struct {
	about   string
	reach   reach
	answer  func(exchange) (keep bool)
	foreign bool // only the serial tells
}

type reach uint8

const (
	reached reach = iota
	refused
	unanswered
)

// right answers so, in one of the ways in which that can be done.
func right(x exchange) bool {
	switch x.dice.IntN(5) {
	case 0:
		return x.body(x.right + "\n")
	case 1:
		half := len(x.right) / 2
		return x.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n", half, x.right[:half], len(x.right)-half, x.right[half:])
	case 2:
		x.say("HTTP/1.0 200 OK\r\n\r\n%s", x.right)
		return false
	case 3:
		x.say("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(x.right), x.right)
		return false
	}
	return x.body(x.right)
}

func status(code int, header string) func(exchange) bool {
	return func(x exchange) bool {
		return x.say("HTTP/1.1 %d %s\r\n%sContent-Length: 0\r\n\r\n", code, http.StatusText(code), header)
	}
}

func named(name string) func(exchange) bool {
	return func(x exchange) bool {
		if x.doc == "metadata" && name != "" {
			return x.body("hostname: " + name + "\ninstance-id: " + rightID + "\n")
		}
		return x.body(name)
	}
}

var faults = []fault{
	{about: "connections are refused", reach: refused},
	{about: "nobody answers", reach: unanswered},
	{about: "silence after the request", answer: exchange.hang},
	{about: "closed without a byte", answer: func(exchange) bool { return false }},
	{about: "cut short of its length", answer: func(x exchange) bool {
		x.say("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(x.right), x.right[:x.dice.IntN(len(x.right))])
		return false
	}},
	{about: "half an answer, and then silence", answer: func(x exchange) bool {
		x.say("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(x.right), x.right[:x.dice.IntN(len(x.right))])
		return x.hang()
	}},
	{about: "chunks cut short", answer: func(x exchange) bool {
		x.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nmy-serv\r\n")
		return false
	}},
	{about: "no certain end, and another name each time", answer: func(x exchange) bool {
		x.say("HTTP/1.1 200 OK\r\n\r\n%d", 1000+x.number)
		return false
	}},
	{about: "no certain end, and cut at the same byte each time", answer: func(x exchange) bool {
		x.say("HTTP/1.1 200 OK\r\n\r\n%s", x.right[:min(7, len(x.right))])
		return false
	}},
	{about: "no certain end, and cut after the first byte each time", answer: func(x exchange) bool {
		x.say("HTTP/1.1 200 OK\r\n\r\n%s", x.right[:1])
		return false
	}},
	{about: "more than its length says", answer: func(x exchange) bool {
		x.say("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(x.right)-1, x.right)
		return x.hang()
	}},
	{about: "a byte a second", answer: func(x exchange) bool {
		for _, b := range []byte(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(x.right), x.right)) {
			if !x.say("%c", b) {
				return false
			}
			time.Sleep(time.Second)
		}
		return true
	}},
	{about: "an endless body", answer: func(x exchange) bool {
		return x.say("HTTP/1.1 200 OK\r\n\r\n") && x.endless(strings.Repeat("a", 4096))
	}},
	{about: "100 MiB", answer: func(x exchange) bool {
		return x.say("HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n") && x.endless(strings.Repeat("a", 4096))
	}},
	{about: "endless chunks", answer: func(x exchange) bool {
		return x.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n") && x.endless("1;"+strings.Repeat("x", 1000)+"\r\na\r\n")
	}},
	{about: "endless headers", answer: func(x exchange) bool { return x.say("HTTP/1.1 200 OK\r\n") && x.endless("X-Many: a\r\n") }},
	{about: "endless interim answers", answer: func(x exchange) bool { return x.endless("HTTP/1.1 102 Processing\r\n\r\n") }},
	{about: "gzip", answer: func(x exchange) bool {
		return x.say("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00")
	}},
	{about: "a redirect to a file", answer: status(302, "Location: file:///etc/hostname\r\n")},
	{about: "a redirect to another host", answer: status(301, "Location: http://192.0.2.1/hostname\r\n")},
	{about: "204", answer: status(204, "")},
	{about: "404", answer: status(404, "")},
	{about: "429", answer: status(429, "")},
	{about: "429 and come back in 7 s", answer: status(429, "Retry-After: 7\r\n")},
	{about: "429 and come back tomorrow", answer: status(429, "Retry-After: 86400\r\n")},
	{about: "500", answer: status(500, "")},
	{about: "503", answer: status(503, "Retry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\n")},
	{about: "HTML", answer: named("<html><body>my-server</body></html>")},
	{about: "an empty body", answer: named("")},
	{about: "a byte order mark", answer: named("\xef\xbb\xbfmy-server")},
	{about: "a NUL", answer: named("my-server\x00")},
	{about: "two lines", answer: named("my-server\nyour-server")},
	{about: "Unicode", answer: named("mein-bücherregal")},
	{about: "a path traversal", answer: named("../../etc/passwd")},
	{about: "a label of 64 bytes", answer: named(strings.Repeat("a", 64))},
	{about: "a name of 254 bytes", answer: named(strings.Repeat("a.", 127))},
	{about: "an escape sequence", answer: named("\x1b[2Jmy-server")},
	{about: "no HTTP", answer: func(x exchange) bool {
		b := make([]byte, 1+x.dice.IntN(2000))
		for i := range b {
			b[i] = byte(x.dice.Uint32())
		}
		_, _ = x.conn.Write(b)
		return x.dice.Chance(0.5) && x.hang()
	}},
	{about: "another server's answers", foreign: true, answer: func(x exchange) bool {
		switch x.doc {
		case "metadata":
			return x.body("hostname: your-server\ninstance-id: 43\n")
		case "instance-id":
			return x.body("43")
		}
		return x.body("your-server")
	}},
}
