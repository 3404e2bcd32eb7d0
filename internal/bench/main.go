// Command bench measures, side by side in one run, how long nametag and other ways to a server's name take: from exec to
// the name on standard output, over a NIC that is down and bare, in the lab.
//
// Every run has a fresh node. The clients take turns, so that the machine's moods hit all of them alike. It prints a
// Markdown table for each round-trip time: median, least and most, the exit of the process, the ratio to the limit
// (round trips × round-trip time), and peak memory.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/netns"
)

const (
	hostname = "example-controlplane-3d3d26d1-69c5k"
	url      = "http://169.254.169.254/hetzner/v1/metadata/hostname"
	bound    = 30 * time.Second // for one run of one client
)

// A client is one way to the name.
type client struct {
	name   string
	needs  []string // programs that must be there
	trips  int      // round trips that the protocol cannot do without
	argv   []string
	reason string // why it is not measured, if it is not
}

// clients are what is compared. dir has the scripts that keep DHCP clients from touching more than eth0.
func clients(bin, dir string) []client {
	shell := func(script string) []string { return []string{"/bin/sh", "-c", script} }
	nametag := func(via ...string) []string {
		argv := []string{filepath.Join(bin, "nametag"), "resolve", "--nic", "eth0", "--wait", "20s", "--log", "off"}
		for _, m := range via {
			argv = append(argv, "--via", m)
		}
		return argv
	}
	all := []client{
		{name: "bare link-local prototype (the limit)", trips: 3, argv: []string{filepath.Join(bin, "bare"), "eth0"}},
		{name: "nametag", trips: 3, argv: nametag()},
		{name: "nametag --via linklocal", trips: 3, argv: nametag("linklocal")},
		{name: "nametag --via dhcp", trips: 5, argv: nametag("dhcp")},
		{
			name: "udhcpc + curl", trips: 5, needs: []string{"udhcpc", "curl", "ip"},
			argv: shell("ip link set eth0 up && udhcpc -q -n -f -i eth0 -s " + dir + "/udhcpc >/dev/null 2>&1 && curl -sf " + url + " && echo"),
		},
		{
			name: "dhclient -1 + curl", trips: 5, needs: []string{"dhclient", "curl", "ip"},
			argv: shell("dhclient -1 -q -sf " + dir + "/dhclient -lf " + dir + "/leases -pf " + dir + "/pid eth0 >/dev/null 2>&1 && curl -sf " + url + " && echo" +
				"; kill $(cat " + dir + "/pid) 2>/dev/null"),
		},
	}
	for i := range all {
		for _, program := range all[i].needs {
			if _, err := exec.LookPath(program); err != nil {
				all[i].reason = program + " is not installed"
			}
		}
	}
	return all
}

// The scripts by which DHCP clients configure eth0, and nothing else: no resolv.conf, no hooks.
const (
	udhcpcScript = `#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add "$ip/${mask:-32}" dev eth0
ip route add "$(echo $router | cut -d' ' -f1)" dev eth0
ip route add default via "$(echo $router | cut -d' ' -f1)" dev eth0
`
	dhclientScript = `#!/bin/sh
case $reason in
PREINIT) ip link set eth0 up ;;
BOUND|RENEW|REBOOT)
  ip addr add "$new_ip_address/32" dev eth0
  ip route add "${new_routers%% *}" dev eth0
  ip route add default via "${new_routers%% *}" dev eth0 ;;
esac
`
)

// A run is one client's turn.
type run struct {
	name, exit time.Duration
	rss        int64 // KiB, of the largest process
}

func main() {
	n := flag.Int("n", 20, "runs of each client")
	rtts := flag.String("rtt", "0s,20ms", "round-trip times, separated by commas")
	bin := flag.String("bin", "bin", "where nametag and bare are")
	flag.Parse()
	if err := bench(os.Stdout, *n, *rtts, *bin); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(out io.Writer, n int, rtts, bin string) error {
	if err := netns.Enter(); err != nil {
		return err
	}
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin") //nolint:errcheck // the value is valid
	bin, err := filepath.Abs(bin)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "nametag-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for name, script := range map[string]string{"udhcpc": udhcpcScript, "dhclient": dhclientScript} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			return err
		}
	}

	fmt.Fprintf(out, "%d runs each, in turn; %d cores; %s\n", n, runtime.NumCPU(), kernel())
	if err := sizes(out, filepath.Join(bin, "nametag")); err != nil {
		return err
	}
	for _, s := range strings.Split(rtts, ",") {
		rtt, err := time.ParseDuration(s)
		if err != nil {
			return err
		}
		if err := round(out, clients(bin, dir), rtt, n); err != nil {
			return err
		}
	}
	return nil
}

