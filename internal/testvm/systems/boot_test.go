//go:build linux

package systems

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/helpertest"
	"github.com/nametag-boot/nametag/internal/testvm/patience"
	"github.com/nametag-boot/nametag/internal/testvm/qemu"
	"github.com/nametag-boot/nametag/internal/testvm/qemu/report"
)

// wanted is the environment variable that has these tests run, as `make test-os` sets it: "essential", "all", or the names
// of scenarios.
const wanted = "NAMETAG_TEST_OS"

// The names in a scenario.
const (
	server    = "web-1.example.com" // the server's, from the metadata service
	fromLease = "from-lease"        // what the DHCP server would have it called
	byHand    = "by-hand"           // the operator's
)

// Client is who gets a lease in the real root, and tries to name the machine by it.
type client string

const (
	networkd       client = "systemd-networkd.service"
	networkManager client = "NetworkManager.service"
	dhclient       client = "dhclient.service"
)

// scenario is one boot, or two, of a Debian.
type scenario struct {
	name      string
	essential bool
	initrd    Initrd
	client    client
	hostname  string   // what is in /etc/hostname before; "": there is no such file
	args      []string // beside the policy
	readOnly  bool     // the root is never made writable
	// overlaid has the hostname in an overlay on /etc, which the initramfs mounts because the root's fstab says so.
	overlaid bool
	// slowUdev has udev rename a NIC, whose driver comes in the real root, when somebody has set it up, or after a while:
	// when it is too late, where somebody does not wait for it.
	slowUdev bool
	// leftUp has the NIC as it is where the nametag of the initramfs was killed, or came to an end before the link had.
	leftUp bool
	// killed has whatever asks for the name killed as soon as it does, in boots with the argument [kill].
	killed bool

	metadata func() cloud.Behaviour // nil: right
	second   *second

	want   string // the name; "": the boot has none, and ends as the policy says
	end    qemu.Outcome
	static string // what is in /etc/hostname afterwards; "": want
}

// second is a second boot from the same disk.
type second struct {
	server   string // the server's name by then
	serial   string // another machine's
	metadata func() cloud.Behaviour
	args     []string

	want string       // the name; "": the boot has none
	end  qemu.Outcome // of a boot without a name
	// on has the boot go on without a name: whatever it is called then, it is not what the first boot was.
	on bool
}

const policy = "nametag.wait=4m"

// late answers nothing of use to the first requests.
func late() cloud.Behaviour {
	var asked atomic.Int32
	return cloud.Behaviour{Wrap: func(right http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if asked.Add(1) < 8 {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			right.ServeHTTP(w, r)
		})
	}}
}

// veryLate answers nothing of use for longer than systemd lets a start take that shows no sign of life (TimeoutStartSec=60).
func veryLate() cloud.Behaviour {
	asked := sync.OnceValue(time.Now)
	return cloud.Behaviour{Wrap: func(right http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if time.Since(asked()) < 75*time.Second {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			right.ServeHTTP(w, r)
		})
	}}
}

// wrong speaks for another server at first, and gives out what is no name then.
func wrong() cloud.Behaviour {
	return cloud.All(
		cloud.First(6, cloud.Other(cloud.Server{Hostname: "web-9", InstanceID: "43"})),
		cloud.First(6, cloud.Other(cloud.Server{Hostname: "no name!", InstanceID: "42"})),
	)
}

// another speaks for another server, always.
func another() cloud.Behaviour {
	return cloud.Other(cloud.Server{Hostname: "web-9", InstanceID: "43"})
}

// slow is what udev waits for: the link, to be up, for five seconds.
const slow = `i=0
while [ $i -lt 50 ]; do
  case $(cat /sys/class/net/$1/flags) in *[13579bdf]) exit 0 ;; esac
  sleep 0.1
  i=$((i + 1))
done
`

// leftUp is guest/first.service, before which somebody leaves the NIC as a nametag that was killed would.
const leftUp = `[Unit]
DefaultDependencies=no
Before=systemd-udevd.service
[Service]
Type=oneshot
ExecStart=/bin/sh -ec "ip link set eth0 alias 'nametag: in use by process 4000000; was down, accept_ra 1, rp_filter 0, retrans_time_ms 1000, mcast_solicit 3'; ip link set eth0 up; ip addr add 169.254.7.9/32 dev eth0 scope 253 valid_lft 60 preferred_lft 60 noprefixroute"
ExecStart=/usr/lib/nametag-test/report first service
`

