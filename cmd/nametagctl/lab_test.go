//go:build linux

package main

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/nametag-boot/nametag/internal/testvm/netns"
)

// An interrupt that a terminal did not send is the command's as well: from a script, say.
func TestTheLabPassesSignalsOn(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(s.String(), func(t *testing.T) {
			cmd := exec.Command("/proc/self/exe", "lab", "--", "sh", "-c", `trap "echo got it; exit 3" INT QUIT TERM HUP; echo ready; for i in $(seq 300); do sleep 0.1; done`)
			cmd.Env = append(os.Environ(), actAs+"=1")
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // there is no terminal
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(stdout)
			if !lines.Scan() {
				_ = cmd.Wait()
				if strings.Contains(stderr.String(), "netns: no namespaces here") {
					netns.Missing(t, stderr.String())
				}
				t.Fatalf("it did not start: %s", stderr.String())
			}
			if err := cmd.Process.Signal(s); err != nil {
				t.Fatal(err)
			}
			if !lines.Scan() || lines.Text() != "got it" {
				t.Errorf("the command says %q", lines.Text())
			}
			_ = cmd.Wait()
			if got := cmd.ProcessState.ExitCode(); got != 3 {
				t.Errorf("exit status %d, want 3", got)
			}
		})
	}
}

// A DHCP client that goes into the background would stay for ever, in a network that is no more.
func TestWhatTheCommandOfTheLabLeavesRunningEndsWithIt(t *testing.T) {
	cmd := exec.Command("/proc/self/exe", "lab", "--", "sh", "-c", `(setsid sh -c 'exec 2>/dev/null; sleep 1000 >/dev/null & echo $$ $!; exec >/dev/null; wait' & ); sleep 0.5`)
	cmd.Env = append(os.Environ(), actAs+"=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		if strings.Contains(stderr.String(), "netns: no namespaces here") {
			netns.Missing(t, stderr.String())
		}
		t.Fatalf("%v: %s", err, stderr.String())
	}
	pids := strings.Fields(string(out))
	if len(pids) != 2 {
		t.Fatalf("it says %q", out)
	}
	for _, pid := range pids {
		if text, err := os.ReadFile("/proc/" + pid + "/cmdline"); err == nil {
			t.Errorf("process %s is still there: %q", pid, text)
		}
	}
}
