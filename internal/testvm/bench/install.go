//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// debian are the packages that the programs are in. None of them starts or enables a service; dhcpcd-base is dhcpcd
// without its init script.
var debian = map[string]string{
	"ip": "iproute2", "curl": "curl", "busybox": "busybox", "udhcpc": "udhcpc", "dhclient": "isc-dhcp-client",
	"dhcpcd": "dhcpcd-base", "zstd": "zstd",
}

// cloudInitNeeds are Debian's packages of the modules that cloud-init's own import.
var cloudInitNeeds = []string{
	"python3", "python3-configobj", "python3-jinja2", "python3-jsonpatch", "python3-jsonschema", "python3-netifaces",
	"python3-oauthlib", "python3-requests", "python3-yaml",
}

func packageOf(program string) string {
	if p, ok := debian[filepath.Base(program)]; ok {
		return p
	}
	return "systemd"
}

// cache is where cloud-init is unpacked. It is not installed: an installed one takes the machine over at its next boot.
const cache = ".cache/bench"

// install installs what is missing, as far as it can, and says on w what it does. What is missing after that is named
// in the report, so nothing here is an error. systemd is never installed: that would be another machine.
func install(ctx context.Context, w io.Writer) {
	if !realRoot() {
		return
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return
	}
	apt := func(dir string, args ...string) bool {
		cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-qq"}, args...)...)
		cmd.Dir, cmd.Stderr = dir, w
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		return cmd.Run() == nil
	}
	get := func(packages ...string) {
		fmt.Fprintf(w, "bench: installing %s\n", strings.Join(packages, " "))
		args := append([]string{"install", "-y", "--no-install-recommends"}, packages...)
		if !apt("", args...) { // perhaps the lists are old, or were never read
			_ = apt("", "update") && apt("", args...)
		}
	}
	var missing []string
	for program, pkg := range debian {
		if _, err := find(program); err != nil {
			missing = append(missing, pkg)
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		get(missing...)
	}
	if python, _ := findCloudInit(ctx); python != "" {
		return
	}
	get(cloudInitNeeds...)
	if err := unpackCloudInit(ctx, apt); err != nil {
		fmt.Fprintf(w, "bench: no cloud-init: %v\n", err)
	}
}

// unpackCloudInit fetches Debian's package and unpacks it into the cache.
func unpackCloudInit(ctx context.Context, apt func(dir string, args ...string) bool) error {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return err
	}
	if !apt(cache, "download", "-o", "APT::Sandbox::User=root", "cloud-init") {
		return fmt.Errorf("apt-get cannot download it")
	}
	found, err := filepath.Glob(cache + "/cloud-init_*.deb")
	if err != nil || len(found) == 0 {
		return fmt.Errorf("apt-get has left nothing in %s", cache)
	}
	return exec.CommandContext(ctx, "dpkg-deb", "-x", found[len(found)-1], filepath.Join(cache, "cloud-init")).Run()
}

// findCloudInit returns an interpreter that can import cloud-init's data source, and the folder to import it from:
// empty where it is installed. No interpreter: it is not there. Debian's modules are for Debian's interpreter, which
// need not be the first in the path.
func findCloudInit(ctx context.Context) (python, path string) {
	unpacked, err := filepath.Abs(cache + "/cloud-init/usr/lib/python3/dist-packages")
	if err != nil {
		return "", ""
	}
	for _, python := range []string{"/usr/bin/python3", "python3"} {
		for _, path := range []string{"", unpacked} {
			cmd := exec.CommandContext(ctx, python, "-c", "import cloudinit.sources.DataSourceHetzner")
			cmd.Env = append(os.Environ(), "PYTHONPATH="+path)
			if cmd.Run() == nil {
				return python, path
			}
		}
	}
	return "", ""
}

// realRoot says whether this process is root of the machine and not of a user namespace.
func realRoot() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && os.Geteuid() == 0 && slices.Equal(strings.Fields(string(b)), []string{"0", "0", "4294967295"})
}