// kill is the argument of a boot in which somebody kills nametag.
const kill = "kill_who_asks"

// killer is guest/first.service, before which somebody begins to kill whatever asks for the name, as the kernel does that has no
// memory left.
const (
	killer = `[Unit]
DefaultDependencies=no
Before=nametag.service
[Service]
Type=oneshot
KillMode=process
ExecStart=/bin/sh /etc/killer
ExecStart=/usr/lib/nametag-test/report first service
`
	killing = "grep -q " + kill + ` /proc/cmdline || exit 0
while sleep 0.05; do
  for asks in $(grep -la '^nametag-apply-worker' /proc/[0-9]*/cmdline); do
    asks=${asks#/proc/}
    kill -KILL ${asks%/cmdline}
  done
done >/dev/null 2>&1 &
`
)

func scenarios() []scenario {
	return []scenario{
		{name: "dracut/networkd", essential: true, initrd: Dracut, client: networkd, metadata: late, want: server},
		{name: "dracut/NetworkManager/localhost", essential: true, initrd: Dracut, client: networkManager, hostname: "localhost", want: server},
		{name: "dracut/operator", essential: true, initrd: Dracut, client: networkd, hostname: byHand, metadata: cloud.Refused, want: byHand},
		{name: "dracut/no-name", essential: true, initrd: Dracut, client: networkd, args: []string{"talos.hostname.wait=5s", "nametag.wait=5s"}, metadata: cloud.Refused, end: qemu.Reset},
		{name: "dracut-without-systemd/dhclient", essential: true, initrd: DracutWithoutSystemd, client: dhclient, want: server},
		{name: "initramfs-tools/networkd/localhost", essential: true, initrd: InitramfsTools, client: networkd, hostname: "localhost", want: server},
		{name: "service/networkd/localhost", essential: true, initrd: Plain, client: networkd, hostname: "localhost", metadata: late, slowUdev: true, want: server},
		{
			name: "service/NetworkManager/outage", essential: true, initrd: Plain, client: networkManager, want: server,
			second: &second{metadata: cloud.Refused, want: server, args: []string{"nametag.wait=4m,known=3s"}},
		},

		{name: "dracut/overlay/operator", initrd: Dracut, client: networkd, hostname: byHand, overlaid: true, args: []string{"rw", "nametag.wait=5s"}, metadata: cloud.Refused, want: byHand},
		{name: "dracut/dhclient", initrd: Dracut, client: dhclient, want: server},
		{name: "dracut/networkd/left-up", initrd: Dracut, client: networkd, leftUp: true, want: server},
		{name: "dracut/NetworkManager", initrd: Dracut, client: networkManager, want: server},
		{name: "dracut/read-only", initrd: Dracut, client: networkd, readOnly: true, want: server, static: "-"},
		{name: "dracut/read-only/localhost", initrd: Dracut, client: networkd, hostname: "localhost", readOnly: true, want: server},
		{name: "dracut/read-only/NetworkManager", initrd: Dracut, client: networkManager, readOnly: true, want: server, static: "-"},
		{name: "dracut-without-systemd/no-name", initrd: DracutWithoutSystemd, client: networkd, args: []string{"nametag.wait=5s"}, metadata: cloud.Refused, end: qemu.Reset},
		{name: "dracut-without-systemd/localhost", initrd: DracutWithoutSystemd, client: networkd, hostname: "localhost", want: server},
		{name: "initramfs-tools/dhclient", initrd: InitramfsTools, client: dhclient, want: server},
		{name: "initramfs-tools/NetworkManager/operator", initrd: InitramfsTools, client: networkManager, hostname: byHand, want: byHand},
		{name: "service/dhclient", initrd: Plain, client: dhclient, want: server},
		{name: "service/NetworkManager/slow-udev", initrd: Plain, client: networkManager, slowUdev: true, want: server},
		{name: "service/operator", initrd: Plain, client: networkd, hostname: byHand, want: byHand},
		{name: "service/no-name", initrd: Plain, client: networkd, args: []string{"nametag.wait=5s,then=poweroff"}, metadata: cloud.Refused, end: qemu.PoweredOff},
		// Not with networkd, which takes a lease's name over one from the command line, with nametag or without.
		{name: "service/systemd.hostname", initrd: Plain, client: dhclient, args: []string{policy, "systemd.hostname=" + byHand}, want: byHand, static: "-"},
		{name: "dracut/wrong", initrd: Dracut, client: networkd, metadata: wrong, want: server},
		{name: "dracut/wrong/no-name", initrd: Dracut, client: networkd, args: []string{"nametag.wait=5s"}, metadata: another, end: qemu.Reset},
		{name: "service/very-late", initrd: Plain, client: networkd, metadata: veryLate, want: server},
		{name: "service/wrong", initrd: Plain, client: networkManager, metadata: wrong, want: server},
		{
			name: "dracut/renamed", initrd: Dracut, client: networkd, want: server,
			second: &second{server: "web-2", want: "web-2"},
		},
		{
			name: "service/renamed", initrd: Plain, client: networkManager, want: server,
			second: &second{server: "web-2", want: "web-2"},
		},
		{
			name: "dracut/renamed/stop", initrd: Dracut, client: networkd, want: server,
			second: &second{server: "web-2", args: []string{"nametag.wait=10s,rename=stop"}, end: qemu.Reset},
		},
		{
			name: "service/renamed/stop", initrd: Plain, client: networkd, want: server,
			second: &second{server: "web-2", args: []string{"nametag.wait=10s,rename=stop,then=poweroff"}, end: qemu.PoweredOff},
		},
		{
			name: "dracut/outage", initrd: Dracut, client: networkd, want: server,
			second: &second{metadata: cloud.Unreachable, want: server, args: []string{"nametag.wait=4m,known=3s"}},
		},
		{
			name: "service/killed", initrd: Plain, client: networkd, killed: true, want: server,
			second: &second{server: "web-2", want: server, args: []string{policy, kill}},
		},
		{
			name: "initramfs-tools/outage", initrd: InitramfsTools, client: dhclient, want: server,
			second: &second{metadata: cloud.Refused, want: server, args: []string{"nametag.wait=4m,known=3s"}},
		},
		{
			name: "dracut/clone", initrd: Dracut, client: networkd, want: server,
			second: &second{server: "web-3", serial: "43", want: "web-3"},
		},
		{
			name: "service/clone", initrd: Plain, client: networkManager, want: server,
			second: &second{server: "web-3", serial: "43", want: "web-3"},
		},
		{
			name: "dracut/clone/outage", initrd: Dracut, client: networkd, want: server,
			second: &second{server: "web-3", serial: "43", metadata: cloud.Refused, args: []string{"nametag.wait=5s,known=1s"}, end: qemu.Reset},
		},
		{
			name: "dracut/clone/continue", initrd: Dracut, client: networkd, want: server,
			second: &second{server: "web-3", serial: "43", metadata: cloud.Refused, args: []string{"nametag.wait=5s,then=continue"}, on: true},
		},
		{
			name: "service/clone/continue", initrd: Plain, client: networkd, want: server,
			second: &second{server: "web-3", serial: "43", metadata: cloud.Refused, args: []string{"nametag.wait=5s,then=continue"}, on: true},
		},
	}
}

