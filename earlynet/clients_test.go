//go:build linux

package earlynet

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/testvm/netns"
)

// prepareClient gives a client a file system of its own: what hack/clients-deps has unpacked, below a layer that is
// thrown away. /sys is read-only, as in a container: that is how systemd-networkd and NetworkManager know not to wait for udev.
const prepareClient = `
mount --make-rprivate /
t=$DIR; mount -t tmpfs tmpfs $t; mkdir $t/upper $t/work $t/root
mount -t overlay overlay -o lowerdir=$ROOT,upperdir=$t/upper,workdir=$t/work $t/root
cd $t/root; mkdir -p proc sys dev run tmp var/lib/dhcp var/lib/dhcpcd var/lib/NetworkManager etc/systemd/network etc/NetworkManager/system-connections
mount -t proc proc proc; mount -t sysfs -o ro sysfs sys; mount --rbind /dev dev; mount -t tmpfs tmpfs run
mkdir -p run/dbus run/systemd/netif run/NetworkManager; [ -e var/run ] || ln -s /run var/run
: >etc/resolv.conf; echo 4c1b4d0b2d9a5e00014000800000000a >etc/machine-id
for user in root:0 systemd-network:998 messagebus:997 dhcpcd:996; do
  echo ${user%:*}:x:${user#*:}:${user#*:}::/:/bin/sh >>etc/passwd; echo ${user%:*}:x:${user#*:}: >>etc/group
done
cat >etc/systemd/network/10.network <<X
[Match]
Name=eth0
[Network]
DHCP=ipv4
X
cat >etc/NetworkManager/NetworkManager.conf <<X
[main]
plugins=keyfile
dhcp=internal
auth-polkit=false
X
cat >etc/NetworkManager/system-connections/eth0.nmconnection <<X
[connection]
id=eth0
uuid=2b0d9a5e-0001-4000-8000-000000000001
type=ethernet
interface-name=eth0
[ipv4]
method=auto
[ipv6]
method=disabled
X
chmod 600 etc/NetworkManager/system-connections/eth0.nmconnection
cat >etc/dbus-1/lab.conf <<X
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>
X
`

// clients are the programs that configure links on a Debian system, each as its own package starts it, or nearly so.
var clients = map[string]string{
	"dhclient": "exec chroot . /sbin/dhclient -d eth0",
	"dhcpcd":   "exec chroot . /usr/sbin/dhcpcd -B -4 eth0",
	"udhcpc":   "exec chroot . /sbin/udhcpc -f -i eth0 -A 1 -s /etc/udhcpc/default.script",
	"networkd": "SYSTEMD_LOG_TARGET=console exec chroot . /lib/systemd/systemd-networkd",
	"NetworkManager": `chroot . /usr/bin/dbus-daemon --config-file=/etc/dbus-1/lab.conf --nofork &
while [ ! -S run/dbus/system_bus_socket ]; do sleep 0.02; done; exec chroot . /usr/sbin/NetworkManager --no-daemon`,
}

// A lockedBuffer is what a process says, to be read while it speaks.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// startClient starts one of the clients in this network namespace. It ends with the test, and all that it has started.
func startClient(t testing.TB, name string) {
	t.Helper()
	root, err := filepath.Abs("../.cache/clients/root")
	if err != nil {
		t.Fatal(err)
	}
	// Process 1 of a namespace: with it, everything in there ends.
	cmd := exec.Command("/bin/sh", "-ec", prepareClient+clients[name])
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID}
	cmd.Env = append(os.Environ(), "ROOT="+root, "DIR="+t.TempDir())
	var said lockedBuffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", name, said.String())
		}
	})
}

// asking waits until somebody else has a packet socket on eth0: a client that asks for a lease.
func asking(t testing.TB) {
	t.Helper()
	index := eth0(t).Index
	if !within(time.Minute, func() bool { return len(packetSockets("/proc", index)) > 0 }) {
		t.Fatal("the client does not ask for a lease")
	}
}

// leased waits until eth0 has an address of the server's range that is not ours.
func leased(t testing.TB) {
	t.Helper()
	if !within(90*time.Second, func() bool {
		a := addrs(t, "eth0")
		return strings.Contains(a, "inet 10.9.0.") && !strings.Contains(a, "proto "+strconv.Itoa(rtprotNametag)) && !strings.Contains(a, "proto 0x6e")
	}) {
		t.Errorf("no lease:\n%s%s", run(t, "ip addr show dev eth0"), run(t, "cat /proc/net/packet"))
	}
}

// Whoever configures the link for good has its lease afterwards, whenever it has begun: the DHCP server answers only when
// we are gone.
func TestOtherClientsHaveTheirLease(t *testing.T) {
	netns.Require(t)
	if _, err := os.Stat("../.cache/clients/root/usr/sbin/NetworkManager"); err != nil {
		if out, err := exec.Command("../hack/clients-deps").CombinedOutput(); err != nil {
			netns.Missing(t, "hack/clients-deps: "+err.Error()+"\n"+string(out))
		}
	}
	for name := range clients {
		t.Run(name+" that asks before us", func(t *testing.T) {
			c := serving(t)
			startClient(t, name)
			asking(t)
			n := openBy(t, LinkLocal)
			reaches(t, next(t, n))
			if err := n.Close(); err != nil {
				t.Error(err)
			}
			c.dnsmasq()
			leased(t)
		})
		t.Run(name+" that begins meanwhile", func(t *testing.T) {
			c := serving(t)
			methods := []Method{LinkLocal, DHCP}
			if name == "NetworkManager" {
				// Started while our address is there, it takes the link for one that somebody else looks after, for good
				// (docs/network.md). So it begins while we have none yet.
				methods = []Method{DHCP}
			}
			n := openBy(t, methods...)
			eventually(t, "a link that is ours", func() bool { return n.saw(DHCPDiscover, "") })
			startClient(t, name)
			asking(t)
			if err := n.Close(); err != nil {
				t.Error(err)
			}
			if !n.saw(LinkLeftUp, "has a socket on it") {
				t.Error("nobody was told that the link is left up")
			}
			// One that hears routers itself has seen that the kernel does not, and relies on it.
			want := "1"
			if name == "networkd" || name == "NetworkManager" || name == "dhcpcd" {
				want = "0"
			}
			if got := setting(t, "accept_ra"); got != want {
				t.Errorf("accept_ra is %s", got)
			}
			c.dnsmasq()
			leased(t)
		})
		t.Run(name+" that begins after us", func(t *testing.T) {
			c := serving(t)
			n := openBy(t, LinkLocal)
			reaches(t, next(t, n))
			if err := n.Close(); err != nil {
				t.Error(err)
			}
			c.dnsmasq()
			startClient(t, name)
			leased(t)
		})
	}
}
