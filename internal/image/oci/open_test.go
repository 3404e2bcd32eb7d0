package oci_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/nametag-boot/nametag/internal/image/oci"
)

// named writes images as an OCI layout, each under its name.
func named(t *testing.T, dir string, images map[string]v1.Image) {
	t.Helper()
	l, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	for tag, i := range images {
		if err := l.AppendImage(i, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": tag})); err != nil {
			t.Fatal(err)
		}
	}
}

// tarOf packs a folder as podman does.
func tarOf(t *testing.T, dir, file string) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// skopeos writes an image as skopeo's "dir:" has it.
func skopeos(t *testing.T, dir string, i v1.Image) {
	t.Helper()
	put := func(name string, b []byte, err error) {
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	raw, err := i.RawManifest()
	put("manifest.json", raw, err)
	put("version", []byte("Directory Transport Version: 1.1\n"), os.MkdirAll(dir, 0o700))
	m, err := i.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	raw, err = i.RawConfigFile()
	put(m.Config.Digest.Hex, raw, err)
	layers, err := i.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		h, err := l.Digest()
		if err != nil {
			t.Fatal(err)
		}
		r, err := l.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		put(h.Hex, b, err)
	}
}

// What the users of skopeo, buildah and podman type.
func TestAnImageIsFoundByTheWordsOfTheField(t *testing.T) {
	t.Chdir(t.TempDir())
	a, b := image(t, layer{"etc/x=a"}), image(t, layer{"etc/x=b"})
	named(t, "both", map[string]v1.Image{"v1": a, "v2": b})
	named(t, "one", map[string]v1.Image{"v1": a})
	tarOf(t, "both", "both.tar")
	tarOf(t, "one", "one:with:colons.tar")
	if err := os.Mkdir("skopeo", 0o700); err != nil {
		t.Fatal(err)
	}
	skopeos(t, "skopeo", a)
	tags := map[name.Tag]v1.Image{}
	for tag, i := range map[string]v1.Image{"example.com/installer:v1": a, "example.com/installer:v2": b} {
		n, err := name.NewTag(tag)
		if err != nil {
			t.Fatal(err)
		}
		tags[n] = i
	}
	if err := tarball.MultiWriteToFile("docker.tar", tags); err != nil {
		t.Fatal(err)
	}
	for where, want := range map[string]string{
		"oci:one": "a", "one": "a", "oci:one:v1": "a", "oci:both:v1": "a", "oci:both:v2": "b",
		"oci-archive:both.tar:v2": "b", "oci-archive:one:with:colons.tar": "a", "oci-archive:one:with:colons.tar:v1": "a", "./one:with:colons.tar": "a",
		"docker-archive:docker.tar:example.com/installer:v2": "b", "docker-archive:docker.tar:example.com/installer:v1": "a",
		"dir:skopeo": "a",
	} {
		got, err := oci.Open(t.Context(), where, oci.Registry{})
		if err != nil || got.Image == nil {
			t.Errorf("%s: %v", where, err)
			continue
		}
		tree, err := oci.ReadTree(t.Context(), got.Image, t.TempDir(), nil, nil, nil)
		if err != nil {
			t.Errorf("%s: %v", where, err)
			continue
		}
		f, err := tree.Find("etc/x")
		if err != nil {
			t.Fatal(err)
		}
		file, err := tree.Copy(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		if content, err := os.ReadFile(file); err != nil || string(content) != want {
			t.Errorf("%s: another image, of %q, %v", where, content, err)
		}
	}
	for where, says := range map[string]string{
		"oci:both":                  "v1, v2",
		"oci:both:v3":               `no image named "v3"`,
		"oci:nowhere":               "no OCI layout",
		"oci-archive:both.tar":      "choose one by its tag",
		"docker-archive:docker.tar": "example.com/installer:v1",
		"docker-archive:docker.tar:example.com/installer:v3": "no image named",
		"dir:one": "manifest.json",
	} {
		if _, err := oci.Open(t.Context(), where, oci.Registry{}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v, which does not say %q", where, err, says)
		}
	}
	for where, says := range map[string]string{
		"containers-storage:localhost/installer:v1": "oci-archive:installer.tar",
		"docker-daemon:installer:v1":                "docker-archive:installer.tar",
		"oci:":                                      "file or folder",
		"NO//IMAGE":                                 "no image reference",
	} {
		var bad *oci.NameError
		if _, err := oci.Open(t.Context(), where, oci.Registry{}); !errors.As(err, &bad) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v, which does not say %q", where, err, says)
		}
	}
}

func TestADamagedLayoutIsSaid(t *testing.T) {
	t.Chdir(t.TempDir())
	named(t, "one", map[string]v1.Image{"v1": image(t, layer{"etc/x=a"})})
	blobs, err := filepath.Glob("one/blobs/sha256/*")
	if err != nil || len(blobs) != 3 {
		t.Fatal(blobs, err)
	}
	for _, blob := range blobs {
		t.Run("one blob", func(t *testing.T) {
			good, err := os.ReadFile(blob)
			if err != nil {
				t.Fatal(err)
			}
			defer os.WriteFile(blob, good, 0o600) //nolint:errcheck // the next one would show it
			bad := bytes.Clone(good)
			bad[len(bad)-1] ^= 1
			if err := os.WriteFile(blob, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			a, err := oci.Open(t.Context(), "oci:one", oci.Registry{})
			if err == nil {
				if _, err = a.Image.ConfigFile(); err == nil {
					_, err = oci.ReadTree(t.Context(), a.Image, t.TempDir(), nil, nil, nil)
				}
			}
			if err == nil {
				t.Error("nobody noticed")
			}
		})
	}
	if err := os.Remove(blobs[0]); err != nil {
		t.Fatal(err)
	}
	a, err := oci.Open(t.Context(), "oci:one", oci.Registry{})
	if err == nil {
		_, err = a.Image.ConfigFile()
	}
	if err == nil {
		_, err = oci.ReadTree(t.Context(), a.Image, t.TempDir(), nil, nil, nil)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
