//go:build linux

package lab

import (
	"bytes"
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/identity/dmi"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/helpertest"
	"github.com/nametag-boot/nametag/internal/testvm/netns"
	"github.com/nametag-boot/nametag/internal/testvm/patience"
	"github.com/nametag-boot/nametag/internal/testvm/qemu"
)

func TestMain(m *testing.M) { netns.Main(m) }

// Whoever has an image of his own boots it in the lab, by the script that the documentation names.
func TestAMachineInTheLabHasItsName(t *testing.T) {
	netns.Require(t)
	const name = "web-1.example.com"
	deps := qemu.Need(t, qemu.AMD64)
	kernel, err := deps.Vmlinuz()
	if err != nil {
		t.Fatal(err)
	}
	drivers, err := deps.Modules("virtio_pci", "virtio_net")
	if err != nil {
		t.Fatal(err)
	}
	archive, err := deps.Initramfs(drivers.Tree("lib/modules").Add(qemu.Files{
		"bin/busybox": {From: filepath.Join(deps.Root, "bin/busybox"), Mode: 0o755},
		"init":        {Data: []byte("#!/bin/busybox sh\n/bin/busybox echo \"the system starts as $(/bin/busybox hostname)\"\n/bin/busybox poweroff -f\n"), Mode: 0o755},
		"proc/empty":  {}, "sys/empty": {}, "dev/empty": {}, "run/empty": {},
	}))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	image := filepath.Join(dir, "initramfs")
	if err := helpertest.Add(t.Context(), archive, image, helpertest.Binary(t, string(qemu.AMD64))); err != nil {
		t.Fatal(err)
	}

	c, err := cloud.New(cloud.Config{Server: cloud.Server{Hostname: name}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	node, err := Plug(c, netns.Options{}, cloud.NIC{Name: "eth0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { node.Close() })
	if err := c.WriteDMI(dir); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience.Bound(time.Minute))
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", filepath.Join(deps.Repo, "examples/lab/machine.sh"), kernel, image, "quiet")
	cmd.Env = append(cmd.Environ(), dmi.DirVariable+"="+dir)
	var console bytes.Buffer
	cmd.Stdout, cmd.Stderr = &console, &console
	if err := node.Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(console.String(), "the system starts as "+name) {
		t.Errorf("%v: the console: %s", err, console.String())
	}
}
