//go:build linux

package chaos_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/dmi"
	"github.com/nametag-boot/nametag/identity/hetzner"
	"github.com/nametag-boot/nametag/internal/node/links"
	"github.com/nametag-boot/nametag/internal/testvm"
	"github.com/nametag-boot/nametag/internal/testvm/chaos"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/helpertest"
	"github.com/nametag-boot/nametag/internal/testvm/netns"
	"github.com/nametag-boot/nametag/internal/testvm/patience"
	"github.com/nametag-boot/nametag/procfs"
)

func TestMain(m *testing.M) { netns.Main(m) }

const (
	name     = "my-server.example.com"
	serial   = "42"
	overtime = time.Second
	// maxHeap is what the process, the cloud in it included, may grow by.
	maxHeap = 24 << 20
)

// TestChaos plays random faults on random shapes of server over real links, one run after the other. The end of each
// compares the node with what it was: links, addresses, routes, neighbours, settings, goroutines and descriptors.
func TestChaos(t *testing.T) {
	netns.Require(t)
	var named, timedOut int
	var peak uint64
	chaos.Run(t, 200, func(t *testing.T, d *chaos.Dice) {
		w := newWorld(d)
		defer func() {
			if t.Failed() {
				t.Log(w)
			}
		}()
		if w.play(t) {
			named++
		} else {
			timedOut++
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		peak = max(peak, m.HeapInuse)
	})
	t.Logf("%d named, %d not; the heap had %d MiB at most", named, timedOut, peak>>20)
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.HeapAlloc > maxHeap {
		t.Errorf("%d MiB are in use after all of it", m.HeapAlloc>>20)
	}
}

// A world is a server, its cloud, and when what happens.
type world struct {
	cloud   cloud.Config
	nics    []cloud.NIC
	late    []time.Duration // when NICs beyond the first come; 0: from the start
	names   []string
	line    string        // the kernel command line
	policy  procfs.Policy // what it means
	bound   time.Duration // its bound, or, for ever, when it is stopped at the latest
	stop    time.Duration
	facts   dmi.Facts
	foreign map[string]bool // NICs that somebody else has set down and up
	about   []string
	acts    []act
}

// An act is something that happens at a time.
type act struct {
	at time.Duration
	do func(*testing.T, *testvm.Lab)
}

func (w *world) say(format string, args ...any) {
	w.about = append(w.about, fmt.Sprintf(format, args...))
}

func (w *world) String() string { return strings.Join(w.about, "\n") }

func newWorld(d *chaos.Dice) *world {
	w := &world{
		bound:   d.Between(10*time.Millisecond, time.Second).Truncate(time.Millisecond),
		foreign: map[string]bool{},
		cloud:   cloud.Config{Seed: d.Uint64(), IPv6: d.Chance(0.2), Server: cloud.Server{Hostname: name, InstanceID: serial, Newline: d.Chance(0.5)}},
	}
	known := d.Chance(0.7)
	if known {
		w.facts = dmi.Facts{Vendor: hetzner.Vendor, Serial: serial}
	}
	for i := range 1 + d.IntN(3)*d.IntN(2) {
		w.addNIC(d, i)
	}
	w.ask(d)
	w.schedule(d, known)
	for range d.IntN(3) {
		w.disturb(d)
	}
	return w
}

// ask writes the policy as a kernel argument. Each NIC is named exactly, by name or MAC: they are no physical ones.
func (w *world) ask(d *chaos.Dice) {
	wishes := chaos.Wishes{Wait: w.bound, Every: true}
	if d.Chance(0.15) {
		w.stop = d.Between(100*time.Microsecond, w.bound)
		if d.Chance(0.5) {
			wishes.Wait = 0 // 5 min or for ever
		}
	}
	leaveOut := d.IntN(2 * len(w.names)) // often none
	for i, name := range w.names {
		if i != leaveOut || len(w.names) == 1 {
			wishes.NICs = append(wishes.NICs, chaos.Pick(d, name, w.nics[i].MAC.String()))
		}
	}
	for _, other := range []string{"ens99", "86:00:00:12:34:56", "e*"} {
		if d.Chance(0.2) {
			wishes.NICs = append(wishes.NICs, other)
		}
	}
	argument, means := d.Argument(wishes)
	w.line, w.policy = d.Line(argument, d.Later()), means
	w.say("%q, stop %v, %+v", w.line, w.stop, w.facts)
}

// uses reports whether the policy names a NIC exactly.
func (w *world) uses(nic string) bool {
	i := slices.Index(w.names, nic)
	return i >= 0 && (slices.Contains(w.policy.NICs, nic) || slices.Contains(w.policy.NICs, w.nics[i].MAC.String()))
}

func (w *world) addNIC(d *chaos.Dice, i int) {
	n := cloud.NIC{
		MAC:       net.HardwareAddr{0x92, 0, 0, byte(d.Uint32()), byte(d.Uint32()), byte(i)},
		Shape:     chaos.Pick(d, cloud.Public, cloud.Public, cloud.Public, cloud.Private, cloud.Private, cloud.IPv6Only, cloud.Dead),
		BlackHole: d.Chance(0.1),
	}
	if d.Chance(0.5) {
		n.Link = &cloud.Link{RTT: d.Between(10*time.Microsecond, 30*time.Millisecond), Up: impairment(d), Down: impairment(d)}
	}
	if n.Shape != cloud.IPv6Only && n.Shape != cloud.Dead {
		n.DHCP = servers(d)
	}
	var late time.Duration
	if i > 0 && d.Chance(0.4) {
		late = d.Between(time.Millisecond, 200*time.Millisecond)
		n.Link = nil // the cloud's clockwork for a delay would outlive the NIC, and be a trace
	}
	w.nics, w.late, w.names = append(w.nics, n), append(w.late, late), append(w.names, fmt.Sprintf("eth%d", i))
	w.say("eth%d from %v on: %v, black hole %v, link %+v, DHCP %+v", i, late, n.Shape, n.BlackHole, n.Link, n.DHCP)
}

func impairment(d *chaos.Dice) (i cloud.Impairment) {
	for _, p := range []*float64{&i.Loss, &i.Duplicate, &i.Reorder, &i.Corrupt} {
		if d.Chance(0.4) {
			*p = 0.5 * d.Float64() * d.Float64()
		}
	}
	return i
}

// servers are those of a network; nil: one without a fault.
func servers(d *chaos.Dice) []cloud.DHCP {
	if d.Chance(0.6) {
		return nil
	}
	gateway := netip.MustParseAddr("172.31.1.66")
	var all []cloud.DHCP
	for range 1 + d.IntN(3) {
		s := cloud.DHCP{}
		switch d.IntN(10) {
		case 0:
			s.Silent = true
		case 1:
			s.NAK = true
		case 2:
			s.OfferOnly = true
		case 3:
			s.After = d.Between(time.Millisecond, 300*time.Millisecond)
		case 4:
			s.Address = chaos.Pick(d, netip.MustParsePrefix("169.254.169.254/32"), netip.MustParsePrefix("127.0.0.1/8"), netip.MustParsePrefix("198.51.100.7/24"))
		case 5:
			s.Routes = []cloud.Route{{Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("172.31.1.99")}}
		case 6:
			noise := make([]byte, d.IntN(64))
			for i := range noise {
				noise[i] = byte(d.Uint32())
			}
			s.Extra = map[uint8][]byte{byte(1 + d.IntN(254)): noise, 121: noise}
		case 7:
			cut := d.Float64()
			s.Mangle = func(b []byte) []byte { return b[:int(cut*float64(len(b)))] }
		case 8:
			at, bit := d.Float64(), byte(1)<<d.IntN(8)
			s.Mangle = func(b []byte) []byte {
				b[int(at*float64(len(b)))] ^= bit
				return b
			}
		}
		if len(all) == 0 && d.Chance(0.5) {
			s.ID = gateway
		}
		all = append(all, s)
	}
	return all
}

// schedule is what the metadata service does, and when it stops doing it.
func (w *world) schedule(d *chaos.Dice, known bool) {
	var at time.Duration
	for range d.IntN(4) {
		at += d.Between(time.Millisecond, 300*time.Millisecond)
		b, what := behaviour(d, known)
		if d.Chance(0.1) {
			at = time.Hour
		}
		w.cloud.Metadata = append(w.cloud.Metadata, cloud.Phase{Until: at, Answer: b})
		w.say("metadata until %v: %s", at, what)
	}
}

func behaviour(d *chaos.Dice, known bool) (cloud.Behaviour, string) {
	const n = 19
	kind := d.IntN(n)
	if kind == 0 && !known {
		kind = 1
	}
	on := func(b cloud.Behaviour) cloud.Behaviour {
		return cloud.On(chaos.Pick(d, "/metadata", "/instance-id"), b)
	}
	switch kind {
	case 0:
		return cloud.Other(cloud.Server{Hostname: "your-server", InstanceID: "43"}), "another server's"
	case 1:
		return cloud.Unreachable(), "unreachable"
	case 2:
		return cloud.Dropped(), "dropped"
	case 3:
		return cloud.Refused(), "refused"
	case 4:
		return cloud.Silent(), "silent"
	case 5:
		code := chaos.Pick(d, 204, 301, 404, 429, 500, 502, 503)
		return on(cloud.Status(code)), strconv.Itoa(code)
	case 6:
		return cloud.Status(429, "Retry-After", "1"), "429 and 1 s"
	case 7:
		return cloud.Redirect("http://192.0.2.1/"), "a redirect"
	case 8:
		return cloud.Endless(), "endless"
	case 9:
		return cloud.Slow(1 + d.IntN(50)), "slow"
	case 10:
		return cloud.Delay(d.Between(time.Millisecond, time.Second)), "delayed"
	case 11:
		// Shorter than its length says, so never a whole name.
		part := name[:d.IntN(len(name))]
		return on(cloud.Raw(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(name), part), chaos.Pick(d, cloud.Close, cloud.Reset, cloud.Hang))), "cut short"
	case 12:
		return on(cloud.Raw("HTTP/1.1 200 OK\r\n\r\n", cloud.Close)), "empty without an end"
	case 13:
		return on(cloud.Body("<html>")), "HTML"
	case 14:
		return on(cloud.Body(chaos.Pick(d, "", "\ufeffmy-server", "my\x00server", "../../x", strings.Repeat("a", 64), strings.Repeat("a.", 127)))), "no name"
	case 15:
		return cloud.Headers("Content-Encoding", "gzip"), "said to be gzip"
	case 16:
		noise := make([]byte, 1+d.IntN(3000))
		for i := range noise {
			noise[i] = byte(d.Uint32())
		}
		return cloud.Raw(string(noise), chaos.Pick(d, cloud.Close, cloud.Reset, cloud.Hang)), "noise"
	case 17:
		return cloud.On("/private-networks", cloud.Raw("HTTP/1.1 200 OK\r\n\r\n- ip: [", cloud.Close)), "networks cut short"
	}
	return cloud.Right(), "right"
}

