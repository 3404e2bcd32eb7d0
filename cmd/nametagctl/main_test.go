package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/nametag-boot/nametag/internal/testvm/netns"
)

// actAs makes the test binary be nametagctl itself.
const actAs = "NAMETAG_TEST_ACT_AS_CTL"

func TestMain(m *testing.M) {
	if os.Getenv(actAs) != "" {
		main()
	}
	os.Exit(m.Run())
}

// A said is what a command printed and how it ended.
type said struct {
	exit           int
	stdout, stderr string
}

// nametagctl runs the command as a process of its own.
func nametagctl(t *testing.T, args ...string) said {
	t.Helper()
	return nametagctlAs(t, nil, args...)
}

func nametagctlAs(t *testing.T, user *syscall.Credential, args ...string) said {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = "nametagctl"
	cmd.Env = append(os.Environ(), actAs+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: user}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	s := said{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
	if strings.Contains(s.stderr, "netns: no namespaces here") {
		netns.Missing(t, s.stderr)
	}
	return s
}

func TestTheLabEndsAsItsCommandDoes(t *testing.T) {
	notExecutable := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(notExecutable, []byte("hello"), 0o644); err != nil { //nolint:gosec // anybody may read it
		t.Fatal(err)
	}
	for _, scenario := range []struct {
		name string
		args []string
		exit int
		says string // on stderr
	}{
		{"it succeeds", []string{"lab", "--", "true"}, 0, ""},
		{"it fails", []string{"lab", "--", "sh", "-c", "exit 7"}, 7, ""},
		{"it is killed", []string{"lab", "--", "sh", "-c", "kill -9 $$"}, 137, ""},
		{"it is not found", []string{"lab", "--", "no-such-command"}, 127, "no-such-command"},
		{"it cannot be run", []string{"lab", "--", notExecutable}, 126, "permission denied"},
		{"there is none", []string{"lab"}, exitUsage, "no command given"},
		{"an unknown flag", []string{"lab", "--speed", "--", "true"}, exitUsage, "--help"},
		{"a share that is none", []string{"lab", "--loss", "2", "--", "true"}, exitLab, "not within 0 and 1"},
		{"an unknown shape", []string{"lab", "--shape", "round", "--", "true"}, exitUsage, "choose public, private"},
		{"an unknown behaviour", []string{"lab", "--metadata-until-then", "odd", "--", "true"}, exitUsage, "an HTTP status"},
		{"a capture that cannot be written", []string{"lab", "--pcap", "/no/such/folder/file", "--", "true"}, exitLab, "no such file"},
	} {
		t.Run(scenario.name, func(t *testing.T) {
			got := nametagctl(t, scenario.args...)
			if got.exit != scenario.exit {
				t.Errorf("exit status %d, want %d: %s", got.exit, scenario.exit, got.stderr)
			}
			if !strings.Contains(got.stderr, scenario.says) || scenario.says == "" && got.stderr != "" {
				t.Errorf("stderr says %q, want %q", got.stderr, scenario.says)
			}
		})
	}
}

func TestInTheLabEth0IsDownAndThereIsNothingElse(t *testing.T) {
	got := nametagctl(t, "lab", "--shape", "public", "--shape", "private", "--", "cat", "/proc/net/dev")
	if got.exit != 0 {
		t.Fatalf("exit status %d: %s", got.exit, got.stderr)
	}
	names := regexp.MustCompile(`(?m)^\s*(\S+):`).FindAllStringSubmatch(got.stdout, -1)
	var found []string
	for _, n := range names {
		found = append(found, n[1])
	}
	if strings.Join(found, " ") != "lo eth0 eth1" {
		t.Errorf("the interfaces are %q", found)
	}
	if got := nametagctl(t, "lab", "--", "cat", "/sys/class/net/eth0/flags"); strings.TrimSpace(got.stdout) != "0x1002" {
		t.Errorf("eth0's flags are %s, want 0x1002: broadcast and multicast, not up", got.stdout)
	}
}

func TestTheLabRunsWithoutRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("skipped: it already does")
	}
	got := nametagctlAs(t, &syscall.Credential{Uid: 65534, Gid: 65534}, "lab", "--", "sh", "-c", "id -u; exit 3")
	if got.exit != 3 || strings.TrimSpace(got.stdout) != "0" {
		t.Errorf("exit status %d, %q: %s; want 3, and root in the lab", got.exit, got.stdout, got.stderr)
	}
}

func TestTheDemoNamesBothOutcomes(t *testing.T) {
	got := nametagctl(t, "demo")
	if got.exit != 0 {
		t.Errorf("exit status %d: %s", got.exit, got.stderr)
	}
	lines := strings.Split(strings.TrimSpace(got.stdout), "\n")
	last := regexp.MustCompile(`^demo: without nametag the service started as talos-[a-z0-9]{3}-[a-z0-9]{3}; with nametag as ` + demoHostname + ` after \d+\.\ds$`)
	if !last.MatchString(lines[len(lines)-1]) {
		t.Errorf("the last line is %q", lines[len(lines)-1])
	}
}

func TestTheInsideOfTheDemoTouchesNoHost(t *testing.T) {
	if got := nametagctl(t, "demo-boot", "with"); got.exit != exitUsage || !strings.Contains(got.stderr, "run by demo") {
		t.Errorf("exit status %d: %s", got.exit, got.stderr)
	}
}

func TestVersion(t *testing.T) {
	if got := nametagctl(t, "version"); got.exit != 0 || !strings.HasPrefix(got.stdout, "nametagctl ") {
		t.Errorf("exit status %d: %q", got.exit, got.stdout)
	}
	if got := nametagctl(t, "nonsense"); got.exit != exitUsage {
		t.Errorf("an unknown command ends with %d", got.exit)
	}
}
