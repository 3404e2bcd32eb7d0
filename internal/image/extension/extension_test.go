package extension_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"go.yaml.in/yaml/v3"

	"github.com/nametag-boot/nametag/internal/image/extension"
	"github.com/nametag-boot/nametag/internal/image/helper"
	"github.com/nametag-boot/nametag/internal/image/oci"
)

// release is one of Talos, by its name.
func release(t *testing.T, s string) extension.Talos {
	t.Helper()
	r, err := extension.ParseTalos(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// helpers are files in the place of both helpers: here it is all the same what is in them.
func helpers(t *testing.T) []helper.Binary {
	t.Helper()
	var made []helper.Binary
	for _, architecture := range helper.Architectures() {
		content := bytes.Repeat([]byte("as good as "+architecture+"\n"), 1<<15)
		path := filepath.Join(t.TempDir(), "nametag-linux-"+architecture)
		if err := os.WriteFile(path, content, 0o755); err != nil {
			t.Fatal(err)
		}
		made = append(made, helper.Binary{Path: path, Architecture: architecture, Size: int64(len(content))})
	}
	return made
}

func spec(t *testing.T, tag string) extension.Spec {
	t.Helper()
	return extension.Spec{Talos: release(t, tag), Version: "v1.2.3"}
}

func build(t *testing.T, tag string) oci.Artifact {
	t.Helper()
	a, err := spec(t, tag).Build(helpers(t), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func digest(t *testing.T, a oci.Artifact) string {
	t.Helper()
	d, err := a.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d.String()
}

func TestTheRootfsIsWhatTalosUnpacks(t *testing.T) {
	for tag, path := range map[string]string{
		"v1.9.1":  "lib/firmware/nametag/nametag",
		"v1.10.0": "usr/lib/firmware/nametag/nametag",
		"v1.12.7": "usr/lib/firmware/nametag/nametag",
	} {
		t.Run(tag, func(t *testing.T) {
			h := helpers(t)[0]
			var b bytes.Buffer
			if err := spec(t, tag).WriteRootfs(&b, h); err != nil {
				t.Fatal(err)
			}
			var names []string
			archive := tar.NewReader(bytes.NewReader(b.Bytes()))
			for {
				e, err := archive.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				names = append(names, e.Name)
				if e.Uid != 0 || e.Gid != 0 || e.Uname != "" || e.Gname != "" || e.ModTime.Unix() != 0 || len(e.PAXRecords) > 0 || e.Format != tar.FormatUSTAR {
					t.Errorf("%+v", e)
				}
				switch {
				case e.Name == "rootfs/"+path:
					want, err := os.ReadFile(h.Path)
					if err != nil {
						t.Fatal(err)
					}
					got, err := io.ReadAll(archive)
					if err != nil || e.Mode != 0o755 || !bytes.Equal(got, want) {
						t.Errorf("%s: mode %o, %d bytes, %v", e.Name, e.Mode, len(got), err)
					}
				case e.Typeflag == tar.TypeDir && e.Mode != 0o755:
					t.Errorf("%s: mode %o", e.Name, e.Mode)
				}
			}
			want := []string{"manifest.yaml"}
			for i, c := range "rootfs/" + path {
				if c == '/' {
					want = append(want, ("rootfs/" + path)[:i+1])
				}
			}
			want = append(want, "rootfs/"+path)
			if strings.Join(names, "\n") != strings.Join(want, "\n") {
				t.Errorf("the entries are %q, not %q", names, want)
			}
		})
	}
}

func TestTheManifestHasATightConstraint(t *testing.T) {
	for tag, constraint := range map[string]string{
		"1.9": ">= 1.9.0 < 1.10.0", "v1.9.5": ">= 1.9.0 < 1.10.0", "1.10": ">= 1.10.0", "v1.14.0-beta.1": ">= 1.10.0",
	} {
		m, err := spec(t, tag).Manifest()
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			Version  string
			Metadata struct {
				Name, Version, Author, Description string
				Compatibility                      struct{ Talos struct{ Version string } }
			}
		}
		if err := yaml.Unmarshal(m, &got); err != nil {
			t.Fatal(err)
		}
		if got.Version != "v1alpha1" || got.Metadata.Name != "nametag" || got.Metadata.Version != "v1.2.3" ||
			got.Metadata.Author == "" || got.Metadata.Description == "" || got.Metadata.Compatibility.Talos.Version != constraint {
			t.Errorf("%s: %+v", tag, got)
		}
	}
}

func TestReleasesAreReadAsPeopleWriteThem(t *testing.T) {
	for s, tag := range map[string]string{
		"1.9": "v1.9.1", "v1.9.4": "v1.9.4", "1.12": "v1.12.7", "1.11": "v1.11.0", "1.13.0-beta.2": "v1.13.0-beta.2",
	} {
		if got := release(t, s); got.Tag != tag || got.Imager() != "ghcr.io/siderolabs/imager:"+tag {
			t.Errorf("%s is %s, not %s", s, got.Tag, tag)
		}
	}
	for s, says := range map[string]string{
		"": "no release", "1": "no release", "2.0": "no release", "1.9.1.1": "no release", "latest": "no release",
		"1.8": "too old", "v1.99999999999999999999": "no release",
	} {
		if _, err := extension.ParseTalos(s); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want an error that says %q", s, err, says)
		}
	}
}

// The same inputs give the same digest, wherever and whenever they are built.
func TestItIsReproducible(t *testing.T) {
	once := build(t, "v1.12.7")
	dir := t.TempDir()
	var moved []helper.Binary
	for _, h := range helpers(t) {
		content, err := os.ReadFile(h.Path)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "another-name-"+h.Architecture)
		if err := os.WriteFile(path, content, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Unix(1e9, 0), time.Unix(1e9, 0)); err != nil {
			t.Fatal(err)
		}
		h.Path = path
		moved = append(moved, h)
	}
	again, err := spec(t, "1.13").Build(moved, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if a, b := digest(t, once), digest(t, again); a != b {
		t.Errorf("%s and %s", a, b)
	}
	if a, b := digest(t, once), digest(t, build(t, "1.9")); a == b {
		t.Error("the extension for 1.9 is the one for 1.12")
	}
}

// serve runs a registry in this process and returns its address.
func serve(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func TestARegistryHasItForEachArchitecture(t *testing.T) {
	a := build(t, "v1.12.7")
	where := serve(t) + "/acme/nametag:v1"
	var done, total int64
	r := oci.Registry{Progress: func(d, n int64) { done, total = d, n }}
	pinned, err := r.Push(t.Context(), a, where)
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.TrimSuffix(where, ":v1") + "@" + digest(t, a); pinned != want {
		t.Errorf("pinned as %s, not %s", pinned, want)
	}
	if total < 1<<10 || done != total {
		t.Errorf("the last progress is %d of %d", done, total)
	}
	ref, err := name.ParseReference(pinned)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range helpers(t) {
		image, err := remote.Image(ref, remote.WithPlatform(v1.Platform{OS: "linux", Architecture: h.Architecture}))
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Image(image); err != nil {
			t.Error(err)
		}
		if got := firmware(t, image, "usr/lib/firmware")["usr/lib/firmware/nametag/nametag"]; !bytes.Equal(got.content, read(t, h.Path)) || got.mode != 0o755 {
			t.Errorf("%s: %d bytes, mode %o", h.Architecture, len(got.content), got.mode)
		}
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOneHelperMakesAnImageAndNoIndex(t *testing.T) {
	only := helpers(t)[1:]
	a, err := spec(t, "1.12").Build(only, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if a.Image == nil || a.Index != nil {
		t.Fatalf("%+v", a)
	}
	p, err := oci.Platform(a.Image)
	if err != nil || p == nil || p.String() != "linux/arm64" {
		t.Errorf("its platform is %v, %v", p, err)
	}
}

func TestAHelperThatChangesMeanwhileIsAnError(t *testing.T) {
	h := helpers(t)[0]
	path := filepath.Join(t.TempDir(), "nametag")
	if err := os.WriteFile(path, read(t, h.Path)[:h.Size-1], 0o755); err != nil {
		t.Fatal(err)
	}
	h.Path = path
	if _, err := spec(t, "1.12").Build([]helper.Binary{h}, t.TempDir()); err == nil {
		t.Error("it was built")
	}
}

func TestTheProfileOfTheImager(t *testing.T) {
	p, err := release(t, "1.12").Profile(extension.Installer, "arm64", extension.Origin{ImageRef: "ghcr.io/acme/nametag@sha256:1"}, "talos.hostname.wait=2m,then=halt")
	if err != nil {
		t.Fatal(err)
	}
	got, err := p.YAML()
	if err != nil {
		t.Fatal(err)
	}
	const want = `baseProfileName: installer
arch: arm64
platform: hcloud
customization:
  extraKernelArgs:
    - rdinit=/usr/lib/firmware/nametag/nametag
    - init=/init
    - talos.hostname.wait=2m,then=halt
input:
  systemExtensions:
    - imageRef: ghcr.io/acme/nametag@sha256:1
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	const flags = "installer --platform hcloud --arch arm64 --system-extension-image ghcr.io/acme/nametag@sha256:1" +
		" --extra-kernel-arg rdinit=/usr/lib/firmware/nametag/nametag --extra-kernel-arg init=/init --extra-kernel-arg talos.hostname.wait=2m,then=halt"
	if got := strings.Join(p.Flags(), " "); got != flags {
		t.Errorf("got\n%s\nwant\n%s", got, flags)
	}
	if _, err := release(t, "1.9").Profile(extension.Installer, "amd64", extension.Origin{}, ""); err == nil || !strings.Contains(err.Error(), "nametagctl installer") {
		t.Errorf("an installer profile for 1.9: %v", err)
	}
}

func TestALayoutIsReplacedOnlyOnRequestAndOnlyWhole(t *testing.T) {
	a := build(t, "1.12")
	dir := filepath.Join(t.TempDir(), "nametag.oci")
	if err := oci.WriteLayout(t.Context(), dir, a, false); err != nil {
		t.Fatal(err)
	}
	if err := oci.WriteLayout(t.Context(), dir, a, false); err == nil {
		t.Error("a layout was replaced though nobody said so")
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := oci.WriteLayout(cancelled, dir, build(t, "1.9"), true); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled one: %v", err)
	}
	if got, err := oci.Open(t.Context(), "oci:"+dir, oci.Registry{}); err != nil || digest(t, got) != digest(t, a) {
		t.Errorf("the layout is another one now: %v", err)
	}
	if err := oci.WriteLayout(t.Context(), dir, build(t, "1.9"), true); err != nil {
		t.Fatal(err)
	}
	if got, err := oci.Open(t.Context(), dir, oci.Registry{}); err != nil || digest(t, got) != digest(t, build(t, "1.9")) {
		t.Errorf("the layout is still the old one: %v", err)
	}
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := oci.WriteLayout(t.Context(), other, a, true); err == nil {
		t.Error("a folder that is no layout was replaced")
	}
	left, err := os.ReadDir(filepath.Dir(dir))
	if err != nil || len(left) != 1 {
		t.Errorf("something is left: %v, %v", left, err)
	}
}

// A header that ustar cannot hold would need PAX. None of ours does.
func TestNoHeaderIsPAX(t *testing.T) {
	var b bytes.Buffer
	if err := spec(t, "1.12").WriteRootfs(&b, helpers(t)[0]); err != nil {
		t.Fatal(err)
	}
	raw := b.Bytes()
	for at := 0; at+512 <= len(raw) && raw[at] != 0; {
		if kind := raw[at+156]; kind != '0' && kind != '5' {
			t.Fatalf("an entry of type %q at %d", kind, at)
		}
		var size int64
		if _, err := fmt.Sscanf(strings.TrimRight(string(raw[at+124:at+136]), "\x00 "), "%o", &size); err != nil {
			t.Fatal(err)
		}
		at += 512 + int(size+511)/512*512
	}
}

// A moved file is one that the imager takes out of an extension's root into the initramfs.
type moved struct {
	mode    int64
	content []byte
}

// firmware stands in for the first half of the imager's move: it flattens the image and takes what is below the folder
// that the release calls its firmware.
func firmware(t *testing.T, image v1.Image, below string) map[string]moved {
	t.Helper()
	files := map[string]moved{}
	flat := mutate.Extract(image)
	defer flat.Close()
	for archive := tar.NewReader(flat); ; {
		e, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		path, ok := strings.CutPrefix(strings.TrimPrefix(e.Name, "./"), "rootfs/")
		if !ok || e.Typeflag != tar.TypeReg || !strings.HasPrefix(path, below+"/") {
			continue
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		files[path] = moved{e.Mode, content}
	}
}
