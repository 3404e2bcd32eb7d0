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

// comes waits for it.
func comes(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience.Bound(20 * time.Second)); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// asking is the process of an apply that meets the network, and is another than the one before, once the links are in use. (An
// os.Process has a descriptor, which the lab would see come and go.)
func asking(t *testing.T, lab *testvm.Lab, root string, before int) (pid int) {
	t.Helper()
	comes(t, "a process that asks", func() bool {
		lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, line := range lines {
			text, _ := os.ReadFile(line)
			if !strings.HasPrefix(string(text), applyWorkerName+"\x00") || !strings.Contains(string(text), root) {
				continue
			}
			var err error
			if pid, err = strconv.Atoi(filepath.Base(filepath.Dir(line))); err != nil {
				t.Fatal(err)
			}
			if pid != before {
				return true
			}
		}
		return false
	})
	comes(t, "links in use", func() bool { return lab.Changes() != "" })
	return pid
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
		asks := asking(t, lab, root, 0)
		if err := syscall.Kill(asks, syscall.SIGKILL); err != nil {
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
		asks := asking(t, lab, root, 0)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		t.Cleanup(func() {
			if t.Failed() { // else it is gone, and its number may be another's
				_ = syscall.Kill(asks, syscall.SIGKILL)
			}
		})
		comes(t, "the end of the one that asks", func() bool { return syscall.Kill(asks, 0) != nil })
		if diff := lab.Changes(); diff != "" {
			t.Errorf("the network is not what it was:\n%s", diff)
		}
	})
	t.Run("one that knows none asks once more", func(t *testing.T) {
		lab, root, cmd, said := applyAtABoot(t, "20m")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		first := asking(t, lab, root, 0)
		if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		asking(t, lab, root, first)
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
