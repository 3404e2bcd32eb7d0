//go:build linux

package talos

import (
	"context"
	"path/filepath"

	"github.com/nametag-boot/nametag/internal/testvm/qemu"
)

// BusyBox is a small system whose init is BusyBox, by a link, as on many a router and in many an image. The kernel runs
// it itself. It tells by report.Given what its first process was given. It is amd64's.
type BusyBox struct{}

// tell is a line of package report, from a shell.
const tell = `#!/bin/sh
/bin/busybox --install -s /bin
mkdir -p /proc; mount -t proc proc /proc
tell() {
  echo "{\"from\":\"busybox\",\"kind\":\"$1\",\"name\":\"$2\",\"text\":\"$(tr '\000\n\t' '   ' | tr -d '"\134\001-\037')\"}" >/dev/ttyS1
}
for f in comm cmdline environ oom_score_adj personality timerslack_ns; do tell given $f </proc/1/$f; done
grep -Ev 'processes|pending' /proc/1/limits | tell given limits # but for those that follow from the memory that the image left
for f in exe cwd root; do readlink /proc/1/$f | tell given $f; done
grep -E '^(Uid|Gid|Groups|Umask|Sig(Pnd|Blk|Ign)|ShdPnd|Cap|NoNewPrivs|Seccomp|Cpus_allowed)' /proc/1/status | tell given status
cut -d ' ' -f 5,6,7,8,18,19,20 /proc/1/stat | tell given stat
ls -l /proc/1/fd | sed 's/.* \([0-9]* ->\)/\1/' | tell given files
cut -d ' ' -f 5,6 /proc/1/mountinfo | grep -v '^/run ' | tell given mounts
ls -lA / /bin /sbin | sed -E 's/^(.........).* ([^ ]+( -> .*)?)$/\1 \2/' | grep -Ev '^total| \.nametag\.json' | tell given tree
echo | tell settled "$(cat /proc/sys/kernel/hostname)"
`

// Initramfs makes the system.
func (BusyBox) Initramfs(ctx context.Context, d qemu.Deps) (qemu.Initramfs, error) {
	guest, unlock, err := programs(ctx, d)
	if err != nil {
		return qemu.Initramfs{}, err
	}
	defer unlock()
	modules, err := d.Modules(drivers...)
	if err != nil {
		return qemu.Initramfs{}, err
	}
	files, err := base(d, guest)
	if err != nil {
		return qemu.Initramfs{}, err
	}
	delete(files, "prepare")
	files.Add(modules.Tree("lib/modules")).Add(qemu.Files{
		"init":        {Link: "sbin/init"},
		"sbin/init":   {Link: "../bin/busybox"},
		"bin/sh":      {Link: "busybox"},
		"bin/busybox": {From: filepath.Join(d.Root, "bin/busybox"), Mode: 0o755},
		"bin/tell":    {Data: []byte(tell), Mode: 0o755},
		"etc/inittab": {Data: []byte("::once:/bin/tell\n"), Mode: 0o644},
		"etc/group":   {Data: []byte("root:x:0:\n"), Mode: 0o644},
		"run/.keep":   {Mode: 0o644}, // where the record goes, which the tree below leaves out
	})
	archive, err := d.Initramfs(files)
	if err != nil {
		return qemu.Initramfs{}, err
	}
	return qemu.Initramfs{Archive: archive, Init: filepath.Join(d.Root, "bin/busybox"), Run: "/init"}, nil
}
