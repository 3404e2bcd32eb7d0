//go:build linux

// Package talos is a Talos-shaped OS for the virtual machines of package qemu, written from the behaviour of Talos and
// not from its code: an /init that mounts, overlays, moves and execs as Talos' does, and behind it a machined that
// names the node as Talos' does and starts a real etcd. See guest/ for the programs.
//
// Two things are made to fit. Debian's kernel has loop, squashfs and overlay as modules where Talos has them built in:
// a first process, guest/prepare, loads those three, and becomes the process under test. Everything virtio stands only
// inside /rootfs.sqsh, where Talos has it. And what a test asks of the stand-ins comes by kernel arguments of theirs
// (guest/standin).
package talos

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/nametag-boot/nametag/internal/release/ship"
	"github.com/nametag-boot/nametag/internal/testvm/qemu"
)

// Line is a line of Talos releases, as far as they differ here.
type Line uint8

// The lines that there are.
const (
	V1_9  Line = iota // mounts by mount(2); modules in /lib/modules
	V1_12             // mounts by fsopen, fsmount and move_mount; merged /usr, modules in /usr/lib/modules
)

// String is the line as Talos writes it.
func (l Line) String() string {
	if l == V1_12 {
		return "v1.12"
	}
	return "v1.9"
}

// OS is the Talos-shaped OS. The zero value is v1.9 without etcd.
type OS struct {
	Line Line
	// Etcd puts etcd in. Without it services "start" all the same, and only their name is told: a quicker boot.
	Etcd bool
	// Packing is that of the squashfs: "", unpacked, which an emulated processor reads fastest; "zstd"; "xz".
	Packing string
	// Platform is talos.platform=; "": hcloud; "-": no such argument.
	Platform string
	// State is what it does with the partition STATE of a disk: "read", "write" or "dirty", see guest/standin; "": nothing.
	// It has XFS built in then.
	State string
}

// Plain is an OS that is not Talos: an /init that only tells the kernel's hostname and the record. Its virtio modules
// stand in the initramfs.
type Plain struct {
	// BuiltIn are further modules that the kernel has from the start, as far as what comes first can tell. Some of Debian's
	// make an interface as they are loaded: bonding, dummy, ifb, sit, ipip.
	BuiltIn []string
	// Disks puts the disks' drivers into the initramfs, and XFS.
	Disks bool
}

// drivers are what the machine's devices need, and no more than that; disks is what its disks need (NVMe is built in).
var (
	drivers = []string{"virtio_pci", "virtio_net"}
	disks   = []string{"virtio_blk", "virtio_scsi", "sd_mod"}
)

// Initramfs makes the OS.
func (o OS) Initramfs(ctx context.Context, d qemu.Deps) (qemu.Initramfs, error) {
	guest, unlock, err := programs(ctx, d)
	if err != nil {
		return qemu.Initramfs{}, err
	}
	defer unlock()
	root := qemu.Files{
		"sbin/init": {From: guest.path("machined"), Mode: 0o755},
	}
	at, usr := "lib/modules", ""
	if o.Line == V1_12 {
		at, usr = "usr/lib/modules", "usr/"
		root = qemu.Files{
			"usr/sbin/init": root["sbin/init"],
			"sbin":          {Link: "usr/sbin"},
			"lib":           {Link: "usr/lib"},
			"lib64":         {Link: "usr/lib64"},
		}
	}
	modules, err := d.Modules(append(slices.Clone(drivers), disks...)...)
	if err != nil {
		return qemu.Initramfs{}, err
	}
	root.Add(modules.Tree(at))
	if o.Etcd {
		loader, file := d.Loader()
		root.Add(qemu.Files{
			"usr/bin/etcd":                     {From: filepath.Join(d.Root, "usr/bin/etcd"), Mode: 0o755},
			usr + loader:                       {From: file, Mode: 0o755},
			usr + d.Libraries() + "/libc.so.6": {From: filepath.Join(d.Root, d.Libraries(), "libc.so.6"), Mode: 0o755},
		})
	}
	rootfs, err := d.Squashfs(ctx, root, o.Packing, "dev", "proc", "sys", "run", "tmp", "var")
	if err != nil {
		return qemu.Initramfs{}, err
	}
	extension, err := d.Squashfs(ctx, qemu.Files{"usr/local/share/extension": {Data: []byte("a layer\n"), Mode: 0o644}}, o.Packing)
	if err != nil {
		return qemu.Initramfs{}, err
	}
	builtIn := []string{"loop", "squashfs", "overlay"}
	if o.State != "" {
		builtIn = append(builtIn, "xfs")
	}
	files, err := base(d, guest, builtIn...)
	if err != nil {
		return qemu.Initramfs{}, err
	}
	files.Add(qemu.Files{
		"init":            {From: guest.path("init"), Mode: 0o755},
		"rootfs.sqsh":     {From: rootfs, Mode: 0o644},
		"000.sqsh":        {From: extension, Mode: 0o644},
		"extensions.yaml": {Data: []byte("layers:\n  - image: 000.sqsh\n    metadata:\n      name: stand-in\n      version: v1\n"), Mode: 0o644},
	})
	archive, err := d.Initramfs(files)
	if err != nil {
		return qemu.Initramfs{}, err
	}
	return qemu.Initramfs{Archive: archive, Init: guest.path("init"), Run: "/prepare", Args: o.arguments()}, nil
}