// round measures all clients at one round-trip time and prints the table.
func round(out io.Writer, all []client, rtt time.Duration, n int) error {
	runs := make([][]run, len(all))
	for i := range n {
		for j, c := range all {
			if c.reason != "" {
				continue
			}
			r, err := measure(c, rtt)
			if err != nil {
				return fmt.Errorf("%s, run %d at %s: %w", c.name, i+1, rtt, err)
			}
			runs[j] = append(runs[j], r)
		}
	}

	fmt.Fprintf(out, "\n### Round-trip time %s\n\n", rtt)
	fmt.Fprintf(out, "| client | to the name: median ms | min–max | to the exit: median ms | × round trips | × bare | peak RSS MiB |\n| --- | --- | --- | --- | --- | --- | --- |\n")
	var bare time.Duration
	for j, c := range all {
		if c.reason != "" {
			fmt.Fprintf(out, "| %s | not measured: %s | | | | | |\n", c.name, c.reason)
			continue
		}
		names, exits := make([]time.Duration, 0, n), make([]time.Duration, 0, n)
		var rss int64
		for _, r := range runs[j] {
			names, exits, rss = append(names, r.name), append(exits, r.exit), max(rss, r.rss)
		}
		slices.Sort(names)
		slices.Sort(exits)
		median := names[len(names)/2]
		if j == 0 {
			bare = median
		}
		trips := "–"
		if rtt > 0 {
			trips = fmt.Sprintf("%.2f × %d", float64(median)/float64(time.Duration(c.trips)*rtt), c.trips)
		}
		fmt.Fprintf(out, "| %s | %s | %s–%s | %s | %s | %.2f | %.1f |\n", c.name, ms(median), ms(names[0]), ms(names[len(names)-1]),
			ms(exits[len(exits)/2]), trips, float64(median)/float64(bare), float64(rss)/1024)
	}
	return nil
}

// measure is one turn of one client on a fresh node.
func measure(c client, rtt time.Duration) (r run, err error) {
	net, err := cloud.New(cloud.Config{Server: cloud.Server{Hostname: hostname}, Link: cloud.Link{RTT: rtt}})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, net.Close()) }()
	node, err := netns.New(netns.Options{})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, node.Close()) }()
	port, err := node.Plug("eth0")
	if err != nil {
		return r, err
	}
	if err := net.Attach(cloud.NIC{Name: "eth0"}, port); err != nil {
		return r, err
	}

	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.argv[0], c.argv[1:]...)
	cmd.WaitDelay = time.Second
	var complaint strings.Builder
	cmd.Stderr = &complaint
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return r, err
	}
	began := time.Now()
	if err := node.Start(cmd); err != nil {
		return r, err
	}
	line, readErr := bufio.NewReader(stdout).ReadString('\n')
	r.name = time.Since(began)
	waitErr := cmd.Wait()
	r.exit = time.Since(began)
	if got := strings.TrimSpace(line); got != hostname {
		return r, fmt.Errorf("it said %q (%w): %s", got, errors.Join(readErr, waitErr), complaint.String())
	}
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		r.rss = usage.Maxrss
	}
	return r, nil
}

// sizes prints how large the node's binary is.
func sizes(out io.Writer, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("%w; build it first: make build", err)
	}
	packed := "not measured: zstd is not installed"
	if zstd, err := exec.LookPath("zstd"); err == nil {
		b, err := exec.CommandContext(context.Background(), zstd, "-19", "-q", "-c", path).Output()
		if err != nil {
			return err
		}
		packed = fmt.Sprintf("%.2f MiB", float64(len(b))/(1<<20))
	}
	fmt.Fprintf(out, "nametag: %.2f MiB, as zstd -19 %s\n", float64(info.Size())/(1<<20), packed)
	return nil
}

func kernel() string {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "unknown kernel"
	}
	return "Linux " + strings.TrimSpace(string(b))
}

// ms is a time in milliseconds, to three digits or so.
func ms(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d)/float64(time.Millisecond)) }
