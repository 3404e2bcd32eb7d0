//go:build linux

package talos

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/nametag-boot/nametag/internal/testvm/qemu"
	"github.com/nametag-boot/nametag/internal/testvm/talos/start"
)

// Starts is a machine that starts many an initramfs, one after the other, without the helper and with it, and tells by
// report.Compared in what the two differ. It is amd64's.
type Starts struct {
	Helper string // the helper's binary on this machine
}

// busybox are the entries of an initramfs that lives on BusyBox.
func busybox(more ...start.File) []start.File {
	return append([]start.File{
		{Path: "bin/busybox", From: "busybox"},
		{Path: "bin/sh", Link: "busybox"},
		{Path: "etc/inittab", Text: "::sysinit:/bin/ran\n"},
		{Path: "bin/ran", Text: "#!/bin/sh\necho it does >/ran\n"},
	}, more...)
}

// ran is what a script of ours writes down: what its interpreter was given.
const ran = "echo \"$0 $*\" >/ran\n"

func trees() []start.Tree {
	const (
		runs = "ran"
		does = "it does\n"
		args = "/init version a_word -x\n"
	)
	return []start.Tree{
		{Name: "BusyBox by a link", Runs: runs, Says: does, Files: busybox(
			start.File{Path: "sbin/init", Link: "../bin/busybox"}, start.File{Path: "init", Link: "sbin/init"})},
		{Name: "BusyBox by a hard link", Runs: runs, Says: does, Files: busybox(start.File{Path: "init", From: "busybox"})},
		{Name: "a script", Runs: runs, Says: args, Files: busybox(start.File{Path: "init", Text: "#!/bin/sh\n" + ran})},
		{Name: "a script whose interpreter takes an argument", Runs: runs, Says: args, Files: busybox(
			start.File{Path: "init", Text: "#!/bin/busybox sh\n" + ran})},
		{Name: "a static program", Files: []start.File{{Path: "init", From: "static"}}},
		{Name: "a dynamically linked program", Files: []start.File{{Path: "init", From: "dynamic"}, {Path: "lib64/ld-linux-x86-64.so.2", From: "ld.so"}}},
		{Name: "Talos", Files: []start.File{{Path: "init", From: "talos"}, {Path: "rootfs.sqsh", Text: "not mounted, since there is a NIC\n"}, {Path: "proc"}}},
		{Name: "systemd", Files: []start.File{
			{Path: "usr/lib/systemd/systemd", From: "systemd"},
			{Path: "init", Link: "usr/lib/systemd/systemd"},
			{Path: "lib64/ld-linux-x86-64.so.2", From: "ld.so"},
		}},
		{Name: "initramfs-tools", Files: busybox(start.File{Path: "init", From: "initramfs-tools"})},
		{Name: "dracut", Files: busybox(start.File{Path: "init", From: "dracut"})},
	}
}

// Initramfs makes the machine.
func (s Starts) Initramfs(ctx context.Context, d qemu.Deps) (qemu.Initramfs, error) {
	guest, unlock, err := programs(ctx, d)
	if err != nil {
		return qemu.Initramfs{}, err
	}
	defer unlock()
	files, err := base(d, guest, drivers...)
	if err != nil {
		return qemu.Initramfs{}, err
	}
	text, err := json.Marshal(trees())
	if err != nil {
		return qemu.Initramfs{}, err
	}
	delete(files, "prepare")
	files.Add(qemu.Files{"init": {From: guest.path("starter"), Mode: 0o755}, "trees.json": {Data: text, Mode: 0o644}})
	_, loader := d.Loader()
	for name, from := range map[string]string{
		start.StoreHelper: s.Helper,
		"static":          guest.path("plain"),
		"talos":           guest.path("init"),
		"busybox":         filepath.Join(d.Root, "bin/busybox"),
		"dynamic":         filepath.Join(d.Root, "usr/bin/unsquashfs"),
		"ld.so":           loader,
		"systemd":         filepath.Join(d.Root, "lib/systemd/systemd"),
		"initramfs-tools": filepath.Join(d.Root, "usr/share/initramfs-tools/init"),
		"dracut":          filepath.Join(d.Root, "usr/lib/dracut/modules.d/99base/init.sh"),
	} {
		if _, err := os.Stat(from); err != nil {
			return qemu.Initramfs{}, fmt.Errorf("a package is missing: run hack/vm-deps (%w)", err)
		}
		files["store/"+name] = qemu.File{From: from, Mode: 0o755}
	}
	archive, err := d.Initramfs(files)
	if err != nil {
		return qemu.Initramfs{}, err
	}
	return qemu.Initramfs{Archive: archive, Init: guest.path("starter"), Run: "/init"}, nil
}
