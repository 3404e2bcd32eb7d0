//go:build linux

package boot

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/testvm/netns"
)

// linkState tells all of eth0 that a worker may change. The queueing discipline is one that the kernel gives a link when it
// is set up the first time.
const linkState = `ip -o link show eth0 | sed 's/ qdisc [a-z]*//'
ip -o addr show dev eth0
ip route show table all dev eth0
ip neigh show dev eth0
cd /proc/sys/net
grep . ipv4/conf/eth0/rp_filter ipv4/neigh/eth0/retrans_time_ms ipv4/neigh/eth0/mcast_solicit ipv6/conf/eth0/accept_ra`

// links makes the links, and arranges for the worker to be killed.
func (tr trial) links() {
	if tr.Links == "" {
		return
	}
	if out, err := exec.Command("/bin/sh", "-ec", tr.Links).CombinedOutput(); err != nil {
		panic(fmt.Sprintf("%v: %s", err, out))
	}
	if err := unix.Mount("tmpfs", "/proc", "tmpfs", 0, ""); err != nil {
		panic(err)
	}
	reached = func(s stage) {
		switch s {
		case stageMounted:
			_ = os.WriteFile(workFile, []byte("our own"), 0o600)
		case stageAsked:
			go tr.kill()
		}
	}
}

// kill kills the worker when its time has come.
func (tr trial) kill() {
	for exec.Command("/bin/sh", "-ec", tr.Kill).Run() != nil {
		time.Sleep(2 * time.Millisecond)
	}
	names, _ := filepath.Glob(ownRoot + "/proc/[0-9]*/cmdline")
	for _, name := range names {
		if text, err := os.ReadFile(name); err == nil && strings.HasPrefix(string(text), workerName) {
			var pid int
			_, _ = fmt.Sscan(filepath.Base(filepath.Dir(name)), &pid)
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// A worker that is killed, at whatever stage, leaves no trace: the system that boots on finds its links as they were.
func TestAWorkerThatIsKilledLeavesTheLinksAsTheyWere(t *testing.T) {
	if _, err := exec.LookPath("ip"); err != nil {
		netns.Missing(t, "ip is not installed; apt-get install iproute2")
	}
	const (
		links = `ip link add eth0 address 92:00:00:00:00:01 type veth peer name far
ip link set far up
`
		settings = `echo 1 >/proc/sys/net/ipv4/conf/eth0/rp_filter
`
		policy = "nametag.wait=1m,nic=eth0,id=unproven,then=continue,via="
	)
	untouched := trial{Line: "", Links: links + settings}.run(t)
	if !strings.Contains(untouched.next, "accept_ra:1") {
		t.Fatalf("the links are\n%s\n%s", untouched.next, untouched.console)
	}
	for _, c := range []struct{ at, when, via string }{
		{"noted down how the link was", "ip link show eth0 | grep -q 'alias nametag'", "linklocal"},
		{"set the link up", "ip -o link show eth0 | grep -q ',UP'", "linklocal"},
		{"kept router advertisements from it", "grep -qx 0 " + ownRoot + "/proc/sys/net/ipv6/conf/eth0/accept_ra", "linklocal"},
		{"an address of its own", "ip -o addr show dev eth0 | grep -q 169.254", "linklocal"},
		{"a route", "ip route show table all proto 110 | grep -q 169.254", "linklocal"},
		{"asks for a lease", "ip -o link show eth0 | grep -q ',LOWER_UP'", "dhcp"},
	} {
		t.Run("it has "+c.at, func(t *testing.T) {
			e := trial{Line: policy + c.via, Links: links + settings, Kill: c.when}.run(t)
			if !strings.Contains(e.console, "the worker ended without an answer") {
				t.Errorf("the worker was not killed:\n%s", e.console)
			}
			if e.next != untouched.next {
				t.Errorf("the links were\n%s\nand are\n%s\nthe console:\n%s", untouched.next, e.next, e.console)
			}
		})
	}
}
