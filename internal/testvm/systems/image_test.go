//go:build linux

package systems

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
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

// What `make test-os IMAGE=…` hands over: a disk image with a boot loader of its own, the server's user data or a Butane
// configuration, whether UEFI boots it, and whether this machine's processor runs it.
const (
	ownImage  = "NAMETAG_TEST_OS_IMAGE"
	ownConfig = "NAMETAG_TEST_OS_CONFIG"
	ownUEFI   = "NAMETAG_TEST_OS_UEFI"
	ownKVM    = "NAMETAG_TEST_OS_KVM"
)

// brought is a system that boots from its own disk.
type brought struct {
	disk     string // a copy: it is written to
	userData string
	uefi     bool
	kvm      bool
	resets   int
	// first says that the first service of the root, which waits for nothing, has the name too: the initramfs does it.
	first bool
}

// TestAnImage boots an image that the user brings, twice.
func TestAnImage(t *testing.T) {
	image := os.Getenv(ownImage)
	if image == "" {
		t.Skip("this boots a disk image of yours: make test-os IMAGE=…")
	}
	asked(t, qemu.Need(t, qemu.AMD64), image).run(t)
}

// asked is a system as `make test-os IMAGE=…` describes it.
func asked(t *testing.T, deps qemu.Deps, image string) brought {
	t.Helper()
	// A configuration that adds kernel arguments has the machine boot a second time.
	b := brought{disk: copied(t, image), uefi: os.Getenv(ownUEFI) != "", kvm: os.Getenv(ownKVM) != "", resets: 1}
	switch file := os.Getenv(ownConfig); {
	case strings.HasSuffix(file, ".bu"):
		b.userData = withProof(t, deps.Repo, butane(t, deps.Repo, file), helpertest.Binary(t, "amd64"))
	case file != "":
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		b.userData = string(text)
	}
	return b
}

// run boots it twice: the second boot knows its name, as every later one does.
func (b brought) run(t *testing.T) {
	t.Helper()
	for _, boot := range []string{"the first boot", "the second boot"} {
		tally.boot(t, func() *qemu.Verdict {
			v := qemu.Boot(t, qemu.Scenario{
				Disk: b.disk, UEFI: b.uefi, KVM: b.kvm, Full: true, Memory: 2048, Resets: b.resets,
				Cloud:   cloud.Config{Server: cloud.Server{Hostname: server, InstanceID: "42", UserData: b.userData}},
				NICs:    []qemu.NIC{{NIC: cloud.NIC{DHCP: []cloud.DHCP{{Extra: map[uint8][]byte{12: []byte(fromLease)}}}}}},
				Timeout: patience.Bound(3 * time.Minute),
			})
			if len(v.All(report.Service)) == 0 {
				t.Fatalf("%s, %v: no service has reported; docs/systems.md says how they come into an image", boot, v.Outcome)
			}
			services := []string{"ordinary", "later"}
			if b.first {
				services = append(services, "first")
			}
			saw(t, v, services, server)
			return v
		})
		if t.Failed() {
			return
		}
	}
}

// saw fails the test where a service did not see the name.
func saw(t *testing.T, v *qemu.Verdict, services []string, want string) {
	t.Helper()
	seen := map[string]report.Event{}
	for _, e := range v.All(report.Service) {
		seen[e.From] = e
	}
	for _, from := range services {
		if e, ok := seen[from]; !ok {
			t.Errorf("%v: the service %q has not reported", v.Outcome, from)
		} else if e.Name != want {
			t.Errorf("the service %q saw %q, not %q", from, e.Name, want)
		}
	}
	t.Logf("%v: first %q, ordinary %q, later %q: %s", v.Took.Round(time.Second), seen["first"].Name, seen["ordinary"].Name, seen["later"].Name, seen["later"].Text)
}

// copied is a copy of an image.
func copied(t *testing.T, image string) string {
	t.Helper()
	disk := filepath.Join(t.TempDir(), "disk")
	if out, err := exec.CommandContext(t.Context(), "cp", "--sparse=always", "--reflink=auto", image, disk).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return disk
}