// disturb adds something that happens to a NIC.
func (w *world) disturb(d *chaos.Dice) {
	at := d.Between(100*time.Microsecond, w.bound)
	back := at + d.Between(time.Millisecond, 200*time.Millisecond)
	i := d.IntN(len(w.names))
	nic := w.names[i]
	if w.late[i] > 0 {
		at += w.late[i]
		back += w.late[i]
	}
	link := func(l cloud.Link) func(*testing.T, *testvm.Lab) {
		return func(_ *testing.T, lab *testvm.Lab) { _ = lab.Cloud.SetLink(nic, l) } // it may be gone
	}
	gone := cloud.Impairment{Loss: 1}
	switch d.IntN(4) {
	case 0:
		w.say("carrier of %s lost at %v, back at %v", nic, at, back)
		w.acts = append(w.acts,
			act{at, func(_ *testing.T, l *testvm.Lab) { l.SetCarrier(nic, false) }},
			act{back, func(_ *testing.T, l *testvm.Lab) { l.SetCarrier(nic, true) }})
	case 1:
		w.say("partition of %s from %v to %v", nic, at, back)
		w.acts = append(w.acts, act{at, link(cloud.Link{Up: gone, Down: gone})}, act{back, link(cloud.Link{})})
	case 2:
		w.say("nothing arrives over %s from %v to %v", nic, at, back)
		w.acts = append(w.acts, act{at, link(cloud.Link{Down: gone})}, act{back, link(cloud.Link{})})
	case 3:
		w.say("%s down at %v and up at %v, by somebody else", nic, at, back)
		set := func(state string) func(*testing.T, *testvm.Lab) {
			return func(*testing.T, *testvm.Lab) { _ = exec.Command("ip", "link", "set", nic, state).Run() }
		}
		w.acts = append(w.acts, act{at, set("down")}, act{back, set("up")})
		w.foreign[nic] = true // it is somebody else's now, and stays up
	}
}

