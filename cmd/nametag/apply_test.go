//go:build linux

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/internal/node/memory"
	"github.com/nametag-boot/nametag/internal/testvm"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/patience"
)

// A boot's apply is started as systemd starts it, on a server whose metadata service is silent, in namespaces of its own: its
// hostname, its /run and its network are not this machine's.
func applyAtABoot(t *testing.T, wait string) (lab *testvm.Lab, root string, cmd *exec.Cmd, said *bytes.Buffer) {
	t.Helper()
	lab = testvm.Start(t, cloud.Config{Server: cloud.Server{Hostname: "web-1", InstanceID: "42"}, Metadata: []cloud.Phase{{Until: time.Hour, Answer: cloud.Silent()}}})
	root = t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	said = new(bytes.Buffer)
	// then=continue, and as a service of systemd: nobody reboots this machine.
	cmd = lab.Command("unshare", "--mount", "--uts", "sh", "-c", `mount -t tmpfs none /run && hostname unnamed && exec "$0" "$@"`,
		testBinary(t), "apply", "--at-boot", "--root", root, "--wait", wait+",nic=eth0,then=continue")
	cmd.Env = append(os.Environ(), actAs+"=nametag", quickExit, "INVOCATION_ID=a-test", "NOTIFY_SOCKET=/nowhere")
	cmd.Stdout, cmd.Stderr = said, said
	cmd.WaitDelay = time.Minute // for a child that has them too
	return lab, root, cmd, said
}

// worker is the process of an apply that meets the network.
func worker(t *testing.T, root string) *os.Process {
	t.Helper()
	for end := time.Now().Add(patience.Bound(20 * time.Second)); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, line := range lines {
			text, _ := os.ReadFile(line)
			if strings.HasPrefix(string(text), applyWorkerName+"\x00") && strings.Contains(string(text), root) {
				pid, err := strconv.Atoi(filepath.Base(filepath.Dir(line)))
				if err != nil {
					t.Fatal(err)
				}
				p, err := os.FindProcess(pid)
				if err != nil {
					t.Fatal(err)
				}
				return p
			}
		}
	}
	t.Fatal("there is no worker")
	return nil
}

// used waits until the links are in use.
func used(t *testing.T, lab *testvm.Lab) {
	t.Helper()
	for end := time.Now().Add(patience.Bound(20 * time.Second)); lab.Changes() == ""; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no link is in use")
		}
	}
}

func TestAnApplyWhoseProcessIsKilledWhileItAsks(t *testing.T) {
	t.Run("a node that knows its name goes on under it, and its network is as it was", func(t *testing.T) {
		lab, root, cmd, said := applyAtABoot(t, "20m,known=10m")
		if err := (memory.Name{Hostname: "web-0", InstanceID: "42", Since: time.Now()}).Remember(root); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		asks := worker(t, root)
		used(t, lab)
		if err := asks.Kill(); err != nil {
			t.Fatal(err)
		}
		if exit := exitOf(t, cmd.Wait()); exit != exitOK {
			t.Errorf("exit status %d: %s", exit, said)
		}
		if name, err := os.ReadFile(filepath.Join(root, "etc/hostname")); string(name) != "web-0\n" {
			t.Errorf("/etc/hostname: %q, %v; it said %s", name, err, said)
		}
		if diff := lab.Changes(); diff != "" {
			t.Errorf("the network is not what it was:\n%s", diff)
		}
	})
	t.Run("and whoever waits for it: nobody goes on to ask", func(t *testing.T) {
		lab, root, cmd, _ := applyAtABoot(t, "20m")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		asks := worker(t, root)
		used(t, lab)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		gone := func() bool { return asks.Signal(syscall.Signal(0)) != nil }
		for end := time.Now().Add(patience.Bound(20 * time.Second)); !gone(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				_ = asks.Kill()
				t.Fatal("it goes on")
			}
		}
		if diff := lab.Changes(); diff != "" {
			t.Errorf("the network is not what it was:\n%s", diff)
		}
	})
	t.Run("one that knows none asks once more", func(t *testing.T) {
		lab, root, cmd, said := applyAtABoot(t, "20m")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		first := worker(t, root)
		used(t, lab)
		if err := first.Kill(); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(patience.Bound(20 * time.Second)); worker(t, root).Pid == first.Pid; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("nobody asks")
			}
		}
		used(t, lab)
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if exit := exitOf(t, cmd.Wait()); exit != exitInterrupted {
			t.Errorf("exit status %d: %s", exit, said)
		}
		if diff := lab.Changes(); diff != "" {
			t.Errorf("the network is not what it was:\n%s", diff)
		}
	})
}
