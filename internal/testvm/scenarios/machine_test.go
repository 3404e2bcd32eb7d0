//go:build linux

package scenarios

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/testvm"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/denied"
	"github.com/nametag-boot/nametag/internal/testvm/helpertest"
	"github.com/nametag-boot/nametag/internal/testvm/netns"
	"github.com/nametag-boot/nametag/internal/testvm/patience"
)

// Exit states of nametag resolve.
const (
	exitOK          = 0
	exitFailed      = 1
	exitTimedOut    = 3
	exitPermission  = 5
	exitInterrupted = 6
)

// ship is the command as it ships.
func ship(t *testing.T) string { return helpertest.Binary(t, runtime.GOARCH) }

// An outcome is what became of a process.
type outcome struct {
	exit           int
	stdout, stderr string
	took           time.Duration
	cpu            time.Duration
}

// resolve runs nametag resolve to its end, with hold once it has started.
func resolve(t *testing.T, lab *testvm.Lab, command []string, bound time.Duration, hold func(*os.Process)) outcome {
	t.Helper()
	args := slices.Concat(command[1:], []string{"resolve", "--nic", "eth0", "--wait", bound.String()})
	cmd := lab.Command(command[0], args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	began := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if hold != nil {
		hold(cmd.Process)
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	out := outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String(), time.Since(began), cmd.ProcessState.SystemTime() + cmd.ProcessState.UserTime()}
	lab.OnFailure(func() { t.Log(out) })
	if out.took > bound+patience.Bound(overtime) {
		t.Errorf("it took %v of %v", out.took, bound)
	}
	if out.exit == exitOK && out.stdout != name+"\n" || out.exit != exitOK && out.stdout != "" {
		t.Errorf("exit status %d and on stdout %q", out.exit, out.stdout)
	}
	for _, word := range []string{"panic", "goroutine ", "fatal error", "runtime error"} {
		if strings.Contains(out.stderr, word) {
			t.Errorf("it came to a %s", word)
		}
	}
	return out
}

func (o outcome) String() string {
	return fmt.Sprintf("exit status %d after %v (%v of CPU)\n%s", o.exit, o.took, o.cpu, o.stderr)
}

// Where system calls fail, the process says which and ends as its policy says.
func TestSystemCallsThatFail(t *testing.T) {
	nametag := ship(t)
	for _, c := range []struct {
		about string
		deny  denied.Call
		exits []int
		says  string
	}{
		{"no netlink socket for want of memory", socket(unix.AF_NETLINK, unix.ENOMEM), []int{exitTimedOut}, "cannot allocate memory"},
		{"no netlink socket for want of the right", socket(unix.AF_NETLINK, unix.EPERM), []int{exitPermission}, "operation not permitted"},
		{"no netlink socket for want of descriptors", socket(unix.AF_NETLINK, unix.EMFILE), []int{exitTimedOut}, "too many open files"},
		{"no packet socket: the name comes without DHCP", socket(unix.AF_PACKET, unix.EPERM), []int{exitOK}, ""},
		{"no packet socket for want of memory", socket(unix.AF_PACKET, unix.ENOMEM), []int{exitOK}, ""},
		{"no socket to connect with", socket(unix.AF_INET, unix.ENOBUFS), []int{exitFailed, exitTimedOut}, "no buffer space available"},
		{"no socket may be bound to an interface", denied.Call{Number: unix.SYS_SETSOCKOPT, Arg: 2, Is: unix.SO_BINDTOIFINDEX, Errno: unix.EPERM}, []int{exitTimedOut, exitPermission}, "operation not permitted"},
		{"netlink requests are busy", denied.Call{Number: unix.SYS_SENDMSG, Arg: denied.Any, Errno: unix.EBUSY}, []int{exitTimedOut}, "device or resource busy"},
		{"netlink requests have no memory", denied.Call{Number: unix.SYS_SENDMSG, Arg: denied.Any, Errno: unix.ENOMEM}, []int{exitTimedOut}, "cannot allocate memory"},
		{"netlink always has lost something", denied.Call{Number: unix.SYS_RECVMSG, Arg: denied.Any, Errno: unix.ENOBUFS}, []int{exitTimedOut}, "no buffer space available"},
		{"no random numbers", denied.Call{Number: unix.SYS_GETRANDOM, Arg: denied.Any, Errno: unix.ENOSYS}, []int{exitOK}, ""},
	} {
		t.Run(c.about, func(t *testing.T) {
			lab := testvm.Start(t, cloud.Config{Server: cloud.Server{Hostname: name}})
			bound := 1500 * time.Millisecond
			if slices.Equal(c.exits, []int{exitOK}) {
				bound = ample
			}
			out := resolve(t, lab, denying(t, c.deny, nametag), bound, nil)
			ok := false
			for _, exit := range c.exits {
				ok = ok || exit == out.exit
			}
			if !ok || !strings.Contains(out.stderr, c.says) {
				t.Errorf("want exit status %v and %q: %v", c.exits, c.says, out)
			}
			if out.cpu > 700*time.Millisecond {
				t.Errorf("it went round and round: %v", out)
			}
		})
	}
}

// With any number of descriptors, the process finds the name or says what it is short of.
func TestDescriptorsExhausted(t *testing.T) {
	nametag := ship(t)
	named := 0
	for _, limit := range []int{7, 8, 9, 10, 11, 12, 14, 16, 20, 24} { // Go's runtime alone needs six
		t.Run(fmt.Sprintf("%d descriptors", limit), func(t *testing.T) {
			lab := testvm.Start(t, cloud.Config{Server: cloud.Server{Hostname: name}})
			out := resolve(t, lab, []string{"sh", "-c", fmt.Sprintf(`ulimit -n %d; exec "$0" "$@"`, limit), nametag}, time.Second, nil)
			switch out.exit {
			case exitOK:
				named++
			case exitFailed, exitTimedOut:
				if !strings.Contains(out.stderr, "too many open files") {
					t.Errorf("it does not say what it is short of: %v", out)
				}
			default:
				t.Errorf("%v", out)
			}
		})
	}
	if named == 0 {
		t.Error("no number was enough")
	}
}

// With 64 MiB of memory the process finds the name, whatever it is sent. The kernel's own memory for it counts, and its
// binary too if no other process has it in memory already. The whole of a boot with little memory is in internal/node/boot.
func TestMemoryOf64MiB(t *testing.T) {
	nametag := ship(t)
	for about, fault := range map[string]cloud.Behaviour{
		"a service that answers": cloud.Right(),
		"an endless body":        cloud.Endless(),
		"100 MiB":                hundredMiB(),
		"all of it in turn":      cloud.InTurn(hundredMiB(), cloud.Endless(), hundredMiB(), cloud.Endless(), cloud.Right()),
		"endless headers": cloud.Handler(func(w http.ResponseWriter, _ *http.Request) {
			for i := range 3000 {
				w.Header().Add(fmt.Sprintf("X-Many-%d", i), strings.Repeat("a", 1000))
			}
		}),
	} {
		t.Run(about, func(t *testing.T) {
			cfg := first(time.Second, fault)
			cfg.Server.Hostname = name
			lab := testvm.Start(t, cfg)
			group := newMemoryGroup(t, 64<<20)
			out := resolve(t, lab, group.command(nametag), ample, nil)
			if out.exit != exitOK {
				t.Errorf("%v", out)
			}
			if peak := group.peak(t); peak < 1<<20 {
				t.Errorf("%d bytes at the most: the process was not in the group", peak)
			} else {
				t.Logf("%.1f MiB at the most", float64(peak)/(1<<20))
			}
		})
	}
}

// A memoryGroup is a control group whose processes have so much memory together and no swap.
type memoryGroup struct {
	dir     string
	highest string // the file that has the peak
}

// newMemoryGroup makes one in whichever hierarchy this machine keeps memory.
func newMemoryGroup(t *testing.T, limit int) memoryGroup {
	t.Helper()
	root := t.TempDir()
	files := map[string]int{"memory.limit_in_bytes": limit, "memory.memsw.limit_in_bytes": limit}
	g := memoryGroup{highest: "memory.max_usage_in_bytes"}
	if err := unix.Mount("cgroup", root, "cgroup", 0, "memory"); err != nil {
		files = map[string]int{"memory.max": limit, "memory.swap.max": 0}
		g.highest = "memory.peak"
		if err2 := unix.Mount("cgroup2", root, "cgroup2", 0, ""); err2 != nil {
			t.Skipf("NOT TESTED: no control groups for memory here: %v, %v", err, err2)
		}
	}
	t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
	g.dir = filepath.Join(root, fmt.Sprintf("nametag-test-%d", os.Getpid()))
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		t.Skipf("NOT TESTED: no control group can be made here: %v", err)
	}
	t.Cleanup(func() {
		if err := os.Remove(g.dir); err != nil {
			t.Error(err)
		}
	})
	for _, file := range slices.Sorted(maps.Keys(files)) {
		err := os.WriteFile(filepath.Join(g.dir, file), fmt.Append(nil, files[file]), 0o600)
		if err != nil && !strings.Contains(file, "sw") { // a kernel may count no swap
			t.Skipf("NOT TESTED: the memory of a control group cannot be limited here: %v", err)
		}
	}
	return g
}

