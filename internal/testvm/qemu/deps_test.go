//go:build linux

package qemu

import (
	"bytes"
	"debug/elf"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestTheFormatOfADisk(t *testing.T) {
	for content, want := range map[string]string{"QFI\xfb\x00\x00\x00\x03": "qcow2", "QFI": "raw", "": "raw", "\xeb\x63\x90\x10": "raw"} {
		name := filepath.Join(t.TempDir(), "disk")
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := formatOf(name); err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", content, got, err, want)
		}
	}
	if _, err := formatOf(filepath.Join(t.TempDir(), "disk")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a disk that is not there: %v", err)
	}
}

func TestTheKernelIsUnpacked(t *testing.T) {
	d := Need(t, AMD64)
	path, err := d.Kernel()
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(path)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	defer f.Close()
	// QEMU starts a kernel at its PVH entry, which a note of the owner Xen names (include/xen/interface/elfnote.h).
	if !slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool {
		note := make([]byte, p.Filesz)
		n, _ := p.ReadAt(note, 0)
		return p.Type == elf.PT_NOTE && bytes.Contains(note[:n], []byte("Xen\x00"))
	}) {
		t.Errorf("%s has no PVH entry", path)
	}
}

func TestWhatIsNoKernelIsRefused(t *testing.T) {
	for name, image := range map[string][]byte{
		"nothing":                      nil,
		"something else":               bytes.Repeat([]byte("x"), 4096),
		"a header with nothing behind": append(append(make([]byte, 0x202), "HdrS"...), bytes.Repeat([]byte{0xff}, 0x100)...),
	} {
		t.Run(name, func(t *testing.T) {
			if elf, err := unpackKernel(image); err == nil {
				t.Errorf("%d bytes", len(elf))
			}
		})
	}
}

func TestModules(t *testing.T) {
	d := Need(t, AMD64)
	m, err := d.Modules("virtio-net", "overlay")
	if err != nil {
		t.Fatal(err)
	}
	t.Run("come with what they need, which is loaded before them", func(t *testing.T) {
		order := m.Order()
		for _, before := range []string{"virtio", "virtio_ring", "failover", "net_failover"} {
			if i, j := slices.Index(order, before), slices.Index(order, "virtio_net"); i < 0 || i > j {
				t.Errorf("%s is not before virtio_net: %q", before, order)
			}
		}
	})
	t.Run("have an index as depmod writes it", func(t *testing.T) {
		tree := m.Tree("lib/modules")
		dep := string(tree["lib/modules/"+m.Release+"/modules.dep"].Data)
		for _, line := range strings.Split(strings.TrimSpace(dep), "\n") {
			path, needs, ok := strings.Cut(line, ":")
			for _, p := range append(strings.Fields(needs), path) {
				if _, there := tree["lib/modules/"+m.Release+"/"+p]; !ok || !there {
					t.Errorf("%s of %q is not in the tree", p, line)
				}
			}
			if strings.HasSuffix(path, "/net_failover.ko") && strings.TrimSpace(needs) != "kernel/net/core/failover.ko" {
				t.Errorf("net_failover needs %q", needs)
			}
		}
		if alias := string(tree["lib/modules/"+m.Release+"/modules.alias"].Data); !strings.Contains(alias, "alias virtio:d00000001v* virtio_net\n") {
			t.Errorf("virtio_net has no alias: %q", alias)
		}
	})
	t.Run("that the kernel does not have are an error", func(t *testing.T) {
		if _, err := d.Modules("no-such"); err == nil || err.Error() != "the kernel has no module no_such" {
			t.Errorf("%v", err)
		}
	})
}

func TestAnImageIsMadeOnceAndTheSame(t *testing.T) {
	d := Need(t, AMD64)
	files := Files{"a/b": {Data: []byte("b"), Mode: 0o644}, "a/link": {Link: "b"}, "run": {Data: []byte("x"), Mode: 0o755}}
	kinds := map[string]func() (string, error){
		"cpio": func() (string, error) { return d.Initramfs(files) },
		"sqsh": func() (string, error) { return d.Squashfs(t.Context(), files, "zstd", "proc") },
	}
	for kind, image := range kinds {
		t.Run(kind, func(t *testing.T) {
			first, err := image()
			if err != nil {
				t.Fatal(err)
			}
			content, err := os.ReadFile(first)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(first); err != nil {
				t.Fatal(err)
			}
			second, err := image()
			if err != nil || second != first {
				t.Fatalf("%s, then %s, %v", first, second, err)
			}
			again, err := os.ReadFile(second)
			if err != nil || !bytes.Equal(content, again) {
				t.Errorf("not the same: %v", err)
			}
		})
	}
}