// play runs it and reports whether there was a name.
func (w *world) play(t *testing.T) bool {
	opts := []testvm.Option{testvm.Without("eth0")}
	for i, n := range w.nics {
		if w.late[i] == 0 {
			opts = append(opts, testvm.NIC(w.names[i], n))
		} else {
			w.acts = append(w.acts, act{w.late[i], func(_ *testing.T, l *testvm.Lab) { l.Plug(w.names[i], n) }})
		}
	}
	lab := testvm.Start(t, w.cloud, opts...)
	ctx, cancel := context.WithCancelCause(t.Context())
	var stagehand sync.WaitGroup
	if len(w.acts) > 0 {
		// One hand, so that a carrier is not back before it is lost.
		stagehand.Go(func() { w.perform(ctx, t, lab) })
	}
	defer func() {
		for nic := range w.foreign {
			_ = exec.Command("ip", "link", "set", nic, "down").Run()
		}
	}()
	rest := sync.OnceFunc(func() {
		cancel(nil)
		stagehand.Wait()
	})
	defer rest()
	asked, err := procfs.ParseString(w.line)
	if err != nil || !chaos.Same(asked.Policy, w.policy) {
		t.Errorf("%q is understood as %v, %v; want %v", w.line, asked.Policy, err, w.policy)
	}
	resolver, err := links.Resolver(asked.Policy, links.Shared)
	if err != nil {
		t.Fatal(err)
	}
	end := w.bound
	if w.stop > 0 {
		end = w.stop
		time.AfterFunc(w.stop, func() { cancel(errors.New("told to stop")) })
	}
	bounded := ctx
	if asked.Policy.Mode == procfs.Bounded {
		var done context.CancelFunc
		bounded, done = context.WithTimeout(ctx, asked.Policy.Wait)
		defer done()
	}
	began := time.Now()
	var mu sync.Mutex
	var events []identity.Event
	resolver.Source, resolver.Facts = hetzner.Source(), &w.facts
	resolver.Unproven = w.facts.Serial == ""
	resolver.OnEvent = func(e identity.Event) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, e)
	}
	id, err := resolver.Resolve(bounded)
	if took := time.Since(began); took > end+patience.Bound(overtime) {
		t.Errorf("it took %v of %v", took, end)
	}
	lab.OnFailure(func() { // a trace that was left shows after this function only
		for _, e := range events {
			t.Log(e)
		}
	})
	rest()
	for _, nic := range w.names {
		if up, _ := lab.Cloud.Traffic(nic); up.Sent > 0 && !w.uses(nic) && !w.foreign[nic] {
			t.Errorf("%d frames were sent on %s, which the policy leaves out", up.Sent, nic)
		}
	}
	w.checkKept(t, lab, id, events)
	if err == nil {
		if id.Hostname != name || id.InstanceID != serial {
			t.Errorf("a wrong name: %+v", id)
		}
		if !w.uses(id.Path.Interface) || len(w.policy.Via) > 0 && !slices.Contains(w.policy.Via, id.Path.Method) {
			t.Errorf("it came by %+v, which the policy leaves out", id.Path)
		}
		return true
	}
	var timeout *identity.TimeoutError
	if id != nil || !errors.As(err, &timeout) {
		t.Errorf("got %+v, %v; want a name or a time-out", id, err)
	}
	if text := err.Error(); len(text) > 4096 || strings.ContainsAny(text, "\n\x00\x1b") {
		t.Errorf("not a line for a console: %q", text)
	}
	if timeout != nil && timeout.Undo != nil {
		t.Errorf("not everything was undone: %v", timeout.Undo)
	}
	return false
}

