//go:build linux

package talos_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/u-root/u-root/pkg/cpio"
	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/image/initramfs"
	"github.com/nametag-boot/nametag/internal/image/uki"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/helpertest"
	"github.com/nametag-boot/nametag/internal/testvm/qemu"
	"github.com/nametag-boot/nametag/internal/testvm/qemu/report"
	"github.com/nametag-boot/nametag/internal/testvm/talos"
)

// amended is an OS whose initramfs is packed and then edited as users' are.
type amended struct {
	qemu.OS
	t     *testing.T
	pack  func(plain []byte, os qemu.Initramfs) []byte
	edit  uki.InitramfsEditor
	first string
}

func (a amended) Initramfs(ctx context.Context, d qemu.Deps) (qemu.Initramfs, error) {
	image, err := a.OS.Initramfs(ctx, d)
	if err != nil {
		return image, err
	}
	plain, err := os.ReadFile(image.Archive)
	if err != nil {
		return image, err
	}
	packed := a.pack(plain, image)
	var edited bytes.Buffer
	if err := a.edit(ctx, &edited, io.NewSectionReader(bytes.NewReader(packed), 0, int64(len(packed)))); err != nil {
		return image, err
	}
	// The bench puts an archive of its own behind: at a multiple of four, and behind lz4 not at once.
	edited.Write(make([]byte, 512+-edited.Len()&511))
	image.Archive, image.First = filepath.Join(a.t.TempDir(), "initramfs"), a.first
	return image, os.WriteFile(image.Archive, edited.Bytes(), 0o600)
}

// onlyEver checks that the node had one name and its services started under it.
func onlyEver(t *testing.T, v *qemu.Verdict) {
	t.Helper()
	if names := v.Names(); len(names) != 1 || names[0] != server || v.Service() != server {
		t.Errorf("names %q, services as %q; not %s alone", names, v.Service(), server)
	}
}

// The hardest image for an archive behind it: lz4 has no end, and /init is a hard link, whose other name must stay what
// it is. That other name is what boots next: it would be nametag itself, had it been written through.
func TestAnEditedInitramfsBootsWithTheHelperAsInit(t *testing.T) {
	t.Parallel()
	v := qemu.Boot(t, qemu.Scenario{
		OS: amended{
			t: t, OS: talos.OS{Line: talos.V1_9},
			pack: func(plain []byte, os qemu.Initramfs) []byte {
				return lz4Legacy(t, append(plain, hardLinked(t, os.Init)...))
			},
			edit: withHelper(helpertest.Binary(t, string(qemu.AMD64)), initramfs.Options{}),
		},
		Args:  append([]string{"nametag.init=/other"}, waiting...),
		Cloud: cloud.Config{Server: cloud.Server{Hostname: server}},
		Clock: report.First,
	})
	onlyEver(t, v)
	if first, ok := v.First(report.Started); !ok || first.State == nil || len(first.State.Args) == 0 || first.State.Args[0] != "/other" {
		t.Errorf("the next init is not the other name of what /init was: %+v", first)
	}
}

// By rdinit, behind early microcode and a zstd archive, as Talos has them.
func TestAnEditedInitramfsBootsWithTheHelperByRdinit(t *testing.T) {
	t.Parallel()
	v := qemu.Boot(t, qemu.Scenario{
		OS: amended{
			t: t, OS: talos.OS{Line: talos.V1_12},
			pack: func(plain []byte, _ qemu.Initramfs) []byte {
				return append(microcode(t), zstandard(t, plain)...)
			},
			edit:  withHelper(helpertest.Binary(t, string(qemu.AMD64)), initramfs.Options{Way: initramfs.RDInit}),
			first: "/" + initramfs.DefaultPath,
		},
		Args:  waiting,
		Cloud: late,
		Clock: report.First,
	})
	onlyEver(t, v)
}

// hardLinked is an archive that makes /init and /other the same file.
func hardLinked(t *testing.T, program string) []byte {
	content, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	info := cpio.Info{Ino: 99, Mode: unix.S_IFREG | 0o755, NLink: 2}
	first, second := info, info
	first.Name, second.Name = "other", "init"
	return archiveOf(t, cpio.StaticRecord(nil, first), cpio.StaticRecord(content, second))
}

func microcode(t *testing.T) []byte {
	name := "kernel/x86/microcode"
	return archiveOf(t,
		cpio.Directory("kernel", 0o755), cpio.Directory("kernel/x86", 0o755), cpio.Directory(name, 0o755),
		cpio.StaticFile(name+"/AuthenticAMD.bin", "no microcode", 0o644))
}

func archiveOf(t *testing.T, records ...cpio.Record) []byte {
	t.Helper()
	var b bytes.Buffer
	w := cpio.Newc.Writer(&b)
	if err := cpio.WriteRecords(w, records); err != nil {
		t.Fatal(err)
	}
	if err := cpio.WriteTrailer(w); err != nil {
		t.Fatal(err)
	}
	return append(b.Bytes(), make([]byte, -b.Len()&511)...)
}

func zstandard(t *testing.T, plain []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(plain, nil)
}

func lz4Legacy(t *testing.T, plain []byte) []byte {
	var b bytes.Buffer
	w := lz4.NewWriter(&b)
	if err := w.Apply(lz4.LegacyOption(true)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