// chosen are the scenarios that are asked for.
func chosen(t *testing.T) []scenario {
	t.Helper()
	ask := os.Getenv(wanted)
	if ask == "" {
		t.Skip("boots of real systems take minutes: make test-os runs them")
	}
	all := scenarios()
	var found []scenario
	for _, word := range strings.Fields(ask) {
		if word == "image" || word == "ignition" {
			continue // tests of their own
		}
		before := len(found)
		for _, s := range all {
			if word == "all" || word == "essential" && s.essential || word == s.name {
				found = append(found, s)
			}
		}
		if len(found) == before {
			t.Fatalf("%s has no scenario of the name %q", wanted, word)
		}
	}
	if len(found) == 0 {
		t.Skip("no scenario is asked for")
	}
	return found
}

func TestRealSystems(t *testing.T) {
	list := chosen(t)
	deps := qemu.Need(t, qemu.AMD64)
	made, err := Make(t.Context(), deps, base(t, deps), helpertest.Binary(t, "amd64"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			s.run(t, made)
		})
	}
}

// base is the root of a Debian. Where it cannot be made the test is skipped, loudly; under CI=true it fails.
func base(t *testing.T, deps qemu.Deps) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(deps.Repo, "hack/os-deps"))
	cmd.Stderr = os.Stderr // it says what it waits for
	out, err := cmd.Output()
	if err == nil {
		return strings.TrimSpace(string(out))
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("no root of a Debian: hack/os-deps: %v", err)
	}
	t.Skipf("NO REAL SYSTEMS: no root of a Debian: hack/os-deps: %v", err)
	return ""
}