// checkKept checks what is left of the network after all: with keep=network and a name, the winner's link, and that it
// works; else nothing, which the end of the lab sees to. What is left is then taken away.
func (w *world) checkKept(t *testing.T, lab *testvm.Lab, id *identity.Identity, events []identity.Event) {
	var kept []string
	var told bool // why not
	for i, e := range events {
		if e.Kind == identity.EventNotKept {
			told = true
		}
		if e.Link == nil || e.Link.Kind != earlynet.Kept {
			continue
		}
		kept = append(kept, e.Link.Interface+"/"+e.Link.Method.String())
		if !slices.ContainsFunc(events[:i], func(e identity.Event) bool { return e.Kind == identity.EventNamed }) {
			t.Error("a link was kept before there was a name")
		}
	}
	if id == nil || w.policy.Keep != procfs.KeepNetwork {
		if len(kept) > 0 {
			t.Errorf("%q were kept, with %v and the identity %+v", kept, w.policy, id)
		}
		return
	}
	if len(kept) == 0 && told {
		return
	}
	if len(kept) != 1 || kept[0] != id.Path.String() {
		t.Errorf("%q were kept, want that of %+v", kept, id.Path)
		return
	}
	nic := id.Path.Interface
	defer func() {
		for _, args := range [][]string{{"addr", "flush", "dev", nic}, {"link", "set", nic, "down"}, {"link", "set", nic, "mtu", "1500"}} {
			if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
				t.Errorf("ip %v: %v: %s", args, err, out)
			}
		}
	}()
	if w.foreign[nic] {
		return // whoever set it down took the addresses and routes away
	}
	for _, other := range w.names {
		i, err := net.InterfaceByName(other)
		if err != nil || w.foreign[other] {
			continue // not there yet
		}
		addresses, _ := i.Addrs()
		four := slices.DeleteFunc(slices.Clone(addresses), func(a net.Addr) bool { return strings.Contains(a.String(), ":") })
		switch up := i.Flags&net.FlagUp != 0; {
		case other != nic && (up || len(addresses) > 0):
			t.Errorf("%s was not the winner's, and yet: up %v, %v", other, up, addresses)
		case other == nic && !up:
			t.Errorf("%s is not up", nic)
		case other == nic && id.Path.Method == "ipv6" && len(four) > 0,
			other == nic && id.Path.Method != "ipv6" && (len(four) != 1 || !strings.HasPrefix(four[0].String(), id.Path.Address.String()+"/")):
			t.Errorf("%s has %v, want %v", nic, addresses, id.Path.Address)
		}
	}
	routes, _ := exec.Command("ip", "-4", "route", "show").CombinedOutput()
	for line := range strings.Lines(string(routes)) {
		if !strings.Contains(line, "dev "+nic+" ") {
			t.Errorf("a route that is not the winner's: %s", line)
		}
	}
	// It works for the system: an ordinary connection, bound to nothing, over whatever the routes say.
	lab.Cloud.Heal()
	lab.SetCarrier(nic, true)
	if err := lab.Cloud.SetLink(nic, cloud.Link{}); err != nil {
		t.Error(err)
	}
	host := "169.254.169.254"
	if id.Path.Method == "ipv6" {
		host = "[fe80::a9fe:a9fe%25" + nic + "]"
	}
	client := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	var last error
	for range 20 {
		var body []byte
		resp, err := client.Get("http://" + host + "/hetzner/v1/metadata/hostname")
		if err == nil {
			body, err = io.ReadAll(resp.Body)
			_ = resp.Body.Close()
		}
		if last = err; err == nil {
			if strings.TrimSpace(string(body)) != name {
				t.Errorf("over the kept link: %q", body)
			}
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("the service cannot be reached over the kept link: %v\n%s", last, routes)
}

func (w *world) perform(ctx context.Context, t *testing.T, lab *testvm.Lab) {
	began := time.Now()
	for len(w.acts) > 0 {
		next := 0
		for i := range w.acts {
			if w.acts[i].at < w.acts[next].at {
				next = i
			}
		}
		a := w.acts[next]
		w.acts = append(w.acts[:next], w.acts[next+1:]...)
		timer := time.NewTimer(time.Until(began.Add(a.at)))
		select {
		case <-timer.C:
			a.do(t, lab)
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// TestMemory holds the command to its limit while the service does its worst: its peak, all threads and the runtime in it.
func TestMemory(t *testing.T) {
	netns.Require(t)
	nametag := helpertest.Binary(t, runtime.GOARCH)
	const limit = 24 << 20
	highest := 0
	chaos.Run(t, 12, func(t *testing.T, d *chaos.Dice) {
		w := newWorld(d)
		w.cloud.Metadata = append([]cloud.Phase{{Until: 150 * time.Millisecond, Answer: cloud.Endless()}}, w.cloud.Metadata...)
		opts := []testvm.Option{testvm.Without("eth0")}
		for i, n := range w.nics {
			opts = append(opts, testvm.NIC(w.names[i], n))
		}
		lab := testvm.Start(t, w.cloud, opts...)
		args := []string{"resolve", "--wait", "20s"}
		for _, nic := range w.names {
			args = append(args, "--nic", nic)
		}
		cmd := lab.Command(nametag, args...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		peak := 0
		// The rusage of wait4 would include what its parent had before the exec.
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
		if m := regexp.MustCompile(`(?m)^VmHWM:\s+(\d+) kB$`).FindSubmatch(status); err == nil && m != nil {
			kib, _ := strconv.Atoi(string(m[1]))
			peak = kib << 10
		}
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		highest = max(highest, peak)
		if peak > limit {
			t.Errorf("%.1f MiB at its peak\n%s", float64(peak)/(1<<20), &stderr)
		}
	})
	t.Logf("%.1f MiB at the most", float64(highest)/(1<<20))
	if highest == 0 {
		t.Error("no peak was ever read")
	}
}
