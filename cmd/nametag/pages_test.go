//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/pages"
	"github.com/nametag-boot/nametag/internal/testvm"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/helpertest"
	"github.com/nametag-boot/nametag/internal/testvm/netns"
)

// aSystem is the script in which commands run one after the other, each by a shell of its own: a system with a hostname and a
// /run of its own. The lab's NIC is a veth, which is not taken unless it is named; an apply finds the name by link-local, as the
// page shows; and the system's root is a folder.
const aSystem = `
mount -t tmpfs -o mode=0755 none /run
hostname localhost
export PATH="$DIR/bin:$PATH"
mkdir -p "$DIR/bin" "$DIR/root/etc"
cat >"$DIR/bin/nametag" <<'END'
#!/bin/sh
command=$1
shift
case $command in
resolve) exec "$NAMETAG" resolve --nic eth0 --root "$DIR/root" "$@" ;;
apply)
	wait=$2
	shift 2
	exec "$NAMETAG" apply --wait "$wait,nic=eth0,via=linklocal" --root "$DIR/root" "$@" ;;
*) exec "$NAMETAG" "$command" --root "$DIR/root" "$@" ;;
esac
END
chmod +x "$DIR/bin/nametag"
n=0
for command; do
	sh -c "$command" >"$DIR/$n.out" 2>"$DIR/$n.err" || echo "exit status $?" >>"$DIR/$n.err"
	n=$((n+1))
done
hostname
`

// inASystem runs commands so, where the cloud knows the server, and returns what each printed and the hostname in the end.
func inASystem(t *testing.T, server cloud.Server, commands []string) (printed, complaints []string, hostname string) {
	t.Helper()
	for _, program := range []string{"unshare", "hostname", "mount"} {
		if _, err := exec.LookPath(program); err != nil {
			netns.Missing(t, program+" is not installed")
		}
	}
	lab := testvm.Start(t, cloud.Config{Server: server})
	dir := t.TempDir()
	cmd := lab.Command("unshare", append([]string{"--uts", "--mount", "sh", "-ec", aSystem, "sh"}, commands...)...)
	cmd.Env = append(os.Environ(), "DIR="+dir, "NAMETAG="+helpertest.Binary(t, runtime.GOARCH))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for n := range commands {
		for suffix, to := range map[string]*[]string{"out": &printed, "err": &complaints} {
			text, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("%d.%s", n, suffix)))
			if err != nil {
				t.Fatal(err)
			}
			*to = append(*to, string(text))
		}
	}
	return printed, complaints, strings.TrimSpace(string(out))
}

// ofPages are the commands that the pages have for a guard, by page.
func ofPages(t *testing.T, guard pages.Guard) map[string][]pages.Command {
	t.Helper()
	all, err := pages.Commands("../..")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]pages.Command{}
	for _, c := range all {
		if g, ok := c.Guard(); ok && g == guard {
			found[c.Page] = append(found[c.Page], c)
		}
	}
	if len(found) == 0 {
		t.Fatal("no page has any")
	}
	return found
}

// Every command of nametag's that a page has runs on the fake network, and prints what is shown.
func TestTheCommandsOfTheDocumentationRun(t *testing.T) {
	servers := map[string]cloud.Server{
		"README.md":       {Hostname: example},
		"docs/systems.md": {Hostname: "web-1", InstanceID: "4711"},
	}
	before := map[string][]string{"docs/systems.md": {"nametag apply --wait 30s"}} // what the page's reader has
	for page, commands := range ofPages(t, pages.Node) {
		t.Run(page, func(t *testing.T) {
			lines := before[page]
			first := len(lines)
			for _, c := range commands {
				lines = append(lines, c.Text)
			}
			printed, complaints, _ := inASystem(t, servers[page], lines)
			for n, c := range commands {
				got, complaint := printed[first+n], complaints[first+n]
				if strings.Contains(complaint, "exit status") || c.Prints != "" && !pages.Shown(c.Prints).MatchString(got) {
					t.Errorf("%s\nthe page shows\n%s\nprinted was\n%s%s", c, c.Prints, got, complaint)
				}
			}
		})
	}
}

