//go:build linux

package earlynet

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm/netns"
	"github.com/nametag-boot/nametag/internal/testvm/patience"
	"golang.org/x/sys/unix"
)

// TestMain runs the tests inside a network namespace of their own.
func TestMain(m *testing.M) { netns.Main(m) }

var metadata = netip.MustParseAddr("169.254.169.254")

// run runs a command line in the current namespace and fails the test when it fails.
func run(t testing.TB, line string) string {
	t.Helper()
	out, err := exec.Command("/bin/sh", "-c", line).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// A peer is another namespace, joined by a veth: eth0 here, cloud0 there.
type peer struct {
	t  testing.TB
	ns string
}

// plug makes eth0, down and bare, and the other side with the metadata address.
func plug(t testing.TB) *peer {
	t.Helper()
	return plugAs(t, "eth0")
}

// serving is plug with a service at the address, which tells clients theirs.
func serving(t testing.TB) *peer {
	t.Helper()
	c := plug(t)
	c.serve()
	return c
}

func plugAs(t testing.TB, ifname string) *peer {
	t.Helper()
	netns.Require(t)
	// The kernel's own address is there at once: snapshots do not change by themselves.
	run(t, "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad")
	// A process that holds the other namespace; it dies with its stdin.
	holder := exec.Command("unshare", "-n", "cat")
	in, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); holder.Wait() })
	c := &peer{t: t, ns: fmt.Sprint(holder.Process.Pid)}
	self, _ := os.Readlink("/proc/thread-self/ns/net")
	eventually(t, "the other namespace", func() bool {
		other, err := os.Readlink("/proc/" + c.ns + "/ns/net")
		return err == nil && other != self
	})
	// The other side's index must not happen to be the same: the kernel would
	// take it for a device of its own and let it send only up to a second after
	// it has its carrier (linkwatch_urgent_event, net/core/link_watch.c).
	run(t, "ip link add "+ifname+" type veth peer name cloud0 index 7777 netns "+c.ns)
	t.Cleanup(func() { exec.Command("ip", "link", "del", ifname).Run() })
	c.run("ip link set lo up; ip link set cloud0 up; ip addr add 169.254.169.254/32 dev cloud0; ip route add 169.254.0.0/16 dev cloud0")
	return c
}

// run runs a command line on the cloud's side.
func (c *peer) run(line string) string {
	c.t.Helper()
	return run(c.t, "nsenter -t "+c.ns+" -n /bin/sh -ec '"+line+"'")
}

// inside calls fn on a thread in the cloud's namespace.
func (c *peer) inside(fn func()) {
	c.t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		fd, err := unix.Open("/proc/"+c.ns+"/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			unix.Close(fd)
		}
		if err == nil {
			fn()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		c.t.Fatal(err)
	}
}

// serve answers HTTP on port 80 with the client's address.
func (c *peer) serve() {
	var l net.Listener
	var err error
	c.inside(func() { l, err = net.Listen("tcp4", "0.0.0.0:80") })
	if err != nil {
		c.t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		io.WriteString(w, host)
	})}
	go srv.Serve(l)
	c.t.Cleanup(func() { srv.Close() })
}

