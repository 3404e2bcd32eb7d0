//go:build linux

package testvm

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/netns"
)

func TestMain(m *testing.M) { netns.Main(m) }

// sh runs lines of shell in the node and fails the test when one fails.
func sh(t testing.TB, lines ...string) string {
	t.Helper()
	script := strings.Join(lines, "\n")
	out, err := exec.Command("sh", "-ec", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%s\n%v\n%s", script, err, out)
	}
	return string(out)
}

// tool finds a program, or skips.
func tool(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			netns.Missing(t, name+" is not installed")
		}
	}
}

func linkLocal(t testing.TB, dev string) {
	t.Helper()
	sh(t, "ip addr add 169.254.0.1/16 dev "+dev, "ip link set "+dev+" up")
}

func down(t testing.TB, dev string) {
	t.Helper()
	sh(t, "ip addr flush dev "+dev, "ip link set "+dev+" down")
}

const hostname = "/hetzner/v1/metadata/hostname"

func get(timeout time.Duration, path string) (string, error) {
	client := http.Client{
		Transport: &http.Transport{DialContext: (&net.Dialer{}).DialContext, DisableKeepAlives: true},
		Timeout:   timeout,
	}
	resp, err := client.Get("http://169.254.169.254" + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func TestLinkLocal(t *testing.T) {
	for name, cfg := range map[string]cloud.Config{
		"a clean cable":                      {},
		"twenty milliseconds of round trip":  {Link: cloud.Link{RTT: 20 * time.Millisecond}},
		"loss, duplicates, disorder and rot": {Link: cloud.Link{RTT: time.Millisecond, Up: rough, Down: rough}, Seed: 3},
	} {
		t.Run("the name comes over "+name, func(t *testing.T) {
			Start(t, cfg)
			linkLocal(t, "eth0")
			defer down(t, "eth0")
			if got, err := get(time.Minute, hostname); err != nil || got != "my-server" {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

var rough = cloud.Impairment{Loss: 0.1, Duplicate: 0.1, Reorder: 0.1, Corrupt: 0.05}

func TestNodeIsBareAtTheStart(t *testing.T) {
	Start(t, cloud.Config{}, NIC("eth1", cloud.NIC{Shape: cloud.Private}))
	for _, dev := range []string{"eth0", "eth1"} {
		if out := sh(t, "ip -o link show dev "+dev); strings.Contains(out, "UP") {
			t.Errorf("%s is not down: %s", dev, out)
		}
		if out := sh(t, "ip addr show dev "+dev); strings.Contains(out, "inet") {
			t.Errorf("%s has an address: %s", dev, out)
		}
		if _, err := os.Stat("/sys/class/net/" + dev); err != nil {
			t.Error(err)
		}
	}
	if out := sh(t, "ip route"); out != "" {
		t.Errorf("routes: %s", out)
	}
}

// leaseScript applies a lease as both dhclient and udhcpc hand it over, and touches nothing outside the node.
const leaseScript = `#!/bin/sh
routes() { # destination gateway …
	while [ $# -ge 2 ]; do
		if [ "$2" = 0.0.0.0 ]; then ip route add "$1" dev "$interface"
		else ip route add "$1" via "$2" dev "$interface"; fi
		shift 2
	done
}
rfc3442() { # bytes, as dhclient gives them
	while [ $# -gt 4 ]; do
		len=$1; shift; dst=; n=$(( (len + 7) / 8 )); i=0
		while [ $i -lt 4 ]; do
			if [ $i -lt $n ]; then dst=$dst$1; shift; else dst=${dst}0; fi
			[ $i -lt 3 ] && dst=$dst.
			i=$((i + 1))
		done
		routes $dst/$len $1.$2.$3.$4; shift 4
	done
}
case "$reason$1" in
PREINIT|deconfig) ip link set "$interface" up ;;
BOUND|bound)
	ip addr add "${new_ip_address:-$ip}/32" dev "$interface"
	mtu=${new_interface_mtu:-$mtu}
	if [ -n "$new_rfc3442_classless_static_routes" ]; then rfc3442 $new_rfc3442_classless_static_routes
	else routes $staticroutes; fi
	echo "address ${new_ip_address:-$ip} mask ${new_subnet_mask:-$subnet} mtu $mtu lease ${new_dhcp_lease_time:-$lease}" >"$LEASE.new"
	mv "$LEASE.new" "$LEASE" ;;
esac
`

const dhclientConf = `option rfc3442-classless-static-routes code 121 = array of unsigned integer 8;
request subnet-mask, routers, interface-mtu, rfc3442-classless-static-routes;
`

func TestOtherClients(t *testing.T) {
	for client, command := range map[string]string{
		"dhclient": "exec dhclient -1 -d -cf $DIR/conf -sf $DIR/script -lf $DIR/leases -pf $DIR/pid -e LEASE=$LEASE eth0",
		"udhcpc":   "exec udhcpc -i eth0 -n -f -t 20 -T 1 -O staticroutes -O mtu -s $DIR/script",
	} {
		for shape, want := range map[cloud.Shape]string{
			cloud.Public:  "address 203.0.113.17 mask 255.255.255.255 mtu 1500 lease 86400\n",
			cloud.Private: "address 10.0.0.2 mask 255.255.255.255 mtu 1450 lease 86400\n",
		} {
			t.Run(client+" and curl find the name on a "+shape.String()+" NIC", func(t *testing.T) {
				tool(t, client, "curl", "ip")
				lab := Start(t, cloud.Config{}, NIC("eth0", cloud.NIC{Shape: shape}))
				dir := t.TempDir()
				for name, content := range map[string]string{"script": leaseScript, "conf": dhclientConf} {
					if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755); err != nil {
						t.Fatal(err)
					}
				}
				t.Setenv("DIR", dir)
				t.Setenv("LEASE", filepath.Join(dir, "lease"))
				// In the foreground, or one might outlive the test.
				daemon := lab.Command("sh", "-c", command)
				if err := daemon.Start(); err != nil {
					t.Fatal(err)
				}
				defer down(t, "eth0")
				defer func() {
					_ = daemon.Process.Kill()
					_ = daemon.Wait()
				}()
				for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
					if _, err := os.Stat(os.Getenv("LEASE")); err == nil {
						break
					}
				}
				if lease, err := os.ReadFile(filepath.Join(dir, "lease")); err != nil || string(lease) != want {
					t.Errorf("lease %q, %v", lease, err)
				}
				if got := sh(t, "curl -sSf --noproxy '*' --max-time 10 http://169.254.169.254"+hostname); got != "my-server" {
					t.Errorf("name %q", got)
				}
				if r := lab.Cloud.Requests(); len(r) != 1 || r[0].NIC != "eth0" || !strings.Contains(want, r[0].Source.Addr().String()) {
					t.Errorf("requests: %+v", r)
				}
			})
		}
	}
}

func TestPcapIsReadByTcpdump(t *testing.T) {
	tool(t, "tcpdump")
	file, err := os.Create(filepath.Join(t.TempDir(), "lab.pcap"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() }) // after the lab's end
	Start(t, cloud.Config{Pcap: file})
	linkLocal(t, "eth0")
	defer down(t, "eth0")
	if _, err := get(10*time.Second, hostname); err != nil {
		t.Fatal(err)
	}
	// While the lab runs.
	out := sh(t, "tcpdump -Z root -nn -v -r "+file.Name()+" 2>&1")
	for _, want := range []string{
		"Request who-has 169.254.169.254 tell 169.254.0.1", "Reply 169.254.169.254 is-at d2:74:7f:6e:37:01",
		"169.254.0.1.", "GET " + hostname + " HTTP/1.1", "HTTP/1.1 200 OK",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "incorrect") {
		t.Errorf("a checksum is wrong in\n%s", out)
	}
}

func TestScheduleStartsWithTheLab(t *testing.T) {
	// A busy machine may need longer than that to ask at all: then the refusal lasts longer.
	for refused := 300 * time.Millisecond; ; refused *= 4 {
		inTime := false
		t.Run("refused for "+refused.String(), func(t *testing.T) {
			lab := Start(t, cloud.Config{Metadata: []cloud.Phase{{Until: refused, Answer: cloud.Refused()}}})
			linkLocal(t, "eth0")
			defer down(t, "eth0")
			_, err := get(10*time.Second, hostname)
			inTime = lab.Cloud.Elapsed() < refused
			if inTime && err == nil {
				t.Error("it was not refused")
			}
			for lab.Cloud.Elapsed() < refused {
				time.Sleep(time.Millisecond)
			}
			if got, err := get(10*time.Second, hostname); err != nil || got != "my-server" {
				t.Errorf("got %q, %v", got, err)
			}
		})
		if inTime || t.Failed() {
			return
		}
	}
}

func TestNICsComeAndGo(t *testing.T) {
	t.Run("a NIC that comes late works and leaves no trace", func(t *testing.T) {
		lab := Start(t, cloud.Config{}, Without("eth0"))
		lab.Plug("ens10", cloud.NIC{Shape: cloud.IPv6Only})
		linkLocal(t, "ens10")
		if got, err := get(10*time.Second, hostname); err != nil || got != "my-server" {
			t.Errorf("got %q, %v", got, err)
		}
	})
	t.Run("a NIC that was renamed goes with the lab", func(t *testing.T) {
		lab := Start(t, cloud.Config{}, Without("eth0"))
		lab.Plug("ens10", cloud.NIC{})
		sh(t, "ip link set ens10 name wan0")
		lab.Unplug("ens10")
		if out := sh(t, "ip -br link"); strings.Contains(out, "wan0") {
			t.Errorf("still there:\n%s", out)
		}
	})
	t.Run("a NIC that was deleted does no harm", func(t *testing.T) {
		lab := Start(t, cloud.Config{}, Without("eth0"))
		lab.Plug("ens10", cloud.NIC{})
		sh(t, "ip link del ens10")
	})
	t.Run("a cable that was pulled works when it is back", func(t *testing.T) {
		lab := Start(t, cloud.Config{})
		lab.SetCarrier("eth0", false)
		linkLocal(t, "eth0")
		defer down(t, "eth0")
		if out := sh(t, "ip link show dev eth0"); !strings.Contains(out, "NO-CARRIER") {
			t.Errorf("a carrier: %s", out)
		}
		lab.SetCarrier("eth0", true)
		if out := sh(t, "ip link show dev eth0"); !strings.Contains(out, "LOWER_UP") {
			t.Errorf("no carrier: %s", out)
		}
		if got, err := get(10*time.Second, hostname); err != nil || got != "my-server" {
			t.Errorf("got %q, %v", got, err)
		}
	})
	t.Run("a MAC that is given is the NIC's", func(t *testing.T) {
		mac := net.HardwareAddr{0x86, 0, 0, 1, 2, 3}
		Start(t, cloud.Config{}, NIC("eth0", cloud.NIC{MAC: mac}))
		if out := sh(t, "cat /sys/class/net/eth0/address"); strings.TrimSpace(out) != mac.String() {
			t.Errorf("got %s", out)
		}
	})
}

// watched is a test that may fail without failing this one.
type watched struct {
	testing.TB
	log      bytes.Buffer
	cleanups []func()
}

func (w *watched) Cleanup(f func())  { w.cleanups = append(w.cleanups, f) }
func (w *watched) Error(args ...any) { w.Errorf("%v", args) }
func (w *watched) Errorf(format string, args ...any) {
	w.log.WriteString(strings.TrimSpace(fmt.Sprintf(format, args...)) + "\n")
}

func (w *watched) end() string {
	for len(w.cleanups) > 0 {
		last := len(w.cleanups) - 1
		f := w.cleanups[last]
		w.cleanups = w.cleanups[:last]
		f()
	}
	return w.log.String()
}

func TestTracesFailTheTest(t *testing.T) {
	w := &watched{TB: t}
	Start(w, cloud.Config{})
	sh(t, "ip addr add 169.254.0.1/16 dev eth0")
	if got := w.end(); !strings.Contains(got, "+ address 169.254.0.1/16") {
		t.Errorf("got %q", got)
	}
	w = &watched{TB: t}
	Start(w, cloud.Config{})
	if got := w.end(); got != "" {
		t.Errorf("nothing was done and yet %q", got)
	}
	w = &watched{TB: t}
	Start(w, cloud.Config{}, KeepTraces())
	sh(t, "ip link set eth0 up")
	if got := w.end(); got != "" {
		t.Errorf("traces were allowed and yet %q", got)
	}
}

// TestUnprivileged runs the scenarios again as a user without any right.
func TestUnprivileged(t *testing.T) {
	tool(t, "setpriv")
	netns.Require(t)
	if out := sh(t, "wc -l </proc/self/uid_map; cat /proc/self/uid_map"); !strings.Contains(out, "4294967295") {
		t.Skip("this run is an unprivileged one itself")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	// The magic link, as the directory of the test binary is closed to others.
	cmd := exec.CommandContext(ctx, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
		"/proc/self/fd/3", "-test.v", "-test.run", "^(TestLinkLocal|TestNICsComeAndGo|TestNodeIsBare.*|TestOtherClients)$")
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	cmd.ExtraFiles = []*os.File{self}
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !bytes.Contains(out, []byte("--- PASS: TestLinkLocal")) || bytes.Contains(out, []byte("NOT TESTED")) {
		t.Errorf("%s", out)
	}
}
