//go:build linux

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/nametag-boot/nametag/internal/testvm"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/helpertest"
	"github.com/nametag-boot/nametag/internal/testvm/netns"
)

// A user's capabilities × what is given for the id's proof, with the file modes that the kernel has.
func TestResolveByRights(t *testing.T) {
	if _, err := exec.LookPath("setpriv"); err != nil {
		netns.Missing(t, "setpriv is not installed; apt-get install util-linux")
	}
	const links, serial = "net_admin,net_raw", "net_admin,net_raw,dac_read_search"
	host := slices.Clip([]string{"--host-network"})
	const soon = "3s" // for an answer on a busy machine
	for _, c := range []struct {
		about string
		caps  string
		args  []string
		exit  int
		says  string
	}{
		{"without any", "", nil, exitFailed, "can be read by root only"},
		{"without any, the id given", "", []string{"--expect-id", "42"}, exitPermission, "CAP_NET_ADMIN"},
		{"for links", links, nil, exitFailed, "--expect-id"},
		{"for links, the id given", links, []string{"--expect-id", "42"}, exitOK, ""},
		{"for links, another id given", links, []string{"--expect-id", "43", "--wait", soon}, exitTimedOut, `the answer is for instance "42"`},
		{"for links, any id allowed", links, []string{"--id", "unproven"}, exitOK, "nothing proves"},
		{"for links and the serial number", serial, nil, exitOK, ""},
		{"over the system's network, without any", "", host, exitFailed, "can be read by root only"},
		{"over the system's network, the id given", "", append(host, "--expect-id", "42"), exitOK, ""},
		{"over the system's network, another id given", "", append(host, "--expect-id", "43", "--wait", soon), exitTimedOut, `the answer is for instance "42"`},
		{"over the system's network, any id allowed", "", append(host, "--id", "unproven"), exitOK, "nothing proves"},
		{"over the system's network, for the serial number", "dac_read_search", host, exitOK, ""},
	} {
		t.Run(c.about, func(t *testing.T) {
			lab := testvm.Start(t, cloud.Config{Server: cloud.Server{Hostname: "web-1"}})
			program, facts := forNobody(t, lab)
			args := append(nobody(c.caps), program, "resolve", "--log", "plain", "--dmi", facts)
			if len(c.args) > 0 && c.args[0] == host[0] {
				defer ownNetwork(t, lab)()
			} else {
				args = append(args, "--nic", "eth0")
			}
			cmd := lab.Command("setpriv", append(args, c.args...)...)
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			if got := exitOf(t, cmd.Run()); got != c.exit {
				t.Errorf("exit status %d, want %d: %s", got, c.exit, &stderr)
			}
			if named := stdout.String() == "web-1\n"; named != (c.exit == exitOK) || !strings.Contains(stderr.String(), c.says) {
				t.Errorf("it prints %q and says %s", &stdout, &stderr)
			}
		})
	}
}

