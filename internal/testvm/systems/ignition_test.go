//go:build linux

package systems

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/helpertest"
	"github.com/nametag-boot/nametag/internal/testvm/patience"
	"github.com/nametag-boot/nametag/internal/testvm/qemu"
	"github.com/nametag-boot/nametag/internal/testvm/qemu/report"
)

//go:embed ignition.sh
var ignitionScript string

// The initrds of [withIgnition].
const (
	ignitionAndNametag Initrd = "ignition"
	ignitionAlone      Initrd = "ignition-alone"
)

// TestIgnition is the first boot, and later ones, of a Debian whose initrd has the real Ignition, which gets our examples for Flatcar from the metadata
// service: as an image is published, where the configuration brings nametag along, as a program or as a system extension,
// and with nametag's dracut module in the initrd, where it is there before Ignition fetches. Later boots are without Ignition:
// one with the service there, and one in an outage.
func TestIgnition(t *testing.T) {
	if !slices.ContainsFunc(strings.Fields(os.Getenv(wanted)), func(word string) bool { return word == "all" || word == "ignition" }) {
		t.Skip("this builds Ignition, for some minutes: make test-os N=ignition")
	}
	deps := qemu.Need(t, qemu.AMD64)
	binary := helpertest.Binary(t, "amd64")
	made := withIgnition(t, deps, base(t, deps), binary)
	for _, tt := range []struct {
		name, example string
		initrd        Initrd
		hostname      string // what the configuration puts into /etc/hostname
	}{
		{"published", "flatcar.bu", ignitionAlone, ""},
		{"module", "flatcar.bu", ignitionAndNametag, ""},
		{"extension", "flatcar-sysext.bu", ignitionAlone, ""},
		{"operator", "flatcar.bu", ignitionAndNametag, byHand},
	} {
		config := ours(t, butane(t, deps.Repo, filepath.Join(deps.Repo, "examples/systems", tt.example)), tt.hostname)
		userData := withProof(t, deps.Repo, config, binary)
		want := server
		if tt.hostname != "" {
			want = tt.hostname
		}
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			disk := copied(t, made.Disk)
			boot := func(metadata []cloud.Phase, args ...string) *qemu.Verdict {
				return qemu.Boot(t, qemu.Scenario{
					OS: debian{made, tt.initrd, append([]string{
						"root=/dev/vda", "ro", "rootfstype=ext4", "systemd.wants=" + string(networkd), "apparmor=0", "audit=0", "ignition.platform.id=hetzner",
					}, args...)},
					Disk: disk, Memory: 1024,
					Cloud:   cloud.Config{Server: cloud.Server{Hostname: server, InstanceID: "42", UserData: userData}, Metadata: metadata},
					NICs:    []qemu.NIC{{NIC: cloud.NIC{DHCP: []cloud.DHCP{{Extra: map[uint8][]byte{12: []byte(fromLease)}}}}}},
					Timeout: patience.Bound(time.Minute),
				})
			}
			status := "status=0 "
			if tt.hostname != "" {
				status = "status=9 " // an operator's
			}
			tally.boot(t, func() *qemu.Verdict {
				v := boot(nil, policy, "ignition.firstboot=1")
				services := []string{"ordinary", "later"}
				if tt.initrd == ignitionAndNametag {
					services = append(services, "first")
				}
				settled(t, v, services, want, status)
				before(t, v, tt.initrd == ignitionAndNametag)
				return v
			})
			for _, metadata := range [][]cloud.Phase{nil, {{Until: 24 * time.Hour, Answer: cloud.Refused()}}} {
				if t.Failed() {
					return
				}
				tally.boot(t, func() *qemu.Verdict {
					v := boot(metadata, "nametag.wait=4m,known=3s")
					settled(t, v, []string{"first", "ordinary", "later"}, want, status)
					return v
				})
			}
		})
	}
}

// settled is saw, of a machine that has its lease too, and of whose name `nametag status` says that in the end.
func settled(t *testing.T, v *qemu.Verdict, services []string, want, status string) {
	t.Helper()
	saw(t, v, services, want)
	for _, e := range v.All(report.Service) {
		if e.From == "later" && (!strings.Contains(e.Text, status) || !strings.Contains(e.Text, "lease=203.0.113.17")) {
			t.Errorf("no %sor no lease: %s", status, e.Text)
		}
	}
}

