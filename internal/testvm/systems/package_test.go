//go:build linux

package systems

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nametag-boot/nametag/internal/testvm/helpertest"
	"github.com/nametag-boot/nametag/internal/testvm/qemu"
)

// dist is a folder for what is made once for all tests.
var dist string

func TestMain(m *testing.M) {
	var err error
	if dist, err = os.MkdirTemp("", "nametag-systems-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	tally.print(os.Stdout)
	_ = os.RemoveAll(dist)
	os.Exit(code)
}

// release is the version of the packages.
const release = "1.2.3"

// olderThan is another binary of nametag: what an earlier release would have.
func olderThan(t *testing.T, binary string) string {
	t.Helper()
	content, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	older := filepath.Join(t.TempDir(), "older")
	if err := os.WriteFile(older, append(content, "older"...), 0o755); err != nil {
		t.Fatal(err)
	}
	return older
}

// packages makes the packages as a release does, of this binary and of documentation that is a placeholder; once.
func packages(t *testing.T, repo, binary, version string) string {
	t.Helper()
	dist := filepath.Join(dist, version)
	made := filepath.Join(dist, "packages")
	if _, err := os.Stat(made); err == nil {
		return made
	}
	files := []string{"THIRD-PARTY-LICENSES", "completions/nametag.bash", "completions/nametag.zsh", "completions/nametag.fish", "completions/nametagctl.bash", "completions/nametagctl.zsh", "completions/nametagctl.fish", "man/nametagctl.1"}
	for _, page := range []string{"nametag", "nametag-apply", "nametag-resolve", "nametag-status", "nametag-pin", "nametag-init"} {
		files = append(files, "man/"+page+".1")
	}
	for _, name := range files {
		path := filepath.Join(dist, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprintf("a placeholder for %s\n", name)
		if page, ok := strings.CutSuffix(filepath.Base(name), ".1"); ok {
			text = fmt.Sprintf(".TH %s 1\n.SH NAME\n%s \\- a placeholder\n", strings.ToUpper(page), page)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"nametag-linux-amd64", "nametag-linux-arm64", "nametagctl-linux-amd64", "nametagctl-linux-arm64"} {
		if err := copyFile(binary, filepath.Join(dist, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "run", "-C", filepath.Join(repo, "internal/release/packages"), ".", "-repo", repo, "-dist", dist, "-version", "v"+version)
	cmd.Env = append(os.Environ(), "GOWORK=off", "SOURCE_DATE_EPOCH=1700000000")
	if out, err := cmd.CombinedOutput(); err != nil {
		_ = os.RemoveAll(made) // half of them is none
		t.Fatalf("%v: %s", err, out)
	}
	return made
}

// In a Debian, by its own dpkg: what is installed works, is in the initramfs that the package's trigger has made, and is
// gone after a purge.
func TestTheDebianPackageComesAndGoes(t *testing.T) {
	if os.Getenv(wanted) == "" {
		t.Skip("this needs the root of a Debian: make test-os runs it")
	}
	deps := qemu.Need(t, qemu.AMD64)
	base := base(t, deps)
	made := packages(t, deps.Repo, helpertest.Binary(t, "amd64"), release)
	older := packages(t, deps.Repo, olderThan(t, helpertest.Binary(t, "amd64")), "1.2.2")
	const script = `set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
base=$1 older=$2 package=$3
work=$(mktemp -d); trap 'umount -l "$work"; rmdir "$work"' EXIT
mount -t tmpfs tmpfs "$work"; mkdir "$work"/{upper,overlay,root}
mount -t overlay -o "lowerdir=$base,upperdir=$work/upper,workdir=$work/overlay" overlay "$work/root"
for dir in dev proc sys; do mount --rbind "/$dir" "$work/root/$dir"; done
cp "$older" "$work/root/tmp/older.deb"; cp "$package" "$work/root/tmp/nametag.deb"
in_root() { chroot "$work/root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C DEBIAN_FRONTEND=noninteractive "$@"; }
in_initramfs() { in_root sh -ec 'rm -rf /tmp/initramfs; unmkinitramfs /boot/initrd.img-* /tmp/initramfs; find /tmp/initramfs -path "*/usr/bin/nametag" -exec cmp {} /usr/bin/nametag \; -exec echo this one \;'; }
in_root dpkg -i /tmp/older.deb >/dev/null 2>&1
in_root mkdir -p /etc/nametag /var/lib/nametag && in_root touch /etc/nametag/hostname /var/lib/nametag/name.json
in_root cp /usr/bin/nametag /tmp/older
echo "older in the initramfs: $(in_initramfs)"
in_root dpkg -i /tmp/nametag.deb >/dev/null 2>&1
echo "after the upgrade: $(in_root dpkg-query -W -f '${Version}' nametag), $(in_root cmp /tmp/older /usr/bin/nametag 2>&1 | wc -l) difference, in the initramfs $(in_initramfs), remembers $(in_root sh -c 'ls /etc/nametag /var/lib/nametag' | grep -c -e hostname -e name.json)"
echo "version: $(in_root nametag version)"
echo "units: $(in_root systemd-analyze verify --man=no /usr/lib/systemd/system/nametag.service 2>&1 | grep -c nametag || :)"
in_root sh -ec 'cd /etc/systemd/system; touch /etc/initrd-release; mkdir initrd.target.wants
for unit in nametag nametag-early; do cp /usr/lib/dracut/modules.d/90nametag/$unit.service .; ln -s ../$unit.service initrd.target.wants/; done'
echo "initrd units: $(in_root systemd-analyze verify --man=no initrd.target 2>&1 | grep -c nametag || :)"
in_root sh -ec 'cd /etc/systemd/system; rm -r /etc/initrd-release initrd.target.wants nametag.service nametag-early.service'
printf '[Mount]\nWhat=/dev/none\nWhere=/var\n' >"$work/root/etc/systemd/system/var.mount"
echo "by systemd: $(in_root env SYSTEMD_LOG_LEVEL=debug systemd-analyze verify --man=no nametag.service 2>/dev/null | grep -oE '(After|Requires|BindsTo|Wants): var.mount' | sort -u | tr '\n' ' ')"
rm "$work/root/etc/systemd/system/var.mount"
echo "initramfs: $(in_root sh -c 'lsinitramfs /boot/initrd.img-*' | grep -c nametag)"
in_root dpkg -i /tmp/nametag.deb >/dev/null 2>&1 # an upgrade to the same
in_root dpkg -r nametag >/dev/null 2>&1
echo "remembers after a removal: $(in_root sh -c 'ls /var/lib/nametag' | wc -l)"
in_root dpkg -P nametag >/dev/null 2>&1
echo "initramfs after a purge: $(in_root sh -c 'lsinitramfs /boot/initrd.img-*' | grep -c nametag || :)"
echo "left: $(in_root find / -xdev -name '*nametag*' -not -path '/tmp/*' -not -path '/proc/*' | tr '\n' ' ')"
`
	out, err := exec.Command("unshare", "--mount", "bash", "-c", script, "package", base, filepath.Join(older, "nametag_1.2.2_amd64.deb"), filepath.Join(made, "nametag_1.2.3_amd64.deb")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	// It comes after a /var of its own, and runs all the same where that fails.
	for _, want := range []string{
		"older in the initramfs: this one", "after the upgrade: 1.2.3, 1 difference, in the initramfs this one, remembers 2", "version: nametag", "\nunits: 0", "initrd units: 0", "by systemd: After: var.mount Wants: var.mount \n", "remembers after a removal: 1", "initramfs after a purge: 0", "left: \n",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(string(out), "initramfs: 0") {
		t.Errorf("the initramfs has no nametag:\n%s", out)
	}
}

// The others are looked into: there is no Alpine and no Arch here.
func TestEveryPackageHasWhatItsSystemNeeds(t *testing.T) {
	if os.Getenv(wanted) == "" {
		t.Skip("making packages takes a minute: make test-os runs it")
	}
	deps := qemu.Need(t, qemu.AMD64)
	made := packages(t, deps.Repo, helpertest.Binary(t, "amd64"), release)
	for _, tt := range []struct {
		file  string
		list  []string
		has   []string
		hasNo string
	}{
		{"nametag_1.2.3_amd64.deb", []string{"dpkg-deb", "-c"}, []string{"usr/share/zsh/vendor-completions/_nametag", "usr/share/fish/vendor_completions.d/nametag.fish", "usr/share/bash-completion/completions/nametag", "usr/share/initramfs-tools/hooks/nametag", "usr/lib/dracut/modules.d/90nametag/module-setup.sh"}, "initcpio"},
		{"nametag_1.2.3_x86_64.apk", []string{"tar", "-tzf"}, []string{"usr/share/zsh/site-functions/_nametag", "etc/init.d/nametag", "usr/bin/nametag"}, "initramfs-tools"},
		{"nametag-1.2.3-x86-64.raw", []string{"unsquashfs", "-ll"}, []string{"usr/lib/extension-release.d/extension-release.nametag", "-rwxr-xr-x root/root", "usr/lib/systemd/system/nametag.service"}, "generator"},
		{"nametag-1.2.3-1.x86_64.rpm", []string{"rpm", "-qlp", "--nosignature"}, []string{"/usr/bin/nametag", "/usr/lib/dracut/modules.d/90nametag/module-setup.sh", "/usr/lib/systemd/system-generators/nametag-generator"}, "initcpio"},
		{"nametag-1.2.3-1-x86_64.pkg.tar.zst", []string{"tar", "--zstd", "-tf"}, []string{"usr/share/zsh/site-functions/_nametag", "usr/lib/initcpio/install/nametag", "usr/lib/systemd/system-generators/nametag-generator"}, "initramfs-tools"},
	} {
		out, err := exec.Command(tt.list[0], append(tt.list[1:], filepath.Join(made, tt.file))...).Output()
		if err != nil {
			t.Errorf("%s: %v", tt.file, err)
			continue
		}
		for _, want := range tt.has {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s has no %s", tt.file, want)
			}
		}
		if strings.Contains(string(out), tt.hasNo) {
			t.Errorf("%s has %s", tt.file, tt.hasNo)
		}
	}
	var names []string
	entries, err := os.ReadDir(made)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	for _, want := range []string{"nametag-1.2.3-1.x86_64.rpm", "nametag-1.2.3-1.aarch64.rpm", "nametagctl_1.2.3_arm64.deb"} {
		if !slices.Contains(names, want) {
			t.Errorf("no %s among %v", want, names)
		}
	}
}

// By systemd's own reader of images, under the name that the file has on a machine: systemd-sysext takes it, and it has the
// program and the unit.
func TestSystemdTakesTheExtension(t *testing.T) {
	if os.Getenv(wanted) == "" {
		t.Skip("making packages takes a minute: make test-os runs it")
	}
	deps := qemu.Need(t, qemu.AMD64)
	base(t, deps) // hack/os-deps installs systemd-dissect
	made := packages(t, deps.Repo, helpertest.Binary(t, "amd64"), release)
	for arch, file := range map[string]string{"x86-64": "nametag-1.2.3-x86-64.raw", "arm64": "nametag-1.2.3-arm64.raw"} {
		image := filepath.Join(t.TempDir(), "nametag.raw")
		if err := copyFile(filepath.Join(made, file), image, 0o644); err != nil {
			t.Fatal(err)
		}
		dissect := func(args ...string) []byte {
			t.Helper()
			out, err := exec.CommandContext(t.Context(), "systemd-dissect", args...).Output()
			if err != nil {
				t.Fatalf("%s: systemd-dissect %v: %v: %s", file, args, err, stderr(err))
			}
			return out
		}
		var is struct {
			ExtensionRelease   []string
			UseSystemExtension bool
		}
		if err := json.Unmarshal(dissect("--json=short", image), &is); err != nil {
			t.Fatal(err)
		}
		if !is.UseSystemExtension || !slices.Equal(is.ExtensionRelease, []string{"ID=_any", "ARCHITECTURE=" + arch}) {
			t.Errorf("%s is no extension for every system of its architecture: %+v", file, is)
		}
		unit, err := os.ReadFile(filepath.Join(deps.Repo, "systems/systemd/nametag.service"))
		if err != nil {
			t.Fatal(err)
		}
		if got := dissect("--copy-from", image, "usr/lib/systemd/system/nametag.service", "-"); string(got) != string(unit) {
			t.Errorf("%s has another unit: %s", file, got)
		}
		out := filepath.Join(t.TempDir(), "nametag")
		dissect("--copy-from", image, "usr/bin/nametag", out)
		if st, err := os.Stat(out); err != nil || st.Mode().Perm() != 0o755 {
			t.Errorf("%s: the program: %v, %v", file, st, err)
		}
	}
}

// By Debian's checker of packages and by Fedora's: what they say is mended, or stands with its reason in
// systems/packages.
func TestTheCheckersOfPackagesHaveNothingToSay(t *testing.T) {
	if os.Getenv(wanted) == "" {
		t.Skip("making packages takes a minute: make test-os runs it")
	}
	deps := qemu.Need(t, qemu.AMD64)
	base(t, deps) // hack/os-deps installs the checkers
	made := packages(t, deps.Repo, helpertest.Binary(t, "amd64"), release)
	for _, name := range []string{"nametag", "nametagctl"} {
		lintian := exec.CommandContext(t.Context(), "lintian", "--allow-root", "--tag-display-limit", "0", "--display-info", "--pedantic", "--fail-on", "error,warning,info,pedantic",
			filepath.Join(made, name+"_1.2.3_amd64.deb"))
		if out, err := lintian.CombinedOutput(); err != nil {
			t.Errorf("%v:\n%s", err, out)
		}
		rpmlint := exec.CommandContext(t.Context(), "rpmlint", "--strict", "--config", filepath.Join(deps.Repo, "systems/packages/rpmlint.toml"),
			filepath.Join(made, name+"-1.2.3-1.x86_64.rpm"))
		out, err := rpmlint.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "packages: 1") {
			t.Errorf("rpmlint: %v:\n%s", err, out)
		}
	}
}