// command runs another one in the group.
func (g memoryGroup) command(command string) []string {
	return []string{"sh", "-c", fmt.Sprintf(`echo $$ >%s/cgroup.procs; exec "$0" "$@"`, g.dir), command}
}

// peak is the most that its processes had.
func (g memoryGroup) peak(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(g.dir, g.highest))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A signal, whenever it comes, ends the process and leaves the network as it was.
func TestSIGTERMInEveryPhase(t *testing.T) {
	nametag := ship(t)
	outcomes := map[int]int{}
	signalled := func(after time.Duration) {
		t.Run("after "+after.String(), func(t *testing.T) {
			lab := testvm.Start(t, cloud.Config{Server: cloud.Server{Hostname: name}, Link: far})
			out := resolve(t, lab, []string{nametag}, ample, func(p *os.Process) {
				time.Sleep(after)
				_ = p.Signal(syscall.SIGTERM) // it may have ended
			})
			outcomes[out.exit]++
			switch out.exit {
			case exitOK, exitInterrupted:
			case -1:
				// Before it has asked for signals, the default action is as good: nothing has been touched.
				if out.stderr != "" {
					t.Errorf("killed in the middle: %v", out)
				}
			default:
				t.Errorf("%v", out)
			}
		})
	}
	for _, after := range []time.Duration{
		0, time.Millisecond, 2 * time.Millisecond, 3 * time.Millisecond, 4 * time.Millisecond, 5 * time.Millisecond, 6 * time.Millisecond, 8 * time.Millisecond,
		10 * time.Millisecond, 12 * time.Millisecond, 15 * time.Millisecond, 20 * time.Millisecond, 30 * time.Millisecond, 45 * time.Millisecond,
		60 * time.Millisecond, 75 * time.Millisecond, 90 * time.Millisecond, 120 * time.Millisecond, 200 * time.Millisecond,
	} {
		signalled(after)
	}
	// On a slow machine none of these times may be long enough.
	for after := 400 * time.Millisecond; outcomes[exitOK] == 0 && after < patience.Bound(time.Second); after *= 2 {
		signalled(after)
	}
	if outcomes[exitInterrupted] == 0 || outcomes[exitOK] == 0 {
		t.Errorf("the times were chosen badly: %v", outcomes)
	}
}

