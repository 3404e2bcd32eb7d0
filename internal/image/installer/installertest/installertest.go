// Package installertest makes installer images as Talos has them, small ones, for tests.
package installertest

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"io"
	"maps"
	"slices"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"

	"github.com/nametag-boot/nametag/internal/image/helper"
)

// Program is a static ELF program for an architecture, which is none of ours.
func Program(architecture string) []byte {
	machine := elf.EM_X86_64
	if architecture == "arm64" {
		machine = elf.EM_AARCH64
	}
	var b bytes.Buffer
	_ = binary.Write(&b, binary.LittleEndian, elf.Header64{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT), Ehsize: 64,
	})
	b.WriteString("Talos' init")
	return b.Bytes()
}

// regular is the mode of an ordinary file, as cpio has it.
const regular = 0o100000

// Initramfs is one as Talos has it: /init and rootfs.sqsh, packed by zstd.
func Initramfs(t testing.TB, architecture string) []byte {
	t.Helper()
	var plain bytes.Buffer
	w := cpio.Newc.Writer(&plain)
	for _, r := range []cpio.Record{
		cpio.StaticRecord(Program(architecture), cpio.Info{Name: "init", Mode: regular | 0o755}),
		cpio.StaticRecord([]byte("hsqs"), cpio.Info{Name: "rootfs.sqsh", Mode: regular | 0o644}),
	} {
		if err := w.WriteRecord(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := cpio.WriteTrailer(w); err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close() //nolint:errcheck // EncodeAll leaves nothing behind
	return z.EncodeAll(plain.Bytes(), nil)
}

// section is one of a UKI.
type section struct{ name, content string }

// uki is a unified kernel image of a stub that does nothing and the sections.
func uki(architecture string, sections ...section) []byte {
	sections = append([]section{{".text", "the stub"}}, sections...)
	const table = 0x40 + 4 + 20 + 112 + 16*8
	le, headers := binary.LittleEndian, make([]byte, 2048)
	copy(headers, "MZ")
	le.PutUint32(headers[0x3c:], 0x40)
	copy(headers[0x40:], "PE\x00\x00")
	coff, optional := headers[0x44:], headers[0x58:]
	le.PutUint16(coff, 0x8664)
	if architecture == "arm64" {
		le.PutUint16(coff, 0xaa64)
	}
	le.PutUint16(coff[2:], uint16(len(sections)))
	le.PutUint16(coff[16:], 112+16*8)
	le.PutUint16(optional, 0x20b)       // PE32+
	le.PutUint32(optional[16:], 0x1000) // where it begins
	le.PutUint32(optional[32:], 0x1000) // alignment in memory
	le.PutUint32(optional[36:], 512)    // and in the file
	le.PutUint32(optional[60:], 2048)   // of headers
	le.PutUint32(optional[108:], 16)    // directories
	var body bytes.Buffer
	address := 0x1000
	for i, s := range sections {
		h := headers[table+40*i:]
		copy(h[:8], s.name)
		padded := append([]byte(s.content), make([]byte, -len(s.content)&511)...)
		le.PutUint32(h[8:], uint32(len(s.content)))
		le.PutUint32(h[12:], uint32(address))
		le.PutUint32(h[16:], uint32(len(padded)))
		le.PutUint32(h[20:], uint32(2048+body.Len()))
		le.PutUint32(h[36:], 0x40000040) // data that can be read
		if i == 0 {
			le.PutUint32(h[36:], 0x60000020) // code
		}
		body.Write(padded)
		address += (len(s.content) + 0xfff) &^ 0xfff
	}
	le.PutUint32(optional[56:], uint32(address))
	return append(headers, body.Bytes()...)
}

// UKI is one as Talos 1.12 has it for Hetzner Cloud: a second profile with a command line of its own.
func UKI(t testing.TB, architecture string, extra ...string) []byte {
	t.Helper()
	return ukiOf(t, architecture, "hcloud", "MZ the kernel", extra...)
}

// UKIFor is one for another platform; the installer of a Talos release has one for "metal".
func UKIFor(t testing.TB, architecture, platform string) []byte {
	t.Helper()
	return ukiOf(t, architecture, platform, "MZ the kernel")
}

// BigUKI is one with a kernel of that many bytes.
func BigUKI(t testing.TB, architecture string, kernel int) []byte {
	t.Helper()
	return ukiOf(t, architecture, "hcloud", string(make([]byte, kernel)))
}

func ukiOf(t testing.TB, architecture, platform, kernel string, extra ...string) []byte {
	t.Helper()
	line := "talos.platform=" + platform + " console=tty0 init_on_alloc=1"
	for _, e := range extra {
		line += " " + e
	}
	return uki(architecture,
		section{".osrel", "ID=talos\nVERSION_ID=v1.12.7\n"},
		section{".cmdline", line},
		section{".initrd", string(Initramfs(t, architecture))},
		section{".linux", kernel},
		section{".profile", "ID=main\nTITLE=Talos\n"},
		section{".profile", "ID=reset-maintenance\nTITLE=\"Reset to maintenance mode\"\n"},
		section{".cmdline", line + " talos.experimental.wipe=system"},
	)
}

// Files are those of a layer, by path.
type Files map[string][]byte

// built is when the images were.
var built = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// Image makes an image of the layers in order, with a configuration that is worth keeping.
func Image(t testing.TB, architecture string, oci bool, layers ...Files) v1.Image {
	t.Helper()
	base, layerType := empty.Image, types.DockerLayer
	if oci {
		base = mutate.ConfigMediaType(mutate.MediaType(base, types.OCIManifestSchema1), types.OCIConfigJSON)
		layerType = types.OCILayer
	}
	base, err := mutate.ConfigFile(base, &v1.ConfigFile{
		Architecture: architecture, OS: "linux", Created: v1.Time{Time: built}, Author: "Sidero Labs, Inc.",
		Config: v1.Config{
			Entrypoint: []string{"/usr/bin/installer"}, Labels: map[string]string{"org.opencontainers.image.version": "v1.12.7"},
			Env: []string{"PATH=/usr/bin"}, Volumes: map[string]struct{}{"/state": {}},
		},
		RootFS: v1.RootFS{Type: "layers"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, path := range slices.Sorted(maps.Keys(l)) {
			content := l[path]
			if err := w.WriteHeader(&tar.Header{Name: path, Mode: 0o600, Uid: 3, Size: int64(len(content)), ModTime: built, Typeflag: tar.TypeReg}); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(content); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		made, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil },
			tarball.WithMediaType(layerType))
		if err != nil {
			t.Fatal(err)
		}
		if base, err = mutate.Append(base, mutate.Addendum{Layer: made, MediaType: layerType, History: v1.History{CreatedBy: "buildkit"}}); err != nil {
			t.Fatal(err)
		}
	}
	return base
}

// Tools are what an installer has besides what it installs.
func Tools() Files {
	return Files{"usr/bin/installer": []byte("a program"), "usr/bin/mkfs.xfs": []byte("another")}
}

// Old is an installer as Talos 1.9 has it.
func Old(t testing.TB, architecture string) v1.Image {
	t.Helper()
	at := "usr/install/" + architecture + "/"
	return Image(t, architecture, false, Tools(), Files{
		at + "vmlinuz": []byte("the kernel"), at + "initramfs.xz": Initramfs(t, architecture), at + "systemd-boot.efi": []byte("sd-boot"),
	})
}

// Merged is an installer as Talos 1.12 has it.
func Merged(t testing.TB, architecture string) v1.Image {
	t.Helper()
	at := "usr/install/" + architecture + "/"
	return Image(t, architecture, true, Tools(), Files{
		at + "vmlinuz.efi": UKI(t, architecture), at + "systemd-boot.efi": []byte("sd-boot"),
	})
}

// Index is one of an image for each architecture, with the attestations that BuildKit adds.
func Index(t testing.TB, one func(testing.TB, string) v1.Image) v1.ImageIndex {
	t.Helper()
	i := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, architecture := range helper.Architectures() {
		made := one(t, architecture)
		digest, err := made.Digest()
		if err != nil {
			t.Fatal(err)
		}
		i = mutate.AppendManifests(i,
			mutate.IndexAddendum{Add: made, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: architecture}}},
			mutate.IndexAddendum{Add: Image(t, "unknown", true, Files{"statement of " + architecture: nil}), Descriptor: v1.Descriptor{
				Platform:    &v1.Platform{OS: "unknown", Architecture: "unknown"},
				Annotations: map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": digest.String()},
			}})
	}
	return i
}