// debian is a boot of an image.
type debian struct {
	image  Image
	initrd Initrd
	args   []string
}

// Initramfs is what the image has.
func (d debian) Initramfs(context.Context, qemu.Deps) (qemu.Initramfs, error) {
	file, err := d.image.File(d.initrd)
	return qemu.Initramfs{Archive: file, Whole: true, Kernel: d.image.Kernel, Args: d.args}, err
}

func (s scenario) run(t *testing.T, made Image) {
	disk := filepath.Join(t.TempDir(), "disk")
	if out, err := exec.Command("cp", "--sparse=always", made.Disk, disk).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	file := "etc/hostname"
	if s.overlaid { // as MicroOS has it
		file = "var/overlay/etc/hostname"
		put(t, disk, "var/overlay/work/none", "")
		put(t, disk, "etc/fstab", "LABEL=root / ext4 defaults 0 0\n"+
			"overlay /etc overlay lowerdir=/sysroot/etc,upperdir=/sysroot/var/overlay/etc,workdir=/sysroot/var/overlay/work,x-initrd.mount 0 0\n")
	}
	if s.hostname != "" {
		put(t, disk, file, s.hostname+"\n")
	}
	if s.slowUdev {
		put(t, disk, "etc/udev/slow", slow)
		put(t, disk, "etc/udev/rules.d/10-slow.rules", `ACTION=="add", SUBSYSTEM=="net", KERNEL!="lo", PROGRAM="/bin/sh /etc/udev/slow %k"`+"\n")
	}
	if s.leftUp {
		put(t, disk, "etc/systemd/system/first.service", leftUp)
	}
	if s.killed {
		put(t, disk, "etc/systemd/system/first.service", killer)
		put(t, disk, "etc/killer", killing)
	}
	if s.readOnly {
		put(t, disk, "etc/fstab", "LABEL=root / ext4 ro 0 0\n")
	}
	name := server
	tally.boot(t, func() *qemu.Verdict {
		v := s.boot(t, made, disk, name, "", s.metadata, s.args)
		s.judge(t, v, s.want, name)
		return v
	})
	if s.second == nil || t.Failed() {
		return
	}
	if s.second.server != "" {
		name = s.second.server
	}
	tally.boot(t, func() *qemu.Verdict {
		v := s.boot(t, made, disk, name, s.second.serial, s.second.metadata, s.second.args)
		if s.second.on {
			s.judgeUnnamed(t, v)
			return v
		}
		s.static, s.end = "", s.second.end
		s.judge(t, v, s.second.want, name)
		if s.second.want != "" {
			return v
		}
		if kept := read(t, disk, "etc/hostname"); kept != server+"\n" {
			t.Errorf("a boot without a name left %q in /etc/hostname", kept)
		}
		return v
	})
}

func (s scenario) boot(t *testing.T, made Image, disk, name, serial string, metadata func() cloud.Behaviour, args []string) *qemu.Verdict {
	if !slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "nametag.wait=") }) {
		args = append([]string{policy}, args...)
	}
	id := serial
	if id == "" {
		id = "42"
	}
	driver := ""
	if s.slowUdev {
		driver = "blacklist=virtio_net" // in the initramfs of initramfs-tools alone
	}
	c := cloud.Config{Server: cloud.Server{Hostname: name, InstanceID: id}}
	if metadata != nil {
		c.Metadata = []cloud.Phase{{Until: 24 * time.Hour, Answer: metadata()}}
	}
	return qemu.Boot(t, qemu.Scenario{
		OS: debian{made, s.initrd, slices.Concat([]string{
			"root=/dev/vda", "ro", "rootfstype=ext4", "systemd.wants=" + string(s.client), driver, "systemd.show_status=no", "rd.systemd.show_status=no", "apparmor=0", "audit=0",
		}, args)},
		Cloud: c, Serial: id, Disk: disk, Memory: 512,
		NICs:    []qemu.NIC{{NIC: cloud.NIC{DHCP: []cloud.DHCP{{Extra: map[uint8][]byte{12: []byte(fromLease)}}}}}},
		Timeout: patience.Bound(time.Minute),
	})
}