// Another DHCP client at work on the same NIC, from before to after. It has set the link up, so that it is not ours to
// set down; a client that begins while the link is up through us, and has no address by the end, would find it down.
func TestAnotherDHCPClient(t *testing.T) {
	const script = `#!/bin/sh
case "$reason$1" in
PREINIT|deconfig) ip link set "$interface" up; : >"$LEASE.begun" ;;
BOUND|bound|RENEW|renew) ip addr replace "${new_ip_address:-$ip}/32" dev "$interface"; : >"$LEASE" ;;
esac
`
	for client, line := range map[string]string{
		"dhclient": "exec dhclient -1 -d -cf /dev/null -sf $DIR/script -lf $DIR/leases -pf $DIR/pid -e LEASE=$LEASE eth0",
		"udhcpc":   "exec udhcpc -i eth0 -f -t 20 -T 1 -s $DIR/script",
	} {
		t.Run(client, func(t *testing.T) {
			if _, err := exec.LookPath(client); err != nil {
				netns.Missing(t, client+" is not installed")
			}
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "script"), []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
			lease := filepath.Join(dir, "lease")
			s := scenario{cloud: first(400*time.Millisecond, cloud.Silent()), lab: []testvm.Option{testvm.KeepTraces()}}
			var daemon *exec.Cmd
			s.before = func(t *testing.T) {
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				t.Cleanup(cancel)
				daemon = exec.CommandContext(ctx, "sh", "-c", line)
				daemon.Env = append(os.Environ(), "DIR="+dir, "LEASE="+lease)
				if err := daemon.Start(); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					_ = daemon.Process.Kill()
					_ = daemon.Wait()
				})
				appears(t, lease+".begun")
			}
			s.play(t)
			appears(t, lease)
			// What is the other's stays: its address, and the link up below it.
			out, err := exec.Command("ip", "-o", "-4", "addr", "show", "dev", "eth0", "up").CombinedOutput()
			if err != nil || !strings.Contains(string(out), "203.0.113.17") || strings.Count(string(out), "inet ") != 1 || strings.Contains(string(out), "169.254.") {
				t.Errorf("the other client's address is not alone there: %s (%v)", out, err)
			}
		})
	}
}

