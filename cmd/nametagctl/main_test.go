//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/cli"
	"github.com/nametag-boot/nametag/internal/testvm/lab"
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
		{"there is none", []string{"lab"}, cli.Usage, "no command given"},
		{"an unknown flag", []string{"lab", "--speed", "--", "true"}, cli.Usage, "--help"},
		{"a share that is none", []string{"lab", "--loss", "2", "--", "true"}, cli.Usage, "a share is from 0 to 1"},
		{"an unknown shape", []string{"lab", "--shape", "round", "--", "true"}, cli.Usage, "choose public, private"},
		{"an unknown behaviour", []string{"lab", "--metadata-until-then", "odd", "--", "true"}, cli.Usage, "an HTTP status"},
		{"a capture that cannot be written", []string{"lab", "--pcap", "/no/such/folder/file", "--", "true"}, lab.StatusFailed, "no such file"},
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
	last := regexp.MustCompile(`^demo: without nametag the service started as talos-[a-z0-9]{3}-[a-z0-9]{3}; with nametag as ` + lab.Default().Hostname + ` after \d+\.\ds$`)
	if !last.MatchString(lines[len(lines)-1]) {
		t.Errorf("the last line is %q", lines[len(lines)-1])
	}
}

func TestTheInsideOfTheDemoTouchesNoHost(t *testing.T) {
	if got := nametagctl(t, "demo-boot", "with"); got.exit != cli.Usage || !strings.Contains(got.stderr, "run by demo") {
		t.Errorf("exit status %d: %s", got.exit, got.stderr)
	}
}

func TestAWordThatIsNoCommandIsRefused(t *testing.T) {
	for _, scenario := range []struct {
		args []string
		says string
	}{
		{[]string{"nonsense"}, `"nonsense" is no command of nametagctl; 'nametagctl --help' lists them`},
		{[]string{"extensoin"}, "did you mean extension?"},
		{[]string{"uki", "edti", "vmlinuz.efi"}, "did you mean edit?"},
		{[]string{"initramfs", "ad", "initramfs.xz"}, "did you mean add?"},
		{[]string{"cmdline", "chekc"}, "did you mean check?"},
		{[]string{"completion", "csh"}, `"csh" is no command of nametagctl completion`},
		{[]string{"help", "nonsense"}, `"nonsense" is no command of nametagctl`},
		{[]string{"help", "uki", "nonsense"}, `"nonsense" is no command of nametagctl uki`},
		{[]string{"version", "more"}, `version takes no arguments, and this is one: "more"`},
		{[]string{"extension", "more"}, "extension takes no arguments"},
	} {
		t.Run(strings.Join(scenario.args, " "), func(t *testing.T) {
			got := nametagctl(t, scenario.args...)
			if got.exit != cli.Usage || got.stdout != "" || !strings.Contains(got.stderr, scenario.says) {
				t.Errorf("exit status %d, %q, and on stderr %q; want %q", got.exit, got.stdout, got.stderr, scenario.says)
			}
		})
	}
}

func TestHelpIsNoFailure(t *testing.T) {
	for _, args := range [][]string{
		nil,
		{"--help"},
		{"help"},
		{"help", "uki"},
		{"help", "uki", "edit"},
		{"uki"},
		{"uki", "--help"},
		{"uki", "edit", "--help"},
		{"initramfs", "-h"},
		{"completion"},
		{"completion", "bash"},
		{"--version"},
	} {
		if got := nametagctl(t, args...); got.exit != cli.OK || got.stdout == "" || got.stderr != "" {
			t.Errorf("%q: exit status %d, %d bytes, and on stderr %q", args, got.exit, len(got.stdout), got.stderr)
		}
	}
}

func TestEveryCommandTellsItsExitStatusAndHasAnExample(t *testing.T) {
	var look func(*cobra.Command)
	look = func(cmd *cobra.Command) {
		if cmd.Hidden {
			return
		}
		if cmd.Runnable() && !strings.Contains(cmd.Long, "exit status") {
			t.Errorf("%s does not tell its exit status", cmd.CommandPath())
		}
		if cmd.Example == "" && cmd.Name() != "version" {
			t.Errorf("%s has no example", cmd.CommandPath())
		}
		for _, c := range cmd.Commands() {
			look(c)
		}
	}
	look(rootCommand())
}

func TestAShellIsOfferedTheValuesOfFlags(t *testing.T) {
	for _, scenario := range []struct {
		args []string
		want string
	}{
		{[]string{"uki", "edit", "--output", ""}, "text\njson\n:4\n"},
		{[]string{"extension", "--output", ""}, "text\njson\nprofile\n:4\n"},
		{[]string{"extension", "--arch", ""}, "amd64\narm64\n:4\n"},
		{[]string{"lab", "--shape", ""}, "public\nprivate\nipv6-only\ndead\n:4\n"},
		{[]string{"version", ""}, ":4\n"},
		{[]string{"uki", "inspect", ""}, ":0\n"}, // a file
	} {
		if got := nametagctl(t, append([]string{"__complete"}, scenario.args...)...); got.stdout != scenario.want {
			t.Errorf("%q: %q, want %q", scenario.args, got.stdout, scenario.want)
		}
	}
}

// A pipe that nobody writes to is not opened: that would wait, and no signal would end it.
func TestAPipeIsNoImage(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"uki", "inspect", pipe},
		{"uki", "edit", pipe, "--wait", "2m"},
		{"initramfs", "inspect", pipe},
		{"initramfs", "remove", pipe},
		{"cmdline", "check", "--image", pipe, "talos.hostname.wait=2m"},
	} {
		if got := nametagctl(t, args...); got.exit != cli.Failed || !strings.Contains(got.stderr, "not a regular file") {
			t.Errorf("%q: exit status %d: %s", args, got.exit, got.stderr)
		}
	}
}

// Who waits for a line on standard input can be interrupted.
func TestCheckIsInterruptedWhileItReads(t *testing.T) {
	cmd := exec.Command("/proc/self/exe", "cmdline", "check", "-")
	cmd.Env = append(os.Environ(), actAs+"=1")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitUntilItReads(t, cmd.Process.Pid)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !ws.Signaled() {
		t.Errorf("it ended by itself: %v", cmd.ProcessState)
	}
}

// waitUntilItReads waits until a thread of the process is in read(2) of its standard input.
func waitUntilItReads(t *testing.T, pid int) {
	t.Helper()
	reads := fmt.Sprintf("%d 0x0 ", unix.SYS_READ)
	for range 1000 {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, thread := range threads {
			if b, err := os.ReadFile(thread); err == nil && strings.HasPrefix(string(b), reads) {
				return
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Skip("skipped: what the process does cannot be seen here")
}

func TestVersion(t *testing.T) {
	if got := nametagctl(t, "version"); got.exit != 0 || !strings.HasPrefix(got.stdout, "nametagctl ") {
		t.Errorf("exit status %d: %q", got.exit, got.stdout)
	}
	if got := nametagctl(t, "nonsense"); got.exit != cli.Usage {
		t.Errorf("an unknown command ends with %d", got.exit)
	}
}
