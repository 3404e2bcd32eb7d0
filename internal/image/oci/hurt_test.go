package oci_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/nametag-boot/nametag/internal/image/limit"
	"github.com/nametag-boot/nametag/internal/image/oci"
)

// sparse is a tar archive with one file, of which 512 bytes are there, and that is to be as long as the size says.
func sparse(name string, size int64) []byte {
	b := make([]byte, 3*512+512*2)
	h := b[:512]
	copy(h, name)
	octal := func(at, width int, n int64) { copy(h[at:], fmt.Sprintf("%0*o\x00", width-1, n)) }
	octal(100, 8, 0o644)
	octal(108, 8, 0)
	octal(116, 8, 0)
	octal(124, 12, 512)
	octal(136, 12, 0)
	h[156] = 'S'
	copy(h[257:], "ustar  \x00")
	octal(386, 12, 0)
	octal(398, 12, 512)
	if size < 1<<33 {
		octal(483, 12, size)
	}
	copy(h[148:], "        ")
	sum := int64(0)
	for _, c := range h {
		sum += int64(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

// layerOf is a layer with that content, compressed.
func layerOf(t *testing.T, content io.Reader) v1.Layer {
	t.Helper()
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(z, content); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

const wanted = "usr/install/amd64/vmlinuz.efi"

// Three gigabytes were written to the scratch folder for twenty kilobytes.
func TestALayerThatUnpacksToTooMuchIsRefused(t *testing.T) {
	zeros := func(n int64) io.Reader { return io.LimitReader(zero{}, n) }
	header := func(size int64) io.Reader {
		var b bytes.Buffer
		if err := tar.NewWriter(&b).WriteHeader(&tar.Header{Name: wanted, Mode: 0o644, Size: size}); err != nil {
			t.Fatal(err)
		}
		return &b
	}
	many := func(n int, name string) io.Reader {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for i := range n {
			if err := w.WriteHeader(&tar.Header{Name: fmt.Sprint(name, i), Mode: 0o644}); err != nil {
				t.Fatal(err)
			}
		}
		return &b
	}
	for _, c := range []struct {
		name    string
		content io.Reader
		limits  limit.Limits
		flag    string
	}{
		{"a sparse file", bytes.NewReader(sparse(wanted, 3<<30)), limit.Limits{Unpacked: 16 << 20}, limit.UnpackedFlag},
		{"a sparse file, by default", bytes.NewReader(sparse(wanted, 7<<30)), limit.Limits{Unpacked: 1 << 30}, limit.UnpackedFlag},
		{"zeros that pack well", io.MultiReader(header(1<<30), zeros(32<<20)), limit.Limits{Unpacked: 16 << 20}, limit.UnpackedFlag},
		{"what is behind the archive's end", io.MultiReader(zeros(1024), zeros(32<<20)), limit.Limits{Unpacked: 16 << 20}, limit.UnpackedFlag},
		{"entries", many(1001, "f"), limit.Limits{Entries: 1000}, limit.EntriesFlag},
		{"long names", many(100, strings.Repeat("n", 1000)), limit.Limits{Entries: 1000}, limit.EntriesFlag},
		{"deep names", many(100, strings.Repeat("d/", 1000)), limit.Limits{Steps: 10_000}, limit.StepsFlag},
	} {
		t.Run(c.name, func(t *testing.T) {
			i, err := mutate.AppendLayers(empty.Image, layerOf(t, c.content))
			if err != nil {
				t.Fatal(err)
			}
			scratch := t.TempDir()
			_, err = oci.ReadTree(t.Context(), i, scratch, []string{wanted}, &limit.Budget{Limits: c.limits}, nil)
			var exceeded *limit.Exceeded
			if !errors.As(err, &exceeded) || exceeded.Flag != c.flag {
				t.Errorf("got %v", err)
			}
			var written int64
			files, _ := filepath.Glob(filepath.Join(scratch, "*"))
			for _, f := range files {
				if st, err := os.Stat(f); err == nil {
					written += st.Size()
				}
			}
			if most := c.limits.Unpacked; most > 0 && written > most {
				t.Errorf("%d bytes were written, and %d allowed", written, most)
			}
		})
	}
}

type zero struct{}

func (zero) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// The archive's own files are read whole into memory by whoever reads a configuration.
func TestAnArchiveWithASparseFileIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.tar")
	if err := os.WriteFile(file, sparse("manifest.json", 7<<30), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, where := range []string{file, "docker-archive:" + file, "oci-archive:" + file} {
		if _, err := oci.Open(t.Context(), where, oci.Registry{}); err == nil || !strings.Contains(err.Error(), "sparse") {
			t.Errorf("%s: got %v", where, err)
		}
	}
}
