//go:build linux

package systems

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nametag-boot/nametag/internal/testvm/qemu"
	"github.com/nametag-boot/nametag/internal/testvm/talos"
)

const mib = 1 << 20

// bootable makes a disk of an image: a system partition of UEFI's, where a unified kernel has the kernel, the initramfs
// and the command line, and the root.
func bootable(t *testing.T, deps qemu.Deps, made Image, initrd, line string) string {
	t.Helper()
	dir := t.TempDir()
	run := func(stdin, name string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Stdin = strings.NewReader(stdin)
		cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
	}
	kernels, err := filepath.Glob(filepath.Join(made.base, "boot/vmlinuz-*"))
	if err != nil || len(kernels) != 1 {
		t.Fatalf("kernels: %v, %v", kernels, err)
	}
	program, err := talos.Unify(t.Context(), deps, qemu.Parts{
		Kernel: kernels[0], Initramfs: initrd, CommandLine: "console=ttyS0 quiet panic=-1 " + line, Dir: dir,
	})
	if err != nil {
		t.Fatal(err)
	}
	const system, root = 128, 1024 // MiB
	disk, esp := filepath.Join(dir, "disk"), filepath.Join(dir, "esp")
	run("", "truncate", "-s", fmt.Sprint((1+system+root+1)*mib), disk)
	run(fmt.Sprintf("label: gpt\nstart=1MiB, size=%dMiB, type=U\nstart=%dMiB, size=%dMiB, type=L\n", system, 1+system, root), "sfdisk", "--quiet", disk)
	run("", "truncate", "-s", fmt.Sprint(system*mib), esp)
	run("", "mkfs.vfat", "-F", "32", esp)
	run("", "mmd", "-i", esp, "::EFI", "::EFI/BOOT")
	run("", "mcopy", "-i", esp, program, "::EFI/BOOT/BOOTX64.EFI")
	run("", "dd", "if="+esp, "of="+disk, "bs=1M", "seek=1", "conv=notrunc,sparse", "status=none")
	run("", "dd", "if="+made.Disk, "of="+disk, "bs=1M", fmt.Sprint("seek=", 1+system), "conv=notrunc,sparse", "status=none")
	return disk
}
