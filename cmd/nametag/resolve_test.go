//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/internal/node/memory"
	"github.com/nametag-boot/nametag/internal/testvm"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
)

const example = "example-controlplane-3d3d26d1-69c5k"

// dmiDir is a /sys/class/dmi/id with these facts.
func dmiDir(t *testing.T, vendor, serial string) string {
	t.Helper()
	dir := t.TempDir()
	for name, value := range map[string]string{"sys_vendor": vendor, "product_serial": serial} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(value+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestResolve(t *testing.T) {
	never := []cloud.Phase{{Until: time.Hour, Answer: cloud.Refused()}}

	for _, scenario := range []struct {
		name   string
		cloud  cloud.Config
		args   []string
		exit   int
		stdout string
		stderr []string // each must stand there
	}{
		{
			name:   "the name alone goes to stdout",
			cloud:  cloud.Config{Server: cloud.Server{Hostname: example}},
			args:   []string{"--nic", "eth0"},
			stdout: example + "\n",
			stderr: []string{"named: " + example},
		},
		{
			name:   "DMI that says Hetzner and the right serial agree with the answer",
			cloud:  cloud.Config{Server: cloud.Server{Hostname: example, InstanceID: "4711"}},
			args:   []string{"--nic", "eth0", "--dmi", dmiDir(t, "Hetzner", "4711")},
			stdout: example + "\n",
		},
		{
			name:   "over DHCP alone",
			cloud:  cloud.Config{Server: cloud.Server{Hostname: example}},
			args:   []string{"--nic", "eth0", "--via", "dhcp"},
			stdout: example + "\n",
			stderr: []string{"eth0 (dhcp)"},
		},
		{
			name:   "the kernel argument's own syntax names the NIC",
			cloud:  cloud.Config{Server: cloud.Server{Hostname: example}},
			args:   []string{"--wait", "30s,nic=eth0,via=linklocal"},
			stdout: example + "\n",
		},
		{
			name:   "another vendor's machine is not asked about",
			args:   []string{"--nic", "eth0", "--dmi", dmiDir(t, "QEMU", "")},
			exit:   exitNotPresent,
			stderr: []string{"not on hetzner", `"QEMU"`},
		},
		{
			name:   "time is up, and every path's last error is told",
			cloud:  cloud.Config{Metadata: never},
			args:   []string{"--nic", "eth0", "--wait", "3s"},
			exit:   exitTimedOut,
			stderr: []string{"no valid name from hetzner in ", "eth0/linklocal", "connection refused", "eth0/dhcp"},
		},
		{
			name:   "another server's answer is not taken",
			cloud:  cloud.Config{Server: cloud.Server{Hostname: "other", InstanceID: "1"}},
			args:   []string{"--nic", "eth0", "--wait", "3s", "--dmi", dmiDir(t, "Hetzner", "4711")},
			exit:   exitTimedOut,
			stderr: []string{`the answer is for instance "1", but this machine's serial is "4711"`},
		},
		{
			name:   "a veth is not taken unless it is named",
			args:   []string{"--wait", "1s"},
			exit:   exitTimedOut,
			stderr: []string{"eth0: ignored: a veth", "name it exactly"},
		},
		{
			name:   "a bare number is asked about",
			args:   []string{"--wait", "90"},
			exit:   exitUsage,
			stderr: []string{"did you mean 90s?"},
		},
		{
			name:   "waiting that is switched off has nothing to do",
			args:   []string{"--wait", "off"},
			exit:   exitUsage,
			stderr: []string{"nothing to do"},
		},
		{
			name:   "an unknown output format",
			args:   []string{"--output", "yaml"},
			exit:   exitUsage,
			stderr: []string{"hostname, json or env"},
		},
		{
			name:   "an argument that is no flag",
			args:   []string{"eth0"},
			exit:   exitUsage,
			stderr: []string{`not "eth0"`},
		},
	} {
		t.Run(scenario.name, func(t *testing.T) {
			testvm.Start(t, scenario.cloud)
			exit, stdout, stderr := said(t, append([]string{"resolve"}, scenario.args...)...)
			if exit != scenario.exit {
				t.Errorf("exit status %d, want %d", exit, scenario.exit)
			}
			if stdout != scenario.stdout {
				t.Errorf("stdout is %q, want %q", stdout, scenario.stdout)
			}
			for _, want := range scenario.stderr {
				if !strings.Contains(stderr, want) {
					t.Errorf("stderr does not say %q", want)
				}
			}
			if t.Failed() {
				t.Logf("stderr:\n%s", stderr)
			}
		})
	}
}

// rootThatRemembers is a system's root with the name of an earlier boot.
func rootThatRemembers(t *testing.T, name, instance string) string {
	t.Helper()
	root := t.TempDir()
	if err := (memory.Name{Hostname: name, InstanceID: instance}).Write(filepath.Join(root, memory.Path)); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestResolveWhereTheNameIsKnownFromAnEarlierBoot(t *testing.T) {
	never := cloud.Config{Metadata: []cloud.Phase{{Until: time.Hour, Answer: cloud.Refused()}}}
	there := cloud.Config{Server: cloud.Server{Hostname: "web-2", InstanceID: "42"}}
	for _, scenario := range []struct {
		name, wait, instance string
		cloud                cloud.Config
		exit                 int
		stdout, stderr       string
	}{
		{"the service is down", "1m,known=1s", "42", never, 0, "web-1\n", "going on under the name"},
		{"it is down, and the time is up first", "1s", "42", never, 0, "web-1\n", "going on under the name"},
		{"it is down, known=off", "1s,known=off", "42", never, exitTimedOut, "", "no valid name"},
		{"it is down, and the name is another instance's", "1s", "7", never, exitTimedOut, "", "counts for nothing"},
		{"renamed", "1m", "42", there, 0, "web-2\n", "it was web-1"},
		{"renamed, which is to stop it", "3s,rename=stop", "42", there, exitTimedOut, "", "rename=stop"},
	} {
		t.Run(scenario.name, func(t *testing.T) {
			lab := testvm.Start(t, scenario.cloud)
			cmd := nametag(lab, "nametag", "resolve", "--nic", "eth0", "--dmi", dmiDir(t, "Hetzner", "42"),
				"--wait", scenario.wait, "--root", rootThatRemembers(t, "web-1", scenario.instance))
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			if got := exitOf(t, cmd.Run()); got != scenario.exit {
				t.Errorf("exit status %d, want %d", got, scenario.exit)
			}
			if stdout.String() != scenario.stdout || !strings.Contains(stderr.String(), scenario.stderr) {
				t.Errorf("it printed %q and said\n%s", &stdout, &stderr)
			}
			if diff := lab.Changes(); diff != "" {
				t.Errorf("the network is not what it was:\n%s", diff)
			}
		})
	}
}

func TestResolveAsJSONTellsAllThatIsKnown(t *testing.T) {
	testvm.Start(t, cloud.Config{Server: cloud.Server{Hostname: example, InstanceID: "4711"}})
	exit, stdout, stderr := said(t, "resolve", "--nic", "eth0", "--output", "json", "--log", "json")
	if exit != exitOK {
		t.Fatalf("exit status %d: %s", exit, stderr)
	}
	var id identity.Identity
	if err := json.Unmarshal([]byte(stdout), &id); err != nil {
		t.Fatal(err)
	}
	if id.Hostname != example || id.InstanceID != "4711" || id.Path.Interface != "eth0" || len(id.Timeline) == 0 {
		t.Errorf("the identity is not whole: %s", stdout)
	}
	for line := range strings.Lines(stderr) {
		var event identity.Event
		if err := json.Unmarshal([]byte(line), &event); err != nil || event.Kind == 0 {
			t.Errorf("a line of the log is no event: %q: %v", line, err)
		}
	}
}

func TestResolveWithoutCapabilitiesSaysSoInOneLine(t *testing.T) {
	lab := testvm.Start(t, cloud.Config{})
	cmd := nametag(lab, "nametag without capabilities", "resolve", "--nic", "eth0", "--log", "off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if got := exitOf(t, cmd.Run()); got != exitPermission {
		t.Errorf("exit status %d, want %d", got, exitPermission)
	}
	said := stderr.String()
	if strings.Count(said, "\n") != 1 || !strings.Contains(said, "CAP_NET_ADMIN") {
		t.Errorf("it says %q, want one line that names the capabilities", said)
	}
}

func TestResolveThatIsTerminatedPutsTheNetworkBack(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		t.Run(signal.String(), func(t *testing.T) {
			lab := testvm.Start(t, cloud.Config{Metadata: []cloud.Phase{{Until: time.Hour, Answer: cloud.Silent()}}})
			cmd := nametag(lab, "nametag", "resolve", "--nic", "eth0")
			stderr, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			// The link stands and the question is asked when the first attempt is told.
			said := waitFor(t, stderr, "trying")
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			rest, _ := io.ReadAll(stderr)
			if got := exitOf(t, cmd.Wait()); got != exitInterrupted {
				t.Errorf("exit status %d, want %d; it said:\n%s%s", got, exitInterrupted, said, rest)
			}
			if diff := lab.Changes(); diff != "" {
				t.Errorf("the network is not what it was:\n%s", diff)
			}
		})
	}
}

// waitFor reads until a text has come, and returns what was read.
func waitFor(t *testing.T, r io.Reader, text string) string {
	t.Helper()
	var said bytes.Buffer
	for buf := make([]byte, 1024); !strings.Contains(said.String(), text); {
		n, err := r.Read(buf)
		said.Write(buf[:n])
		if err != nil {
			t.Fatalf("it never said %q: %v\n%s", text, err, &said)
		}
	}
	return said.String()
}

func exitOf(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	t.Fatal(err)
	return -1
}

func TestAnIdentityAsShellAssignments(t *testing.T) {
	var out bytes.Buffer
	err := write(&out, "env", &identity.Identity{
		Hostname: "db-1.example.com", Domain: "example.com", InstanceID: "7", IDProvenBy: identity.ProofDMI, Region: "eu-central",
		PublicIPv4:      netip.MustParseAddr("203.0.113.17"),
		PrivateNetworks: []identity.PrivateNetwork{{IP: netip.MustParseAddr("10.0.0.2")}, {IP: netip.MustParseAddr("10.1.0.2")}},
		Source:          "hetzner", Path: identity.PathInfo{Interface: "eth0", Method: "dhcp"},
	})
	const want = `NAMETAG_HOSTNAME=db-1.example.com
NAMETAG_SHORT_HOSTNAME=db-1
NAMETAG_DOMAIN=example.com
NAMETAG_INSTANCE_ID=7
NAMETAG_REGION=eu-central
NAMETAG_AVAILABILITY_ZONE=
NAMETAG_PUBLIC_IPV4=203.0.113.17
NAMETAG_PRIVATE_IPV4='10.0.0.2 10.1.0.2'
NAMETAG_ID_PROVEN_BY=dmi
NAMETAG_SOURCE=hetzner
NAMETAG_INTERFACE=eth0
NAMETAG_METHOD=dhcp
`
	if err != nil || out.String() != want {
		t.Errorf("it is\n%s%v\nwant\n%s", &out, err, want)
	}
}

func TestQuoteIsSafeForAShell(t *testing.T) {
	for in, want := range map[string]string{
		"":                "",
		"my-server":       "my-server",
		"10.0.0.2":        "10.0.0.2",
		"a b":             "'a b'",
		"it's":            `'it'\''s'`,
		"$(reboot)":       "'$(reboot)'",
		"two\nlines=evil": "'twolines=evil'",
		"nul\x00":         "nul",
	} {
		if got := quote(in); got != want {
			t.Errorf("quote(%q) is %s, want %s", in, got, want)
		}
	}
}
