//go:build linux

package installer_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/internal/image/helper"
	"github.com/nametag-boot/nametag/internal/image/installer"
	"github.com/nametag-boot/nametag/internal/image/installer/installertest"
	"github.com/nametag-boot/nametag/internal/image/limit"
	"github.com/nametag-boot/nametag/internal/image/oci"
	ukis "github.com/nametag-boot/nametag/internal/image/uki"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/helpertest"
	"github.com/nametag-boot/nametag/internal/testvm/qemu"
	"github.com/nametag-boot/nametag/internal/testvm/talos"
)

// server is what the cloud says.
const server = "example-controlplane-3d3d26d1-69c5k"

// installed puts a file into an installer image, amends what a registry then has, and takes the file out again.
func installed(ctx context.Context, t *testing.T, arch qemu.Arch, name, file string) (string, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	found, err := helper.Choice{Path: helpertest.Build(t)}.Resolve([]string{string(arch)}, "")
	if err != nil {
		return "", err
	}
	path := "usr/install/" + string(arch) + "/" + name
	stock := oci.Artifact{Image: installertest.Image(t, string(arch), true, installertest.Tools(), installertest.Files{path: content})}
	options := installer.Options{Edit: installer.Editors(found, policy, false, limit.Limits{}), Scratch: t.TempDir()}
	amended, _, err := installer.Amend(ctx, through(t, stock, serve(t)+"/installer"), options)
	if err != nil {
		return "", err
	}
	files, _ := flat(t, through(t, amended, serve(t)+"/amended").Image)
	out := filepath.Join(t.TempDir(), name)
	return out, os.WriteFile(out, files[path], 0o600)
}

// first checks that the node had one name only, and that it was nametag's doing.
func first(t *testing.T, v *qemu.Verdict) {
	t.Helper()
	if names := v.Names(); len(names) != 1 || names[0] != server {
		t.Errorf("the node was called %q, not %s alone", names, server)
	}
	if v.Service() != server {
		t.Errorf("services started as %q", v.Service())
	}
	if !v.Said("nametag: ") {
		t.Error("the console does not speak of nametag")
	}
}

// old is a Talos whose initramfs comes out of an amended installer image.
type old struct {
	talos.OS
	t *testing.T
}

func (o old) Initramfs(ctx context.Context, d qemu.Deps) (qemu.Initramfs, error) {
	made, err := o.OS.Initramfs(ctx, d)
	if err != nil {
		return made, err
	}
	made.Archive, err = installed(ctx, o.t, d.Arch, "initramfs.xz", made.Archive)
	return made, err
}

func TestAnAmendedInstallerBootsWithNametagInFront(t *testing.T) {
	t.Parallel()
	first(t, qemu.Boot(t, qemu.Scenario{
		OS:    old{talos.OS{Line: talos.V1_9}, t},
		Args:  []string{policy, "loglevel=6", "printk.devkmsg=on"},
		Cloud: cloud.Config{Server: cloud.Server{Hostname: server}},
	}))
}

// The installers of 1.10 and later: UEFI starts the UKI that comes out of the amended image.
func TestAnAmendedInstallersUKIBootsWithNametagInFront(t *testing.T) {
	t.Parallel()
	for _, arch := range []qemu.Arch{qemu.AMD64, qemu.ARM64} {
		t.Run(string(arch), func(t *testing.T) {
			t.Parallel()
			first(t, qemu.Boot(t, qemu.Scenario{
				Arch: arch, OS: talos.OS{Line: talos.V1_12}, Memory: 640,
				Args: []string{"loglevel=6", "printk.devkmsg=on"}, // and no policy: the installer's line has it
				Image: talos.UKI(func(ctx context.Context, image string) error {
					// What runs first is the bench's matter, and an image that has an rdinit= is not amended: it comes back after.
					result, err := ukis.EditFile(ctx, image, image, ukis.Edit{CommandLine: ukis.Arguments{Remove: []string{"rdinit"}}.Apply})
					if err != nil {
						return err
					}
					words := strings.Fields(result.CommandLines[0].Before)
					bench := words[slices.IndexFunc(words, func(w string) bool { return strings.HasPrefix(w, "rdinit=") })]
					amended, err := installed(ctx, t, arch, "vmlinuz.efi", image)
					if err != nil {
						return err
					}
					_, err = ukis.EditFile(ctx, amended, image, ukis.Edit{CommandLine: ukis.Arguments{Append: []string{bench}}.Apply})
					return err
				}),
				Cloud:   cloud.Config{Server: cloud.Server{Hostname: server}},
				Timeout: 3 * time.Minute,
			}))
		})
	}
}

// What docs/install.md shows of an upgrade that went wrong: an rdinit= of the machine configuration's has outlived the
// extension, and the kernel panics in these words. An installer that is edited needs no rdinit=.
func TestAnArgumentThatOutlivesItsHelperPanicsAsTheDocumentationShows(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../../docs/install.md")
	if err != nil {
		t.Fatal(err)
	}
	const panics = "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"
	if !strings.Contains(string(page), "\n"+panics+"\n") {
		t.Errorf("docs/install.md does not show %q", panics)
	}
	v := qemu.Boot(t, qemu.Scenario{
		OS:   talos.OS{Line: talos.V1_12},
		Args: []string{policy, "rdinit=/usr/lib/firmware/nametag/nametag", "init=/init"}, // the last rdinit= counts
	})
	if v.Outcome != qemu.Panicked || !v.Said(panics) {
		t.Errorf("the boot ended: %v", v.Outcome)
	}
}
