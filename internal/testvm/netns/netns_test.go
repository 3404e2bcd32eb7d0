//go:build linux

package netns

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// envHelper makes the test binary a small program of its own, for what only a whole process can show.
const envHelper = "NAMETAG_TEST_HELPER"

func TestMain(m *testing.M) {
	if script := os.Getenv(envHelper); script != "" {
		os.Exit(helper(script))
	}
	Main(m)
}

// helper is a program as a command line tool would be: it enters, makes a node with a NIC and runs a script in it.
func helper(script string) int {
	if err := Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		if u := new(Unavailable); errors.As(err, &u) && u.Remedy != "" {
			return 77
		}
		return 78
	}
	node, err := New(Options{Hostname: "(none)"})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 79
	}
	defer node.Close()
	if _, err := node.Plug("eth0"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 80
	}
	cmd := exec.CommandContext(context.Background(), "sh", "-c", script)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), envHelper+"=")
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM)
	if err := node.Start(cmd); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 81
	}
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s)
		}
	}()
	if err := cmd.Wait(); err != nil {
		if exit := new(exec.ExitError); errors.As(err, &exit) && exit.ExitCode() >= 0 {
			return exit.ExitCode()
		}
		signal.Reset(unix.SIGTERM)
		_ = unix.Kill(unix.Getpid(), unix.SIGTERM)
		time.Sleep(time.Second)
		return 82
	}
	return 0
}

// run starts the helper, with before in front of its command line.
func run(t *testing.T, script string, before ...string) *exec.Cmd {
	t.Helper()
	Require(t)
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { self.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	args := slices.Concat(before, []string{"/proc/self/fd/3"})
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.ExtraFiles = []*os.File{self}
	cmd.Env = append(os.Environ(), envHelper+"="+script)
	cmd.Dir = "/"
	return cmd
}

// users are the ways to run the helper: as it is, and as somebody without rights.
func users(t *testing.T, test func(t *testing.T, before ...string)) {
	t.Run("as root", func(t *testing.T) { test(t) })
	t.Run("without rights", func(t *testing.T) {
		before := nobody(t)
		test(t, before...)
	})
}

// nobody is the command that gives all rights up.
func nobody(t *testing.T) []string {
	t.Helper()
	if _, err := exec.LookPath("setpriv"); err != nil {
		Missing(t, "setpriv is not installed")
	}
	drop := []string{"setpriv", "--bounding-set=-all", "--inh-caps=-all"}
	if b, err := os.ReadFile("/proc/self/uid_map"); err == nil && strings.Contains(string(b), "4294967295") {
		drop = append(drop, "--reuid=65534", "--regid=65534", "--clear-groups") // more than one user exists here
	}
	return drop
}

func TestEnter(t *testing.T) {
	users(t, func(t *testing.T, before ...string) {
		t.Run("a command sees a NIC that is down and bare, loopback, and a /sys to match", func(t *testing.T) {
			out, err := run(t, "ip -br link; ls /sys/class/net; cat /proc/sys/kernel/hostname; id -u", before...).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			got := string(out)
			for _, want := range []string{"lo               UNKNOWN", "eth0", "DOWN", "\neth0\nlo\n(none)\n0\n"} {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in\n%s", want, got)
				}
			}
		})
		t.Run("the exit status is the command's", func(t *testing.T) {
			var exit *exec.ExitError
			if err := run(t, "exit 42", before...).Run(); !errors.As(err, &exit) || exit.ExitCode() != 42 {
				t.Errorf("got %v", err)
			}
		})
		t.Run("standard input and output are the command's", func(t *testing.T) {
			cmd := run(t, "tr a-z A-Z", before...)
			cmd.Stdin = strings.NewReader("quiet\n")
			if out, err := cmd.Output(); err != nil || string(out) != "QUIET\n" {
				t.Errorf("got %q, %v", out, err)
			}
		})
		t.Run("a signal reaches the command, and its death is the program's", func(t *testing.T) {
			cmd := run(t, "echo up; exec sleep 60", before...)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "up\n" {
				t.Fatalf("got %q, %v", line, err)
			}
			if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
				t.Fatal(err)
			}
			var exit *exec.ExitError
			if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGTERM {
				t.Errorf("got %v", err)
			}
		})
	})
	t.Run("where user namespaces are switched off the error has the remedy", func(t *testing.T) {
		Require(t)
		before := append([]string{
			"unshare", "--user", "--map-root-user", "sh", "-c", `echo 0 >/proc/sys/user/max_user_namespaces; exec "$@"`, "sh",
		}, "setpriv", "--bounding-set=-all", "--inh-caps=-all")
		out, err := run(t, "true", before...).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 77 || bytes.Count(out, []byte("\n")) != 1 ||
			!bytes.Contains(out, []byte("user namespaces are switched off")) ||
			!bytes.Contains(out, []byte("sysctl user.max_user_namespaces=")) {
			t.Errorf("got %v\n%s", err, out)
		}
	})
}

