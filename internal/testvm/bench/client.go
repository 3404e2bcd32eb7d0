//go:build linux

package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"github.com/nametag-boot/nametag/internal/release/ship"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
)

const (
	hostname = "example-controlplane-3d3d26d1-69c5k"
	url      = "http://169.254.169.254/hetzner/v1/metadata/hostname"
)

// The names that the report picks out.
const (
	bareLinkLocal = "bare link-local prototype"
	bareStatic    = "bare link-local, static"
	bareDHCP      = "bare DHCP, static"
	nametag       = "nametag"
	nametagBefore = nametag + " before" // -before
	dhclientCurl  = "dhclient + curl"
)

// A client is one way to the name.
type client struct {
	name string
	note string // what the table says about it
	argv []string
	env  []string
	// trips are the round trips that its protocols cannot do without.
	trips map[cloud.Shape]int // a shape that is not here is one where the client finds nothing
	// resolves is set for nametag in all its forms, patient for clients that spend seconds in timers even where nothing
	// is lost.
	resolves, patient bool
	// binaries are the programs that are its own: no shell, no ip, no shared library.
	binaries []string
	missing  string // why it cannot be measured, if it cannot
}

// Round trips: ARP, TCP, HTTP; before that, for DHCP, DISCOVER and OFFER, REQUEST and ACK. A /32 with a gateway costs
// an ARP exchange as well, for the gateway.
var (
	shortcut = map[cloud.Shape]int{cloud.Public: 3}
	lease    = map[cloud.Shape]int{cloud.Public: 5, cloud.Private: 5}
	either   = map[cloud.Shape]int{cloud.Public: 3, cloud.Private: 5}
)

//go:embed peers
var peers embed.FS

// tools are the files that the clients are made of.
type tools struct {
	dir                      string // the scripts of package peers
	nametag, before          string // before is empty where nothing is compared with an earlier one
	bare, static             string
	baredhcp                 string
	python, cloudInit        string // an interpreter, and the folder of the modules where they are not installed
	networkd, networkdOnline string
}

// prepare lays out the scripts and builds the binaries in dir.
func prepare(ctx context.Context, dir, nametag, before string) (tools, error) {
	t := tools{
		dir: dir, nametag: nametag, bare: filepath.Join(dir, "bare"), static: filepath.Join(dir, "static"), baredhcp: filepath.Join(dir, "baredhcp"),
		networkd: "/lib/systemd/systemd-networkd", networkdOnline: "/lib/systemd/systemd-networkd-wait-online",
	}
	if before != "" {
		path, err := exec.LookPath(before)
		if err == nil {
			t.before, err = filepath.Abs(path)
		}
		if err != nil {
			return t, fmt.Errorf("-before: %w", err)
		}
	}
	scripts, err := fs.Sub(peers, "peers")
	if err != nil {
		return t, err
	}
	entries, err := fs.ReadDir(scripts, ".")
	if err != nil {
		return t, err
	}
	for _, e := range entries {
		content, err := fs.ReadFile(scripts, e.Name())
		if err != nil {
			return t, err
		}
		if err := os.WriteFile(filepath.Join(dir, e.Name()), content, 0o755); err != nil { //nolint:gosec // they are run
			return t, err
		}
	}

	if nametag == "" {
		t.nametag = filepath.Join(dir, "nametag")
		if err := build(ctx, t.nametag, "cmd/nametag"); err != nil {
			return t, err
		}
	} else if t.nametag, err = filepath.Abs(nametag); err != nil {
		return t, err
	}
	err = errors.Join(
		buildPlain(ctx, t.bare, "internal/testvm/bench/bare"),
		build(ctx, t.static, "internal/testvm/bench/bare"),
		build(ctx, t.baredhcp, "internal/testvm/bench/baredhcp"),
	)
	if err != nil {
		return t, err
	}
	t.python, t.cloudInit = findCloudInit(ctx)
	return t, nil
}

// build builds one of the module's commands as nametag ships.
func build(ctx context.Context, output, command string) error {
	return ship.Build{Command: command, Arch: runtime.GOARCH, Output: output, Node: true}.Run(ctx)
}

// buildPlain builds one as anybody's go build does.
func buildPlain(ctx context.Context, output, command string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", output, "github.com/nametag-boot/nametag/"+command)
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", command, err, said)
	}
	return nil
}