// ask fetches the page over a path.
func ask(ctx context.Context, p *Path) (string, error) {
	tr := &http.Transport{DialContext: p.DialContext, DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://169.254.169.254/", nil)
	if err != nil {
		return "", err
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// reaches checks that the service is reached over a path, from its address.
func reaches(t testing.TB, p *Path) {
	t.Helper()
	if got, err := ask(context.Background(), p); err != nil || got != p.Source.String() {
		t.Errorf("%v: the service saw %q: %v", p, got, err)
	}
}

// hostReaches checks that the host's own network reaches the service, from an address.
func hostReaches(t testing.TB, from netip.Addr) {
	t.Helper()
	h, err := Host(context.Background(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if got, err := ask(context.Background(), next(t, h)); err != nil || got != from.String() {
		t.Errorf("the host's network: the service saw %q, not %v: %v", got, from, err)
	}
}

// restored checks, when the test ends, that nothing is left of it.
func restored(t testing.TB) {
	t.Helper()
	before, err := netns.Snap()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if diff, err := before.Settle(longEnough()); err != nil || diff != "" {
			t.Errorf("not as it was (%v):\n%s", err, diff)
		}
	})
}

// longEnough is how long what takes a moment is waited for.
var longEnough = sync.OnceValue(func() time.Duration { return patience.Bound(time.Second) })

func within(d time.Duration, ok func() bool) bool {
	for end := time.Now().Add(d); ; time.Sleep(5 * time.Millisecond) {
		if ok() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	if !within(longEnough(), ok) {
		t.Fatalf("%s: not within %v", what, longEnough())
	}
}

// A recorder keeps events for a test to look at.
type recorder struct {
	mu     sync.Mutex
	events []Event
}

func (r *recorder) observe(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

// saw reports whether an event of the kind came whose line contains text.
func (r *recorder) saw(k EventKind, text string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.events, func(e Event) bool { return e.Kind == k && strings.Contains(e.String(), text) })
}

// sawErr reports whether an event came with such an error.
func (r *recorder) sawErr(such func(error) bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.events, func(e Event) bool { return e.Err != nil && such(e.Err) })
}

// An opened network has a record of what it told.
type opened struct {
	*Network
	told recorder
}

func (o *opened) saw(k EventKind, text string) bool { return o.told.saw(k, text) }

// open opens a network and closes it at the end of the test; a second Close by
// the test itself is harmless.
func open(ctx context.Context, t testing.TB, cfg Config) *opened {
	t.Helper()
	if cfg.NICs == nil {
		cfg.NICs = []string{"eth0"}
	}
	if cfg.Destinations == nil {
		cfg.Destinations = []netip.Addr{metadata}
	}
	n := new(opened)
	observer := cfg.Observer
	cfg.Observer = func(e Event) {
		t.Log(e)
		n.told.observe(e)
		if observer != nil {
			observer(e)
		}
	}
	var err error
	if n.Network, err = Open(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return n
}

// up reports whether eth0 is set up.
func up(t testing.TB) bool {
	t.Helper()
	return strings.Contains(run(t, "ip -o link show dev eth0"), ",UP")
}

// openBy opens a network with paths by these methods; none given: all.
func openBy(t testing.TB, methods ...Method) *opened {
	t.Helper()
	return open(context.Background(), t, Config{Methods: methods})
}

// traceless is openBy, and when the test ends nothing must be left of the network.
func traceless(t testing.TB, methods ...Method) *opened {
	t.Helper()
	restored(t)
	return openBy(t, methods...)
}

// next returns the next path.
func next(t testing.TB, n interface {
	Paths() <-chan *Path
	Status() []error
},
) *Path {
	t.Helper()
	select {
	case p, ok := <-n.Paths():
		if !ok {
			t.Fatal("no more paths")
		}
		return p
	case <-time.After(longEnough()):
		t.Fatalf("no path within %v: %v", longEnough(), n.Status())
	}
	return nil
}

func ended(t testing.TB, p *Path) {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(longEnough()):
		t.Fatalf("%v has not ended", p)
	}
	if p.Err() == nil {
		t.Error("an ended path has no error")
	}
}

// addrs returns what "ip" says of a NIC's IPv4 addresses.
func addrs(t testing.TB, ifname string) string {
	return strings.TrimSpace(run(t, "ip -4 -o addr show dev "+ifname))
}

// leftUp closes the network and checks that eth0 stays up, with nothing of ours on it, and that this is said with a reason.
func leftUp(t testing.TB, n *opened, why string) {
	t.Helper()
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if l := run(t, "ip -o link show eth0"); !strings.Contains(l, ",UP") || strings.Contains(l, "nametag") {
		t.Errorf("link: %s", l)
	}
	if rest := run(t, "ip -o addr show dev eth0 | grep 'proto 0x6e' ; ip route show table all proto 110; true"); rest != "" {
		t.Errorf("of ours: %s", rest)
	}
	if got := setting(t, "accept_ra"); got != "1" {
		t.Errorf("accept_ra is %s", got)
	}
	if !n.saw(LinkLeftUp, why) {
		t.Errorf("nobody was told that the link is left up since %s", why)
	}
}