func TestMainWithoutNamespaces(t *testing.T) {
	for ci, want := range map[string]string{"": "--- SKIP: TestSnapshotFindsTraces", "true": "--- FAIL: TestSnapshotFindsTraces"} {
		t.Run("tests that need one, CI="+ci, func(t *testing.T) {
			cmd := run(t, "", append([]string{
				"unshare", "--user", "--map-root-user", "sh", "-c",
				`echo 0 >/proc/sys/user/max_user_namespaces; exec "$@" -test.v -test.run TestSnapshotFindsTraces`, "sh",
			}, "setpriv", "--bounding-set=-all", "--inh-caps=-all")...)
			cmd.Env = append(cmd.Env, envHelper+"=", "CI="+ci)
			out, err := cmd.CombinedOutput()
			if (err != nil) != (ci == "true") || !bytes.Contains(out, []byte(want)) ||
				!bytes.Contains(out, []byte("sysctl user.max_user_namespaces=")) {
				t.Errorf("got %v\n%s", err, out)
			}
		})
	}
}

func sh(t *testing.T, script string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "sh", "-ec", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%s\n%v\n%s", script, err, out)
	}
	return string(out)
}

func TestSnapshotFindsTraces(t *testing.T) {
	Require(t)
	_, unplug, err := Plug("eth0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unplug(); err != nil {
			t.Error(err)
		}
	})
	for _, test := range []struct{ name, do, undo, want string }{
		{"a link that is up", "ip link set eth0 up", "ip link set eth0 down", "link"},
		{"another MTU", "ip link set eth0 mtu 1400", "ip link set eth0 mtu 1500", "mtu 1400"},
		{"an address", "ip addr add 192.0.2.1/32 dev eth0", "ip addr del 192.0.2.1/32 dev eth0", "+ address 192.0.2.1/32"},
		{
			"a route in another table", "ip route add 192.0.2.0/24 dev lo table 77", "ip route del 192.0.2.0/24 dev lo table 77",
			"table 77",
		},
		{"a rule", "ip rule add from 192.0.2.1 table 77", "ip rule del from 192.0.2.1 table 77", "+ rule"},
		{"an IPv6 rule", "ip -6 rule add from 2001:db8::1 table 77", "ip -6 rule del from 2001:db8::1 table 77", "+ rule"},
		{
			"a neighbour", "ip link set eth0 up; ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:01 dev eth0",
			"ip neigh del 192.0.2.9 dev eth0; ip link set eth0 down", "+ neighbour 192.0.2.9 dev eth0 permanent",
		},
		{
			"a neighbour timer", "echo 20 >/proc/sys/net/ipv4/neigh/eth0/retrans_time_ms",
			"echo 1000 >/proc/sys/net/ipv4/neigh/eth0/retrans_time_ms", "neigh/eth0/retrans_time_ms = 20",
		},
		{"another link", "ip link add br7 type bridge", "ip link del br7", "br7"},
		{
			"a setting", "echo 2 >/proc/sys/net/ipv4/conf/eth0/rp_filter", "echo 0 >/proc/sys/net/ipv4/conf/eth0/rp_filter",
			"conf/eth0/rp_filter = 2",
		},
	} {
		t.Run(test.name+" is found, and nothing when it is undone", func(t *testing.T) {
			before, err := Snap()
			if err != nil {
				t.Fatal(err)
			}
			sh(t, test.do)
			after, err := Snap()
			if err != nil {
				t.Fatal(err)
			}
			if diff := before.Diff(after); !strings.Contains(diff, test.want) {
				t.Errorf("got %q", diff)
			}
			sh(t, test.undo)
			if diff, err := before.Settle(5 * time.Second); err != nil || diff != "" {
				t.Errorf("undone: %q, %v", diff, err)
			}
		})
	}
	t.Run("a goroutine is found with its stack", func(t *testing.T) {
		before, err := Snap()
		if err != nil {
			t.Fatal(err)
		}
		stop := make(chan struct{})
		go leak(stop)
		diff := ""
		for deadline := time.Now().Add(5 * time.Second); diff == "" && time.Now().Before(deadline); {
			after, err := Snap()
			if err != nil {
				t.Fatal(err)
			}
			diff = before.Diff(after)
		}
		if !strings.Contains(diff, "+ goroutine") || !strings.Contains(diff, "netns.leak") || !strings.Contains(diff, "netns_test.go:") {
			t.Errorf("got %q", diff)
		}
		close(stop)
		if diff, err := before.Settle(5 * time.Second); err != nil || diff != "" {
			t.Errorf("ended: %q, %v", diff, err)
		}
	})
	t.Run("a descriptor is found with what it is", func(t *testing.T) {
		before, err := Snap()
		if err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		diff, err := before.Settle(0)
		_ = unix.Close(fd)
		if err != nil || !strings.Contains(diff, fmt.Sprintf("+ descriptor %d socket:", fd)) {
			t.Errorf("got %q, %v", diff, err)
		}
	})
	t.Run("a link that was up and is down again has left nothing", func(t *testing.T) {
		before, err := Snap()
		if err != nil {
			t.Fatal(err)
		}
		sh(t, "ip link set eth0 up; sleep 0.05; ip link set eth0 down")
		if diff, err := before.Settle(5 * time.Second); err != nil || diff != "" {
			t.Errorf("got %q, %v", diff, err)
		}
	})
}

