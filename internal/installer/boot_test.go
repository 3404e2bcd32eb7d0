package installer_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/nametag-boot/nametag/internal/helper"
	"github.com/nametag-boot/nametag/internal/helper/helpertest"
	"github.com/nametag-boot/nametag/internal/installer"
	"github.com/nametag-boot/nametag/internal/installer/installertest"
	"github.com/nametag-boot/nametag/internal/oci"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/qemu"
	"github.com/nametag-boot/nametag/internal/testvm/talos"
)

// installed is a Talos whose initramfs comes out of an amended installer image.
type installed struct {
	talos.OS
	t *testing.T
}

func (o installed) Initramfs(ctx context.Context, d qemu.Deps) (qemu.Initramfs, error) {
	t := o.t
	made, err := o.OS.Initramfs(ctx, d)
	if err != nil {
		return made, err
	}
	archive, err := os.ReadFile(made.Archive)
	if err != nil {
		return made, err
	}
	found, err := helper.Choice{Path: helpertest.Build(t)}.Resolve(nil, "")
	if err != nil {
		return made, err
	}
	const path = "usr/install/amd64/initramfs.xz"
	stock := oci.Artifact{Image: installertest.Image(t, "amd64", false, installertest.Tools(), installertest.Files{path: archive})}
	options := installer.Options{Edit: installer.Editors(found, policy, false), Scratch: t.TempDir()}
	amended, _, err := installer.Amend(ctx, through(t, stock, serve(t)+"/installer"), options)
	if err != nil {
		return made, err
	}
	files, _ := flat(t, amended.Image)
	made.Archive = filepath.Join(t.TempDir(), "initramfs")
	return made, os.WriteFile(made.Archive, files[path], 0o600)
}

func TestAnAmendedInstallerBootsWithNametagInFront(t *testing.T) {
	const server = "example-controlplane-3d3d26d1-69c5k"
	v := qemu.Boot(t, qemu.Scenario{
		OS:    installed{talos.OS{Line: talos.V1_9}, t},
		Args:  []string{policy, "loglevel=6", "printk.devkmsg=on"},
		Cloud: cloud.Config{Server: cloud.Server{Hostname: server}},
	})
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