// butane is Butane's own work on a configuration: Ignition's.
func butane(t *testing.T, repo, file string) []byte {
	t.Helper()
	file, err := filepath.Abs(file)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "run", "-C", filepath.Join(repo, "examples/systems"), "./translate", file)
	cmd.Env = append(os.Environ(), "GOWORK=off")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("butane: %v: %s", err, stderr(err))
	}
	return out
}

// withProof puts the guest's own services into an Ignition configuration, and what was built here in place of the release's.
func withProof(t *testing.T, repo string, config []byte, binary string) string {
	t.Helper()
	var c map[string]any
	if err := json.Unmarshal(config, &c); err != nil {
		t.Fatal(err)
	}
	storage := section(c, "storage")
	files, _ := storage["files"].([]any)
	for _, f := range files {
		f, ok := f.(map[string]any)
		if !ok {
			continue
		}
		var ours string
		switch path := fmt.Sprint(f["path"]); {
		case strings.HasSuffix(path, "/bin/nametag"):
			ours = binary
		case strings.HasSuffix(path, "/nametag.raw"):
			ours = filepath.Join(packages(t, repo, binary, release), "nametag-1.2.3-x86-64.raw")
		default:
			continue
		}
		content, err := os.ReadFile(ours)
		if err != nil {
			t.Fatal(err)
		}
		f["contents"] = inline(t, content)
	}
	links, _ := storage["links"].([]any)
	units, _ := section(c, "systemd")["units"].([]any)
	for _, name := range []string{"report", "later", "first.service", "ordinary.service", "later.service"} {
		text, err := embedded.ReadFile("guest/" + name)
		if err != nil {
			t.Fatal(err)
		}
		// /usr may be read-only, and what is in /etc no program by a security policy.
		text = bytes.ReplaceAll(text, []byte("ExecStart=/usr/lib/nametag-test"), []byte("ExecStart=/bin/sh /etc/nametag-test"))
		text = bytes.ReplaceAll(text, []byte("/usr/lib/nametag-test/report"), []byte("/bin/sh /etc/nametag-test/report"))
		target := "multi-user"
		switch name {
		case "report", "later":
			files = append(files, map[string]any{"path": "/etc/nametag-test/" + name, "mode": 0o755, "contents": inline(t, text)})
			continue
		case "first.service":
			target = "sysinit"
		}
		units = append(units, map[string]any{"name": name, "contents": string(text)})
		links = append(links, map[string]any{"path": "/etc/systemd/system/" + target + ".target.wants/" + name, "target": "/etc/systemd/system/" + name})
	}
	storage["files"], storage["links"] = files, links
	section(c, "systemd")["units"] = units
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// section is a part of a configuration, which is made where it is missing.
func section(c map[string]any, name string) map[string]any {
	part, ok := c[name].(map[string]any)
	if !ok {
		part = map[string]any{}
		c[name] = part
	}
	return part
}

// inline is a file's content within the configuration itself.
func inline(t *testing.T, content []byte) map[string]any {
	t.Helper()
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return map[string]any{"compression": "gzip", "source": "data:;base64," + base64.StdEncoding.EncodeToString(packed.Bytes())}
}

// TestABootableDebian proves what `make test-os IMAGE=…` does, on an image of the tier's own: a Debian that boots by UEFI
// from its own disk.
func TestABootableDebian(t *testing.T) {
	if !slices.ContainsFunc(strings.Fields(os.Getenv(wanted)), func(word string) bool { return word == "all" || word == "image" }) {
		t.Skip("this is one boot more: make test-os N=image")
	}
	deps := qemu.Need(t, qemu.AMD64)
	made, err := Make(t.Context(), deps, base(t, deps), helpertest.Binary(t, "amd64"))
	if err != nil {
		t.Fatal(err)
	}
	initrd, err := made.File(Dracut)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(ownUEFI, "1")
	b := asked(t, deps, bootable(t, deps, made, initrd, "root=LABEL=root ro rootfstype=ext4 systemd.wants="+string(networkd)+" "+policy))
	b.first = true
	b.run(t)
}