// A service of systemd's may be forbidden netlink (RestrictAddressFamilies=). To ask over the network that is there takes none.
func TestTheSystemsNetworkNeedsNoNetlink(t *testing.T) {
	nametag := ship(t)
	lab := testvm.Start(t, cloud.Config{Server: cloud.Server{Hostname: name}}, testvm.KeepTraces())
	if out, err := lab.Command("sh", "-ec", "ip link set eth0 up; ip addr add 169.254.10.10/16 dev eth0").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	command := append(denying(t, socket(unix.AF_NETLINK, unix.EAFNOSUPPORT), nametag), "resolve", "--host-network", "--wait", ample.String())
	out, err := lab.Command(command[0], command[1:]...).Output()
	if err != nil || string(out) != name+"\n" {
		t.Errorf("%q: %v: %s", out, err, stderr(err))
	}
}

// stderr is what a command that failed has said.
func stderr(err error) string {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return string(exit.Stderr)
	}
	return ""
}

// appears waits for a file.
func appears(t *testing.T, file string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(file); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s never came", filepath.Base(file))
		}
	}
}

// socket is the denial of sockets of a family.
func socket(family int, errno unix.Errno) denied.Call {
	return denied.Call{Number: unix.SYS_SOCKET, Arg: 0, Is: uint32(family), Errno: errno}
}

// envDenied is the environment variable by which the test binary, started as another process, denies itself a system call
// and becomes the command after it.
const envDenied = "NAMETAG_TEST_DENIED"

func denying(t *testing.T, d denied.Call, command string) []string {
	t.Helper()
	return []string{"env", fmt.Sprintf("%s=%d %d %d %d", envDenied, d.Number, d.Arg, d.Is, d.Errno), os.Args[0], command}
}

// act is the process of denying. It does not return.
func act(order string, command []string) {
	var d denied.Call
	if _, err := fmt.Sscan(order, &d.Number, &d.Arg, &d.Is, (*uintptr)(&d.Errno)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(99)
	}
	_ = os.Unsetenv(envDenied)
	if err := d.Impose(); err != nil {
		fmt.Fprintln(os.Stderr, "seccomp:", err)
		os.Exit(99)
	}
	fmt.Fprintln(os.Stderr, unix.Exec(command[0], command, os.Environ()))
	os.Exit(99)
}