// ours is an Ignition configuration without kernel arguments, which a distribution's own helper writes and which are QEMU's
// here; and with a name in /etc/hostname, unless that is empty.
func ours(t *testing.T, config []byte, hostname string) []byte {
	t.Helper()
	var c map[string]any
	if err := json.Unmarshal(config, &c); err != nil {
		t.Fatal(err)
	}
	delete(c, "kernelArguments")
	if hostname != "" {
		storage := section(c, "storage")
		files, _ := storage["files"].([]any)
		storage["files"] = append(files, map[string]any{"path": "/etc/hostname", "mode": 0o644, "contents": inline(t, []byte(hostname+"\n"))})
	}
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// before fails the test where nametag did not ask before Ignition, or did, by whether it should have.
func before(t *testing.T, v *qemu.Verdict, should bool) {
	t.Helper()
	index := func(what string) int {
		return slices.IndexFunc(v.Requests, func(r cloud.Request) bool { return strings.HasSuffix(r.Path, what) })
	}
	name, config := index("/metadata"), index("/userdata")
	if config < 0 {
		t.Fatal("Ignition has not fetched its configuration")
	}
	if asked := name >= 0 && name < config; asked != should {
		t.Errorf("nametag asked before Ignition: %v, not %v", asked, should)
	}
}

// withIgnition makes the image, or finds it made.
func withIgnition(t *testing.T, deps qemu.Deps, base, binary string) Image {
	t.Helper()
	cache := filepath.Dir(base)
	program := ignitionProgram(t, deps.Repo, cache)
	stage := t.TempDir()
	if err := Install(deps.Repo, binary, stage); err != nil {
		t.Fatal(err)
	}
	key, err := keyOf(base+program+ignitionScript, stage)
	if err != nil {
		t.Fatal(err)
	}
	image := Image{dir: filepath.Join(cache, "image-"+key), base: base}
	image.Disk = filepath.Join(image.dir, "disk.ext4")
	kernel := deps
	kernel.Root = base
	if image.Kernel, err = kernel.Kernel(); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if os.Chtimes(image.dir, now, now) == nil {
		return image
	}
	prune(cache)
	dir, err := os.MkdirTemp(cache, "new-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	build := exec.CommandContext(t.Context(), "unshare", "--mount", "bash", "-c", ignitionScript, "ignition.sh", base, stage, program, dir) //nolint:gosec // our own
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("making an image: %v\n%s", err, output)
	}
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // a cache for every user
		t.Fatal(err)
	}
	if err := os.Rename(dir, image.dir); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	return image
}

// ignitionProgram is a folder with Ignition's program, built once, and the dracut module of its source.
func ignitionProgram(t *testing.T, repo, cache string) string {
	t.Helper()
	goTool := func(ctx context.Context, args ...string) []byte {
		t.Helper()
		cmd := exec.CommandContext(ctx, "go", args...) //nolint:gosec // our own arguments
		cmd.Env = append(os.Environ(), "GOWORK=off", "CGO_ENABLED=1")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go %s: %v: %s", args[0], err, stderr(err))
		}
		return out
	}
	const module = "github.com/coreos/ignition/v2"
	version := strings.TrimSpace(string(goTool(t.Context(), "list", "-C", filepath.Join(repo, "examples/systems"), "-m", "-f", "{{.Version}}", module)))
	dir := filepath.Join(cache, "ignition-"+version+"-without-selinux") // which is not in this Debian
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	if _, err := os.Stat("/usr/include/blkid/blkid.h"); err != nil {
		const missing = "to build Ignition takes libblkid's header: apt-get install libblkid-dev gcc"
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip("NO IGNITION: " + missing)
	}
	var source struct{ Dir string }
	if err := json.Unmarshal(goTool(t.Context(), "mod", "download", "-json", module+"@"+version), &source); err != nil {
		t.Fatal(err)
	}
	t.Logf("building Ignition %s, once: some minutes", version)
	made, err := os.MkdirTemp(cache, "new-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(made)
	install := exec.CommandContext(t.Context(), "go", "install", "-trimpath", "-ldflags", "-s -w -X "+module+"/internal/distro.selinuxRelabel=false", module+"/internal@"+version) //nolint:gosec // our own arguments
	install.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=", "CGO_ENABLED=1", "GOBIN="+made)
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("go install: %v: %s", err, out)
	}
	if err := os.Rename(filepath.Join(made, "internal"), filepath.Join(made, "ignition")); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "cp", "-R", filepath.Join(source.Dir, "dracut/30ignition"), made).CombinedOutput(); err != nil { //nolint:gosec // the module's own folder
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Rename(made, dir); err != nil {
		t.Fatal(fmt.Errorf("keeping Ignition: %w", err))
	}
	return dir
}
