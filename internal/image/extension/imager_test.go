//go:build linux

package extension_test

import (
	"bytes"
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"
	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/image/extension"
	"github.com/nametag-boot/nametag/internal/image/helper"
	"github.com/nametag-boot/nametag/internal/image/oci"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/helpertest"
	"github.com/nametag-boot/nametag/internal/testvm/qemu"
	"github.com/nametag-boot/nametag/internal/testvm/qemu/report"
	"github.com/nametag-boot/nametag/internal/testvm/talos"
)

// segment stands in for the second half: the archive that the imager appends to the initramfs. Everything in it belongs
// to root, and it is packed by zstd.
func segment(t *testing.T, files map[string]moved) []byte {
	t.Helper()
	var plain bytes.Buffer
	w := cpio.Newc.Writer(&plain)
	made := map[string]bool{}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		for i, c := range path {
			if dir := path[:i]; c == '/' && !made[dir] {
				made[dir] = true
				if err := w.WriteRecord(cpio.Directory(dir, 0o755)); err != nil {
					t.Fatal(err)
				}
			}
		}
		f := files[path]
		r := cpio.StaticRecord(f.content, cpio.Info{Name: path, Mode: unix.S_IFREG | uint64(f.mode)})
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
	defer z.Close()
	return z.EncodeAll(plain.Bytes(), nil)
}

// pulled is the image for an architecture that the imager finds in a layout: it looks no further than index.json.
func pulled(t *testing.T, dir, architecture string) v1.Image {
	t.Helper()
	path, err := layout.FromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	index, err := path.ImageIndex()
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range manifest.Manifests {
		if m.Platform != nil && m.Platform.OS == "linux" && m.Platform.Architecture == architecture {
			image, err := path.Image(m.Digest)
			if err != nil {
				t.Fatal(err)
			}
			return image
		}
	}
	t.Fatalf("the imager finds no image for %s in %+v", architecture, manifest)
	return nil
}

// extended is a Talos whose initramfs the imager has appended a segment to.
type extended struct {
	talos.OS
	segment []byte
	first   string
	dir     string
}

func (o extended) Initramfs(ctx context.Context, d qemu.Deps) (qemu.Initramfs, error) {
	image, err := o.OS.Initramfs(ctx, d)
	if err != nil {
		return image, err
	}
	whole, err := os.ReadFile(image.Archive)
	if err != nil {
		return image, err
	}
	whole = append(whole, o.segment...)
	whole = append(whole, make([]byte, -len(whole)&3)...) // the test's own archive follows
	image.Archive, image.First = filepath.Join(o.dir, "initramfs"), o.first
	return image, os.WriteFile(image.Archive, whole, 0o600)
}

// The whole way: an extension as nametagctl writes it, moved as the imager moves it, run as its kernel argument says.
func TestTheImagersInitramfsBootsWithNametagInFront(t *testing.T) {
	const server = "example-controlplane-3d3d26d1-69c5k"
	of := extension.Default()
	dir := filepath.Join(t.TempDir(), "nametag.oci")
	nametag, err := helper.Find("amd64", helpertest.Build(t))
	if err != nil {
		t.Fatal(err)
	}
	a, err := extension.Spec{Talos: of, Version: "v1.2.3"}.Build([]helper.Binary{nametag}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := oci.WriteLayout(t.Context(), dir, a, false); err != nil {
		t.Fatal(err)
	}
	files := firmware(t, pulled(t, dir, "amd64"), "usr/lib/firmware")
	if len(files) != 1 {
		t.Fatalf("the imager moves %d files", len(files))
	}
	arguments := of.KernelArguments("talos.hostname.wait=2m")
	first, ok := strings.CutPrefix(arguments[0], "rdinit=")
	if !ok {
		t.Fatal(arguments)
	}
	v := qemu.Boot(t, qemu.Scenario{
		OS: extended{OS: talos.OS{Line: talos.V1_12}, segment: segment(t, files), first: first, dir: t.TempDir()},
		// The bench's own first process stands where rdinit= points; it becomes the one under test.
		Args:  append(arguments[1:], "loglevel=6", "printk.devkmsg=on"),
		Cloud: cloud.Config{Server: cloud.Server{Hostname: server}},
	})
	if names := v.Names(); len(names) != 1 || names[0] != server {
		t.Errorf("the node was called %q, not %s alone", names, server)
	}
	if v.Service() != server {
		t.Errorf("services started as %q", v.Service())
	}
	if ran, _ := v.First(report.First); ran.Text != first {
		t.Errorf("the first process was %q, not %s", ran.Text, first)
	}
}