func leak(stop <-chan struct{}) { <-stop }

func TestPlug(t *testing.T) {
	Require(t)
	t.Run("frames pass whole in both directions and the far end's kernel says nothing", func(t *testing.T) {
		port, unplug, err := Plug("eth0", MAC(net.HardwareAddr{2, 0, 0, 0, 0, 5}))
		if err != nil {
			t.Fatal(err)
		}
		defer unplug()
		// No IPv6 on the node either, so that it says nothing by itself.
		sh(t, `echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6; ip addr add 192.0.2.1/24 dev eth0; ip link set eth0 up`)
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IP{192, 0, 2, 1}, Port: 9999})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		sh(t, "ip neigh add 192.0.2.2 lladdr 02:00:00:00:00:06 dev eth0")
		body := bytes.Repeat([]byte("nametag "), 180)
		if _, err := c.WriteTo(body, &net.UDPAddr{IP: net.IP{192, 0, 2, 2}, Port: 8888}); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 65536)
		n, err := port.ReadFrame(buf)
		if err != nil || !bytes.HasSuffix(buf[:n], body) || n != 14+20+8+len(body) {
			t.Fatalf("%d bytes, %v", n, err)
		}
		if sum := udpSum(buf[14:n]); sum != 0xffff {
			t.Errorf("the checksum is not complete: %#x", sum)
		}
		// The same packet the other way, addresses swapped: the checksum stays right.
		echo := bytes.Clone(buf[:n])
		copy(echo[0:6], buf[6:12])
		copy(echo[6:12], buf[0:6])
		copy(echo[26:30], buf[30:34])
		copy(echo[30:34], buf[26:30])
		copy(echo[34:36], buf[36:38])
		copy(echo[36:38], buf[34:36])
		if err := port.WriteFrame(echo); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, from, err := c.ReadFrom(buf)
		if err != nil || !bytes.Equal(buf[:n], body) || from.String() != "192.0.2.2:8888" {
			t.Errorf("%d bytes from %v, %v", n, from, err)
		}
		// Nothing else came meanwhile, not even what was written here.
		got := make(chan int, 1)
		go func() {
			n, _ := port.ReadFrame(make([]byte, 65536))
			got <- n
		}()
		select {
		case n := <-got:
			t.Errorf("a frame of %d bytes from nobody", n)
		case <-time.After(50 * time.Millisecond):
		}
		port.Close()
		if n := <-got; n != 0 {
			t.Errorf("a closed port gives %d bytes", n)
		}
	})
	t.Run("a port whose NIC was deleted ends", func(t *testing.T) {
		port, unplug, err := Plug("eth0")
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() {
			_, err := port.ReadFrame(make([]byte, 2048))
			ended <- err
		}()
		sh(t, "ip link del eth0")
		if err := <-ended; !errors.Is(err, io.EOF) {
			t.Errorf("got %v", err)
		}
		if err := unplug(); err != nil {
			t.Error(err)
		}
	})
	t.Run("a name that is taken is an error and leaves nothing", func(t *testing.T) {
		before, err := Snap()
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := Plug("lo"); err == nil || !strings.Contains(err.Error(), "plug lo") {
			t.Errorf("got %v", err)
		}
		if diff, err := before.Settle(5 * time.Second); err != nil || diff != "" {
			t.Errorf("left: %q, %v", diff, err)
		}
	})
}