// ownNetwork gives the system a network, and returns what takes it away.
func ownNetwork(t *testing.T, lab *testvm.Lab) func() {
	t.Helper()
	sh := func(script string) {
		if out, err := lab.Command("sh", "-ec", script).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	sh("ip link set eth0 up; ip addr add 169.254.10.10/16 dev eth0")
	return func() { sh("ip addr flush dev eth0; ip link set eth0 down; ip neigh flush dev eth0") }
}

// forNobody makes the command and the machine's facts such as another user finds them on a server: the serial number is root's.
func forNobody(t *testing.T, lab *testvm.Lab) (program, facts string) {
	t.Helper()
	dir := t.TempDir() // of mode 0755, where the Go command's own is root's
	program, facts = filepath.Join(dir, "nametag"), filepath.Join(dir, "id")
	helpertest.Copy(t, helpertest.Binary(t, runtime.GOARCH), program)
	if err := os.Mkdir(facts, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := lab.Cloud.WriteDMI(facts); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(facts, "product_serial"), 0o400); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	return program, facts
}

// nobody are setpriv's arguments for a user with these capabilities and no others.
func nobody(caps string) []string {
	args := []string{"--reuid=65534", "--regid=65534", "--clear-groups"}
	if caps != "" {
		caps = "+" + strings.ReplaceAll(caps, ",", ",+")
		args = append(args, "--inh-caps="+caps, "--ambient-caps="+caps)
	}
	return args
}

// The other commands, each with what it needs and without. Root's files have the modes that they have on a server.
func TestTheOtherCommandsByRights(t *testing.T) {
	if _, err := exec.LookPath("setpriv"); err != nil {
		netns.Missing(t, "setpriv is not installed; apt-get install util-linux")
	}
	const resolves = "net_admin,net_raw,dac_read_search"
	without := commandsOfTheUsage(t) // each is here, and resolve above
	without = slices.DeleteFunc(without, func(command string) bool { return command == "resolve" })
	defer func() {
		if len(without) > 0 {
			t.Errorf("no row is about %q", without)
		}
	}()
	const apply, named, unnamed = "apply --wait 30s,nic=eth0 --dmi FACTS --root ROOT", "web-2", ""
	for _, c := range []struct {
		about, caps, command string
		static               string // what /etc/hostname says before
		exit                 int
		says, after          string // what /etc/hostname says then
	}{
		{"apply without any", "", apply, unnamed, exitFailed, "can be read by root only", unnamed},
		{"apply that may resolve", resolves, apply, unnamed, exitPermission, "CAP_SYS_ADMIN", unnamed},
		{"apply that may set the hostname, too", resolves + ",sys_admin", apply, unnamed, exitOK, "may be changed by a lease later", unnamed},
		{"apply that may write, too", resolves + ",sys_admin,dac_override", apply, unnamed, exitOK, "in /etc/hostname", "web-1"},
		{"apply where an operator has named the system", "", apply, named, exitOK, "nothing to find out", named},
		{"status", "", "status --root ROOT", named, exitUnnamed, "has not named this system", named},
		{"pin of an operator's name", "", "pin --root ROOT", named, exitOK, "", named},
		{"pin --undo", "", "pin --undo --root ROOT", named, exitFailed, "permission denied", named},
		{"pin --undo that may write", "dac_override", "pin --undo --root ROOT", named, exitOK, "", named},
		{"pin where there is no name", "", "pin --root ROOT", unnamed, exitFailed, "nametag: ", unnamed},
		{"init", resolves, "init", unnamed, exitUsage, "the first process", unnamed},
		{"version", "", "version", unnamed, exitOK, "", unnamed},
	} {
		without = slices.DeleteFunc(without, func(command string) bool { return strings.Fields(c.command)[0] == command })
		t.Run(c.about, func(t *testing.T) {
			lab := testvm.Start(t, cloud.Config{Server: cloud.Server{Hostname: "web-1"}})
			program, facts := forNobody(t, lab)
			root := filepath.Join(filepath.Dir(program), "root")
			static := filepath.Join(root, "etc/hostname")
			if err := os.MkdirAll(filepath.Dir(static), 0o755); err != nil {
				t.Fatal(err)
			}
			if c.static != "" {
				if err := os.WriteFile(static, []byte(c.static+"\n"), 0o644); err != nil { //nolint:gosec // as everywhere
					t.Fatal(err)
				}
			}
			line := append(nobody(c.caps), program)
			line = append(line, strings.Fields(strings.NewReplacer("FACTS", facts, "ROOT", root).Replace(c.command))...)
			// With a hostname and a /run of its own.
			cmd := lab.Command("unshare", append([]string{"--uts", "--mount", "sh", "-ec", `mount -t tmpfs -o mode=0755 none /run; exec setpriv "$@"`, "sh"}, line...)...)
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			if got := exitOf(t, cmd.Run()); got != c.exit || !strings.Contains(stderr.String(), c.says) {
				t.Errorf("exit status %d, want %d, and it is to say %q: %s%s", got, c.exit, c.says, &stdout, &stderr)
			}
			if is, _ := os.ReadFile(static); strings.TrimSpace(string(is)) != c.after {
				t.Errorf("/etc/hostname says %q, not %q", is, c.after)
			}
		})
	}
}