// Every example of every help runs, on one system, in the order of the helps.
func TestTheExamplesOfTheHelpsRun(t *testing.T) {
	var lines []string
	for _, help := range []string{usage, resolveUsage, applyUsage, statusUsage, pinUsage} {
		_, examples, found := strings.Cut(help, "\nExample:\n")
		examples, _, _ = strings.Cut(examples, "\n\n")
		if !found {
			t.Errorf("a help has no example:\n%s", help)
		}
		for line := range strings.Lines(examples) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	if _, more, _ := strings.Cut(initUsage, "\nExample:\n"); more != "" {
		t.Error("init has an example now: run it")
	}
	_, complaints, hostname := inASystem(t, cloud.Server{Hostname: "web-1"}, lines)
	for n, line := range lines {
		if strings.Contains(complaints[n], "exit status") || strings.Contains(complaints[n], "not found") {
			t.Errorf("%s\n%s", line, complaints[n])
		}
	}
	if len(lines) < 5 || hostname != "web-1" {
		t.Errorf("after %d examples the system is called %q", len(lines), hostname)
	}
}

// inProse is a command in the running text.
var inProse = regexp.MustCompile("`nametag ((?:resolve|apply|status|pin|init|version)\\b[^`]*)`")

// A command that is only spoken of is there, with each of its flags.
func TestTheCommandsInTheDocumentationsProseAreUnderstood(t *testing.T) {
	helps := map[string]string{"resolve": resolveUsage, "apply": applyUsage, "status": statusUsage, "pin": pinUsage, "init": initUsage}
	files, err := pages.Files("../..")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, page := range files {
		text, err := os.ReadFile(filepath.Join("../..", page))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range inProse.FindAllStringSubmatch(string(text), -1) {
			seen++
			words := strings.Fields(m[1])
			for _, word := range words[1:] {
				if name, _, _ := strings.Cut(word, "="); strings.HasPrefix(name, "--") && !strings.Contains(helps[words[0]], "\n  "+name+" ") {
					t.Errorf("%s: nametag %s: %s has no %s", page, m[1], words[0], name)
				}
			}
		}
	}
	if seen < 10 {
		t.Errorf("only %d were found", seen)
	}
}

// A killed run leaves the link up, with settings of its own. What the page says to do by hand puts them back.
func TestAKilledRunIsPutBackByHand(t *testing.T) {
	var script strings.Builder
	for _, commands := range ofPages(t, pages.Links) {
		for _, c := range commands {
			script.WriteString(c.Text + "\n")
		}
	}
	lab := testvm.Start(t, cloud.Config{Metadata: []cloud.Phase{{Until: time.Hour, Answer: cloud.Silent()}}})
	sh := func(script string) string {
		t.Helper()
		out, err := lab.Command("sh", "-ec", script).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	// As the page's machine has it.
	sh("sysctl -qw net.ipv4.conf.eth0.rp_filter=1")
	const settings = `
cat /sys/class/net/eth0/ifalias; ip -o link show eth0 | grep -o 'state [A-Z]*'
sysctl net.ipv6.conf.eth0.accept_ra net.ipv4.conf.eth0.rp_filter net.ipv4.neigh.eth0.retrans_time_ms net.ipv4.neigh.eth0.mcast_solicit`
	before := sh(settings)
	cmd := nametag(lab, "nametag", "resolve", "--nic", "eth0", "--wait", "5m")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, stderr, "trying")
	if err := cmd.Process.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	page, err := os.ReadFile("../../docs/network.md")
	if err != nil {
		t.Fatal(err)
	}
	left := sh(settings)
	alias, _, _ := strings.Cut(left, "\n")
	shown := regexp.MustCompile(`(?m)^alias (nametag: .*)$`).FindSubmatch(page)
	if shown == nil || pages.Shown(string(bytes.ReplaceAll(shown[1], []byte("812"), []byte(fmt.Sprint(cmd.Process.Pid))))).FindString(alias) == "" {
		t.Errorf("the alias is\n%s\nand the page shows\n%s", alias, shown)
	}
	sh(script.String())
	if after := sh(settings); after != before {
		t.Errorf("it was\n%s\nkilled,\n%s\nand by hand\n%s", before, left, after)
	}
	sh("ip addr flush dev eth0; ip route flush dev eth0; sysctl -qw net.ipv4.conf.eth0.rp_filter=0") // a minute later, and the lab's own
}
