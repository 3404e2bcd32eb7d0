package oci_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/nametag-boot/nametag/internal/image/oci"
)

// An entry of a layer in short: "path", "path=content", "path -> symbolic link", "path => hard link", "path/".
type layer []string

func (l layer) make(t *testing.T) v1.Layer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range l {
		h, content := &tar.Header{Name: e, Mode: 0o640, Uid: 7, Typeflag: tar.TypeReg}, ""
		switch {
		case strings.Contains(e, " -> "):
			h.Name, h.Linkname, _ = strings.Cut(e, " -> ")
			h.Typeflag = tar.TypeSymlink
		case strings.Contains(e, " => "):
			h.Name, h.Linkname, _ = strings.Cut(e, " => ")
			h.Typeflag = tar.TypeLink
		case strings.HasSuffix(e, "/"):
			h.Typeflag = tar.TypeDir
		default:
			h.Name, content, _ = strings.Cut(e, "=")
			h.Size = int64(len(content))
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	made, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func image(t *testing.T, layers ...layer) v1.Image {
	t.Helper()
	var made []v1.Layer
	for _, l := range layers {
		made = append(made, l.make(t))
	}
	i, err := mutate.AppendLayers(empty.Image, made...)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestATreeIsWhatAnUnpackerMakesOfTheLayers(t *testing.T) {
	const asked = "usr/install/amd64/vmlinuz.efi"
	for _, scenario := range []struct {
		name   string
		layers []layer
		path   string // where the content is; "": the path that was asked for
		is     string // the content; "": there is none
		says   string
	}{
		{name: "in the only layer", layers: []layer{{"usr/", asked + "=a"}}, is: "a"},
		{name: "the last layer that has it wins", layers: []layer{{asked + "=a"}, {asked + "=b"}, {"etc/x=c"}}, is: "b"},
		{name: "the last entry of a layer wins", layers: []layer{{asked + "=a", asked + "=b"}}, is: "b"},
		{name: "paths with a leading dot or slash", layers: []layer{{"./" + asked + "=a"}, {"/" + asked + "=b"}}, is: "b"},
		{name: "a path that climbs stays below the root", layers: []layer{{"../../" + asked + "=a"}}, is: "a"},

		{name: "not there", layers: []layer{{"etc/x=c"}}},
		{name: "no layers", layers: nil},
		{name: "whited out", layers: []layer{{asked + "=a"}, {"usr/install/amd64/.wh.vmlinuz.efi"}}},
		{name: "its folder whited out", layers: []layer{{asked + "=a"}, {"usr/.wh.install"}}},
		{name: "whited out and put back above", layers: []layer{{asked + "=a"}, {"usr/.wh.install"}, {asked + "=b"}}, is: "b"},
		{name: "whited out and put back by the same layer", layers: []layer{{asked + "=a"}, {asked + "=b", "usr/install/amd64/.wh.vmlinuz.efi"}}, is: "b"},
		{name: "an opaque folder", layers: []layer{{asked + "=a"}, {"usr/install/amd64/.wh..wh..opq"}}},
		{name: "an opaque folder above that of the file", layers: []layer{{asked + "=a"}, {"usr/.wh..wh..opq", "usr/bin/x=c"}}},
		{name: "an opaque root", layers: []layer{{asked + "=a"}, {".wh..wh..opq"}}},
		{name: "an opaque folder hides nothing of its own layer", layers: []layer{{asked + "=a"}, {asked + "=b", "usr/install/.wh..wh..opq"}}, is: "b"},
		{name: "a file in the place of its folder", layers: []layer{{asked + "=a"}, {"usr/install=c"}}},
		{name: "a whiteout hides nothing above", layers: []layer{{"usr/.wh.install"}, {asked + "=a"}}, is: "a"},

		{name: "a symbolic link beside", layers: []layer{{"usr/install/amd64/uki=a", asked + " -> uki"}}, path: "usr/install/amd64/uki", is: "a"},
		{name: "an absolute symbolic link into a lower layer", layers: []layer{{"boot/uki=a"}, {asked + " -> /boot/uki"}}, path: "boot/uki", is: "a"},
		{name: "a symbolic link out of the root stays below it", layers: []layer{{"boot/uki=a", asked + " -> ../../../../../boot/uki"}}, path: "boot/uki", is: "a"},
		{name: "a symbolic link in the place of a folder", layers: []layer{{"opt/amd64/vmlinuz.efi=a", "usr/install -> ../opt"}}, path: "opt/amd64/vmlinuz.efi", is: "a"},
		{name: "a symbolic link that goes in circles", layers: []layer{{asked + " -> vmlinuz.efi"}}, says: "too many symbolic links"},
		{name: "a symbolic link to nothing", layers: []layer{{asked + " -> nothing"}}},

		{name: "a hard link", layers: []layer{{"boot/uki=a", asked + " => boot/uki"}}, is: "a"},
		{name: "a hard link to a hard link", layers: []layer{{"a=a", "b => a", asked + " => /b"}}, is: "a"},
		{name: "a hard link into a lower layer", layers: []layer{{"boot/uki=a"}, {asked + " => boot/uki"}}, is: "a"},
		{name: "a hard link to what a later layer replaced", layers: []layer{{"boot/uki=a", asked + " => boot/uki"}, {"boot/uki=b"}}, is: "a"},
		{name: "a hard link to what a later layer took away", layers: []layer{{"boot/uki=a", asked + " => boot/uki"}, {".wh.boot"}}, is: "a"},
		{name: "a hard link to nothing", layers: []layer{{asked + " => boot/uki"}}, says: "which is not there"},
		{name: "a hard link to a later entry", layers: []layer{{asked + " => boot/uki", "boot/uki=a"}}, says: "which is not there"},

		{name: "a folder", layers: []layer{{asked + "/"}}, says: "not a regular file"},
	} {
		t.Run(scenario.name, func(t *testing.T) {
			for _, wanted := range [][]string{nil, {asked}} { // read twice, and copied on the way
				tree, err := oci.ReadTree(t.Context(), image(t, scenario.layers...), t.TempDir(), wanted, nil, nil)
				if err != nil {
					t.Fatal(err)
				}
				f, err := tree.Find(asked)
				switch {
				case scenario.says != "":
					if err == nil || !strings.Contains(err.Error(), scenario.says) {
						t.Fatalf("got %v, want an error that says %q", err, scenario.says)
					}
					continue
				case scenario.is == "":
					if !errors.Is(err, fs.ErrNotExist) {
						t.Fatalf("got %+v, %v", f, err)
					}
					continue
				case err != nil:
					t.Fatal(err)
				}
				path := scenario.path
				if path == "" {
					path = asked
				}
				if f.Path != path || f.Mode != 0o640 || f.UID != 7 || f.Size != int64(len(scenario.is)) {
					t.Errorf("%+v", f)
				}
				at, err := tree.Copy(t.Context(), f)
				if err != nil {
					t.Fatal(err)
				}
				if b, err := os.ReadFile(at); err != nil || string(b) != scenario.is {
					t.Errorf("its content is %q, %v; want %q", b, err, scenario.is)
				}
			}
		})
	}
}

func TestALayerThatIsNoneIsAnError(t *testing.T) {
	for name, content := range map[string]string{
		"not an archive":        strings.Repeat("this is no archive ", 100),
		"an archive cut short":  string(whole(t, layer{"etc/x=" + strings.Repeat("c", 5000)})[:2000]),
		"a header that is torn": string(whole(t, layer{"etc/x=c"})[:300]),
	} {
		t.Run(name, func(t *testing.T) {
			l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil })
			if err != nil {
				t.Fatal(err)
			}
			i, err := mutate.AppendLayers(empty.Image, layer{"etc/x=c"}.make(t), l)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := oci.ReadTree(t.Context(), i, t.TempDir(), nil, nil, nil); err == nil || !strings.HasPrefix(err.Error(), "layer 2 of 2: ") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// whole is a layer as it is uncompressed.
func whole(t *testing.T, l layer) []byte {
	t.Helper()
	r, err := l.make(t).Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestReadingATreeStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := oci.ReadTree(ctx, image(t, layer{"etc/x=c"}), t.TempDir(), nil, nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
