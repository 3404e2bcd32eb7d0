//go:build linux

package main

import (
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
)

func TestResolveWhoseTerminalOrReaderGoesAwayPutsTheNetworkBack(t *testing.T) {
	silent := cloud.Config{Metadata: []cloud.Phase{{Until: time.Hour, Answer: cloud.Silent()}}}
	start := func(t *testing.T, args ...string) (*testvm.Lab, *exec.Cmd, io.ReadCloser) {
		t.Helper()
		lab := testvm.Start(t, silent)
		cmd := nametag(lab, "nametag", append([]string{"resolve", "--nic", "eth0"}, args...)...)
		stderr, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return lab, cmd, stderr
	}
	t.Run("a hangup that the caller has it ignore stays ignored", func(t *testing.T) {
		lab := testvm.Start(t, silent)
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := lab.Command("sh", "-c", `trap "" HUP; exec "$@"`, "sh", self, "resolve", "--nic", "eth0", "--wait", "4s") // so much for "trying", on a busy machine
		cmd.Env = append(os.Environ(), actAs+"=nametag")
		stderr, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		said := waitFor(t, stderr, "trying")
		if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		rest, _ := io.ReadAll(stderr)
		if got := exitOf(t, cmd.Wait()); got != exitTimedOut {
			t.Errorf("exit status %d, want %d; it said:\n%s%s", got, exitTimedOut, said, rest)
		}
	})
	t.Run("a reader of its progress that leaves early is no reason to end", func(t *testing.T) {
		lab, cmd, stderr := start(t, "--wait", "4s")
		waitFor(t, stderr, "link set up") // there is more to be said while the link is ours
		stderr.Close()
		if got := exitOf(t, cmd.Wait()); got != exitTimedOut {
			t.Errorf("exit status %d, want %d", got, exitTimedOut)
		}
		if diff := lab.Changes(); diff != "" {
			t.Errorf("the network is not what it was:\n%s", diff)
		}
	})
}