// clients are what is compared, as far as wanted, a regular expression, matches their names.
func clients(ctx context.Context, t tools, wanted string) ([]client, error) {
	match, err := regexp.Compile(wanted)
	if err != nil {
		return nil, fmt.Errorf("-clients: %w", err)
	}
	facts := filepath.Join(t.dir, "dmi")
	if err := os.MkdirAll(facts, 0o755); err != nil {
		return nil, err
	}
	if err := (cloud.Server{InstanceID: instanceID}).WriteDMI(facts); err != nil {
		return nil, err
	}
	resolve := func(via ...string) []string {
		argv := []string{t.nametag, "resolve", "--nic", "eth0", "--wait", "25s", "--log", "off", "--dmi", facts}
		for _, m := range via {
			argv = append(argv, "--via", m)
		}
		return argv
	}
	// The last command replaces the shell's standard output by the name and a newline, which the service does not send.
	shell := func(command string) []string {
		return []string{"/bin/sh", "-c", "PATH=$PATH:/usr/sbin:/sbin; " + strings.ReplaceAll(command, "DIR", t.dir) + " && echo"}
	}
	const (
		curl = " && curl -sf " + url
		wget = " && busybox wget -q -O - " + url
	)
	all := []client{
		{
			name: bareLinkLocal, trips: shortcut, argv: []string{t.bare, "eth0"}, binaries: []string{t.bare},
			note: "the least a Go program can do: nothing checked, retried or undone; as `go build` makes it",
		},
		{
			name: bareStatic, trips: shortcut, argv: []string{t.static, "eth0"}, binaries: []string{t.static},
			note: "the same, built as nametag is: no libc, no HTTP/2, stripped",
		},
		{
			name: bareDHCP, trips: lease, argv: []string{t.baredhcp, "eth0"}, binaries: []string{t.baredhcp},
			note: "the least where DHCP is needed, built as nametag is",
		},
		{name: nametag, resolves: true, trips: either, argv: resolve(), binaries: []string{t.nametag}},
		{name: "nametag --via linklocal", resolves: true, trips: shortcut, argv: resolve("linklocal")},
		{name: "nametag --via dhcp", resolves: true, trips: lease, argv: resolve("dhcp")},
		{
			name: "udhcpc + wget", trips: lease, binaries: []string{"udhcpc", "busybox"},
			note: "both BusyBox",
			argv: shell("ip link set eth0 up && udhcpc -q -n -f -i eth0 -O staticroutes -s DIR/udhcpc >/dev/null 2>&1" + wget),
		},
		{
			name: dhclientCurl, trips: lease, binaries: []string{"dhclient", "curl"},
			note: "ISC's, `-1`",
			argv: shell("dhclient -1 -q -sf DIR/dhclient eth0 >/dev/null 2>&1" + curl),
		},
		{
			name: "dhcpcd + curl", trips: lease, patient: true, binaries: []string{"dhcpcd", "curl"},
			note: "`-1 -w`: probes its address by ARP first (RFC 5227)",
			argv: shell("dhcpcd -q -1 -4 -w -c /bin/true eth0 >&2" + curl),
		},
		{
			name: "dhcpcd -A + curl", trips: lease, patient: true,
			note: "`-1 -w -A`: no probes",
			argv: shell("dhcpcd -q -1 -4 -w -A -c /bin/true eth0 >&2" + curl),
		},
		{
			name: "systemd-networkd + curl", trips: lease, binaries: []string{t.networkd, t.networkdOnline, "curl"},
			note: "started for the run, with systemd-networkd-wait-online; no bus, no udev",
			argv: shell("DIR/networkd" + curl),
		},
		{
			name: "cloud-init", trips: lease,
			note: "its Hetzner data source alone: DHCP by dhclient, then the crawl. Left out: ds-identify, the units and their order, the " +
				"rendering of the network's configuration, setting the name",
			argv: []string{t.python, filepath.Join(t.dir, "crawl.py")}, env: []string{"PYTHONPATH=" + t.cloudInit, "PYTHONDONTWRITEBYTECODE=1"},
		},
	}
	if t.before != "" {
		c := client{name: nametagBefore, resolves: true, trips: either, argv: resolve(), binaries: []string{t.before}}
		c.argv[0] = t.before
		all = append(all, c)
	}
	var chosen []client
	for _, c := range all {
		if !match.MatchString(c.name) {
			continue
		}
		for _, program := range append([]string{c.argv[0]}, c.binaries...) {
			if _, err := find(program); err != nil && c.missing == "" {
				c.missing = fmt.Sprintf("%s is not installed (Debian: %s)", filepath.Base(program), packageOf(program))
			}
		}
		if c.name == "cloud-init" && t.python == "" {
			c.missing = "cloud-init's Python modules cannot be imported (Debian: cloud-init)"
		}
		chosen = append(chosen, c)
	}
	if len(chosen) == 0 {
		return nil, errors.New("-clients: no client's name matches")
	}
	return chosen, ctx.Err()
}

// find is exec.LookPath that knows where Debian keeps the programs of the administrator, too.
func find(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err == nil || filepath.IsAbs(program) {
		return path, err
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path, sbinErr := exec.LookPath(filepath.Join(dir, program)); sbinErr == nil {
			return path, nil
		}
	}
	return "", err
}