func (o OS) arguments() []string {
	var args []string
	switch o.Platform {
	case "":
		args = append(args, "talos.platform=hcloud")
	case "-":
	default:
		args = append(args, "talos.platform="+o.Platform)
	}
	if o.Line == V1_12 {
		args = append(args, "standin_mount=fsmount")
	}
	if o.State != "" {
		args = append(args, "standin_state="+o.State)
	}
	return args
}

// Initramfs makes the OS.
func (p Plain) Initramfs(ctx context.Context, d qemu.Deps) (qemu.Initramfs, error) {
	guest, unlock, err := programs(ctx, d)
	if err != nil {
		return qemu.Initramfs{}, err
	}
	defer unlock()
	wanted := slices.Clone(drivers)
	if p.Disks {
		wanted = append(append(wanted, disks...), "xfs")
	}
	modules, err := d.Modules(wanted...)
	if err != nil {
		return qemu.Initramfs{}, err
	}
	files, err := base(d, guest, p.BuiltIn...)
	if err != nil {
		return qemu.Initramfs{}, err
	}
	files.Add(modules.Tree("lib/modules")).Add(qemu.Files{"init": {From: guest.path("plain"), Mode: 0o755}})
	archive, err := d.Initramfs(files)
	if err != nil {
		return qemu.Initramfs{}, err
	}
	return qemu.Initramfs{Archive: archive, Init: guest.path("plain"), Run: "/prepare"}, nil
}

// base is the first process, the modules that it loads, and the devices that are there before /dev is mounted.
func base(d qemu.Deps, guest guest, builtIn ...string) (qemu.Files, error) {
	files := qemu.Files{
		"prepare":     {From: guest.path("prepare"), Mode: 0o755},
		"dev/console": {Device: [2]uint32{5, 1}, Mode: 0o600},
		"dev/ttyS0":   {Device: [2]uint32{4, 64}, Mode: 0o600}, // where package report writes to, on arm64
		"dev/ttyS1":   {Device: [2]uint32{4, 65}, Mode: 0o600}, // and on amd64
	}
	modules, err := d.Modules(builtIn...)
	if err != nil {
		return nil, err
	}
	for i, name := range modules.Order() {
		files[fmt.Sprintf("standin/%02d-%s.ko", i, name)] = qemu.File{From: modules.File(name), Mode: 0o644}
	}
	return files, nil
}

// guest is the folder of the guest's programs.
type guest string

func (g guest) path(program string) string { return filepath.Join(string(g), program) }

// programs builds the guest's programs, static and stripped. Go leaves those that are up to date as they are. Nobody else
// touches them, or anything in the cache, until they have been read and unlock is called.
func programs(ctx context.Context, d qemu.Deps) (_ guest, unlock func(), err error) {
	unlock, err = d.Lock()
	if err != nil {
		return "", nil, err
	}
	defer func() {
		if err != nil {
			unlock()
		}
	}()
	dir := filepath.Join(d.Cache, "guest", string(d.Arch))
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // a cache for every user
		return "", nil, err
	}
	build := ship.Build{Command: "internal/testvm/talos/guest/...", Arch: string(d.Arch), Output: dir + "/"}
	if err := build.Run(ctx); err != nil {
		return "", nil, err
	}
	return guest(dir), unlock, nil
}
