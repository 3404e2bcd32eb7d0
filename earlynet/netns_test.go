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
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain runs the tests inside a network namespace of their own.
func TestMain(m *testing.M) {
	const inside = "EARLYNET_TEST_INSIDE"
	if os.Getenv(inside) != "" {
		// The kernel's own address is there at once: snapshots do not change by themselves.
		_ = os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0)
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	if err := cmd.Run(); err != nil {
		if exit, ok := err.(*exec.ExitError); ok {
			os.Exit(exit.ExitCode())
		}
		fmt.Fprintln(os.Stderr, "earlynet: tests need a network namespace of their own:", err)
		if os.Getenv("CI") == "true" {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(0)
}

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

// A cloud is another namespace, joined by a veth: eth0 here, cloud0 there.
type cloud struct {
	t  testing.TB
	ns string
}

// plug makes eth0, down and bare, and the other side with the metadata address.
func plug(t testing.TB) *cloud {
	t.Helper()
	return plugAs(t, "eth0")
}

func plugAs(t testing.TB, ifname string) *cloud {
	t.Helper()
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
	c := &cloud{t: t, ns: fmt.Sprint(holder.Process.Pid)}
	self, _ := os.Readlink("/proc/self/ns/net")
	eventually(t, "the other namespace", func() bool {
		other, err := os.Readlink("/proc/" + c.ns + "/ns/net")
		return err == nil && other != self
	})
	run(t, "ip link add "+ifname+" type veth peer name cloud0 netns "+c.ns)
	t.Cleanup(func() { exec.Command("ip", "link", "del", ifname).Run() })
	c.run("ip link set lo up; ip link set cloud0 up; ip addr add 169.254.169.254/32 dev cloud0; ip route add 169.254.0.0/16 dev cloud0")
	return c
}

// run runs a command line on the cloud's side.
func (c *cloud) run(line string) string {
	c.t.Helper()
	return run(c.t, "nsenter -t "+c.ns+" -n /bin/sh -ec '"+line+"'")
}

// inside calls fn on a thread in the cloud's namespace.
func (c *cloud) inside(fn func()) {
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
func (c *cloud) serve() {
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
	req, err := http.NewRequestWithContext(ctx, "GET", "http://169.254.169.254/", nil)
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

// snapshot is everything that must be as it was.
func snapshot(t testing.TB) string {
	t.Helper()
	s := run(t, `ip -d -o link | sed -E 's/ (qlen|qdisc|state|numtxqueues|mode|group) [^ ]*//g'; ip -o addr; ip -4 route show table all; ip -6 route show table all; ip rule; ip neigh; cat /proc/sys/net/ipv4/neigh/*/retrans_time_ms /proc/sys/net/ipv4/neigh/*/mcast_solicit; ls /proc/net/packet; cat /proc/net/packet | wc -l`)
	fds, _ := os.ReadDir("/proc/self/fd")
	return s + fmt.Sprintf("descriptors %d\n", len(fds))
}

// restored checks, when the test ends, that nothing is left of it.
func restored(t testing.TB) {
	t.Helper()
	// The poller's own descriptors are made once.
	if l, err := net.Listen("tcp4", "127.0.0.1:0"); err == nil {
		l.Close()
	}
	before := snapshot(t)
	t.Cleanup(func() {
		var after string
		if !within(3*time.Second, func() bool { after = snapshot(t); return after == before }) {
			t.Errorf("not as it was.\nbefore:\n%s\nafter:\n%s", before, after)
		}
		if g := goroutines(); len(g) > 0 {
			t.Errorf("goroutines are left:\n%s", strings.Join(g, "\n\n"))
		}
	})
}

// goroutines returns those that the package has started.
func goroutines() []string {
	buf := make([]byte, 1<<20)
	var left []string
	for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(g, "earlynet.(*") && !strings.Contains(g, "_test.go") {
			left = append(left, g)
		}
	}
	return left
}

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
	if !within(10*time.Second, ok) {
		t.Fatalf("%s: not within 10 s", what)
	}
}

// open opens a network and closes it at the end of the test; a second Close by
// the test itself is harmless.
func open(t testing.TB, ctx context.Context, cfg Config) *Network {
	t.Helper()
	if cfg.NICs == nil {
		cfg.NICs = []string{"eth0"}
	}
	if cfg.Destinations == nil {
		cfg.Destinations = []netip.Addr{metadata}
	}
	told := cfg.Observer
	cfg.Observer = func(e Event) {
		t.Log(e)
		if told != nil {
			told(e)
		}
	}
	n, err := Open(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return n
}

// next returns the next path.
func next(t testing.TB, n *Network) *Path {
	t.Helper()
	select {
	case p, ok := <-n.Paths():
		if !ok {
			t.Fatal("no more paths")
		}
		return p
	case <-time.After(10 * time.Second):
		t.Fatalf("no path within 10 s: %v", n.Status())
	}
	return nil
}

func ended(t testing.TB, p *Path) {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(10 * time.Second):
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
