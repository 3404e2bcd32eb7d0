//go:build linux

package main

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nametag-boot/nametag/internal/testvm/lab"
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

// A source for another cloud is tried with that cloud's own documents.
func TestTheLabServesTheTreeOfAnotherCloud(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		netns.Missing(t, "curl")
	}
	tree := t.TempDir()
	if err := os.MkdirAll(filepath.Join(tree, "latest/meta-data"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"latest/meta-data/hostname": "ip-10-0-0-7.ec2.internal", "latest/meta-data/instance-id": "i-7", "secret": "not theirs"} {
		if err := os.WriteFile(filepath.Join(tree, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct{ about, path, want string }{
		{"a file is its bytes", "latest/meta-data/hostname", "ip-10-0-0-7.ec2.internal 200"},
		{"a folder is its names", "latest", "meta-data/ 200"},
		{"with a slash behind it too", "latest/meta-data/", "hostname\ninstance-id 200"},
		{"what is not there is not found", "hetzner/v1/metadata", "404 page not found\n 404"},
		{"nothing is outside of the folder", "latest/meta-data/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "404 page not found\n 404"},
	} {
		t.Run(tt.about, func(t *testing.T) {
			got := nametagctl(t, "lab", "--tree", tree, "--", "sh", "-c",
				"ip address add 169.254.7.7/32 dev eth0; ip link set eth0 up; ip route add 169.254.169.254 dev eth0; exec curl -s --path-as-is --retry 5 --retry-connrefused --max-time 20 -w ' %{http_code}' http://169.254.169.254/"+tt.path)
			if got.stdout != tt.want {
				t.Errorf("exit %d: %q, not %q: %s", got.exit, got.stdout, tt.want, got.stderr)
			}
		})
	}
	if got := nametagctl(t, "lab", "--tree", "/no/such/folder", "--", "true"); got.exit != lab.StatusFailed || !strings.Contains(got.stderr, "--tree") {
		t.Errorf("a folder that is not there: exit %d, %q", got.exit, got.stderr)
	}
}