// udpSum is the one's complement sum over an IPv4 packet's pseudo header and UDP part: 0xffff when the checksum is right.
func udpSum(p []byte) uint16 {
	ihl := int(p[0]&15) * 4
	udp := p[ihl:]
	data := append(append(bytes.Clone(p[12:20]), 0, p[9], byte(len(udp)>>8), byte(len(udp))), udp...)
	if len(data)%2 == 1 {
		data = append(data, 0)
	}
	var sum uint32
	for i := 0; i < len(data); i += 2 {
		sum += uint32(data[i])<<8 | uint32(data[i+1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

func TestNode(t *testing.T) {
	Require(t)
	t.Run("a node is apart from this process and leaves nothing", func(t *testing.T) {
		before, err := Snap()
		if err != nil {
			t.Fatal(err)
		}
		node, err := New(Options{Hostname: "apart"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := node.Plug("eth0"); err != nil {
			t.Fatal(err)
		}
		if _, err := node.Plug("eth0"); err == nil {
			t.Error("two NICs of one name")
		}
		var out bytes.Buffer
		cmd := exec.CommandContext(t.Context(), "sh", "-c", "hostname; ls /sys/class/net")
		cmd.Stdout = &out
		if err := node.Run(cmd); err != nil || out.String() != "apart\neth0\nlo\n" {
			t.Errorf("got %q, %v", out.String(), err)
		}
		if out := sh(t, "hostname; ls /sys/class/net"); strings.Contains(out, "apart") || strings.Contains(out, "eth0") {
			t.Errorf("outside: %s", out)
		}
		inside, err := node.Snap()
		if err != nil {
			t.Fatal(err)
		}
		if diff := before.Diff(inside); !strings.Contains(diff, " eth0 ") {
			t.Errorf("the node's snapshot has no NIC: %s", diff)
		}
		if err := node.Close(); err != nil {
			t.Error(err)
		}
		if err := node.Close(); err != nil {
			t.Errorf("a second time: %v", err)
		}
		if err := node.Do(func() error { return nil }); !errors.Is(err, ErrClosed) {
			t.Errorf("after the end: %v", err)
		}
		if diff, err := before.Settle(5 * time.Second); err != nil || diff != "" {
			t.Errorf("left: %q, %v", diff, err)
		}
	})
}

func BenchmarkSnap(b *testing.B) {
	Require(b)
	for b.Loop() {
		if _, err := Snap(); err != nil {
			b.Fatal(err)
		}
	}
}