// judge holds what the guest saw against what it should have.
func (s scenario) judge(t *testing.T, v *qemu.Verdict, want, served string) {
	t.Helper()
	if want == "" {
		if v.Outcome != s.end {
			t.Errorf("it ended with %v, not %v", v.Outcome, s.end)
		}
		for _, e := range v.All(report.Service) {
			if s.initrd != Plain || e.From != "first" { // the first of the root comes before nametag's own there
				t.Errorf("a service started without a name: %v", e)
			}
		}
		return
	}
	seen := map[string]report.Event{}
	for _, e := range v.All(report.Service) {
		seen[e.From] = e
	}
	services := []string{"ordinary", "later"}
	if s.initrd != Plain {
		services = append(services, "first")
	}
	for _, from := range services {
		e, ok := seen[from]
		if !ok {
			t.Errorf("the service %q has not reported; the boot ended: %v", from, v.Outcome)
			continue
		}
		if e.Name != want {
			t.Errorf("the service %q saw %q, not %q", from, e.Name, want)
		}
	}
	if t.Failed() {
		return
	}
	later := seen["later"].Text
	static := s.static
	switch static {
	case "":
		static = want
	case "-":
		static = ""
	}
	if !strings.Contains(later, "static="+static+" ") {
		t.Errorf("/etc/hostname is not %q: %s", static, later)
	}
	if !strings.Contains(later, "lease=203.0.113.17") {
		t.Errorf("the lease that would rename it is not in effect: %s", later)
	}
	if named := want == served; named && (!strings.Contains(later, "status=0 ") || strings.Contains(later, "journal=0 ")) {
		t.Errorf("nametag status or the journal do not tell of it: %s", later)
	}
	if operators := s.hostname == want && want != served; operators && !strings.Contains(later, "status=9 ") {
		t.Errorf("nametag status does not tell that it is an operator's: %s", later)
	}
	t.Logf("%v: %s", v.Took.Round(time.Second), later)
}

// judgeUnnamed holds what the guest saw against this: it has booted, is not called what another server is, and has its network.
func (s scenario) judgeUnnamed(t *testing.T, v *qemu.Verdict) {
	t.Helper()
	for _, from := range []string{"ordinary", "later"} {
		seen := false
		for _, e := range v.All(report.Service) {
			if e.From != from {
				continue
			}
			seen = true
			if e.Name == server || strings.Contains(e.Text, "static="+server) {
				t.Errorf("the service %q saw another server's name: %v", from, e)
			}
			if from == "later" && !strings.Contains(e.Text, "lease=203.0.113.17") {
				t.Errorf("it has no lease: %v", e)
			}
			t.Logf("%v, called %s: %s", v.Took.Round(time.Second), e.Name, e.Text)
		}
		if !seen {
			t.Errorf("the service %q has not reported; the boot ended: %v", from, v.Outcome)
		}
	}
}

// put writes a file into an ext4 image.
func put(t *testing.T, disk, name, text string) {
	t.Helper()
	from := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(from, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	commands := fmt.Sprintf("rm %s\nwrite %s %s\nset_inode_field %s mode 0100644\n", name, from, name, name)
	for dir := filepath.Dir(name); dir != "."; dir = filepath.Dir(dir) {
		commands = "mkdir " + dir + "\n" + commands // or it is there
	}
	cmd := exec.Command("/sbin/debugfs", "-w", "-f", "-", disk)
	cmd.Stdin = strings.NewReader(commands)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("debugfs: %v: %s", err, out)
	}
	if wrote := read(t, disk, name); wrote != text {
		t.Fatalf("debugfs wrote %q", wrote)
	}
}

// read reads a file of an ext4 image, with what its journal has of it.
func read(t *testing.T, disk, name string) string {
	t.Helper()
	if out, err := exec.Command("/sbin/e2fsck", "-p", disk).CombinedOutput(); err != nil {
		t.Logf("e2fsck: %v: %s", err, out) // it tells by its exit status what it mended
	}
	out, err := exec.Command("/sbin/debugfs", "-R", "cat "+name, disk).Output()
	if err != nil {
		t.Fatalf("debugfs: %v", err)
	}
	return string(out)
}
