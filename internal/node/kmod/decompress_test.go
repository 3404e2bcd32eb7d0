//go:build linux

package kmod

import (
	"bytes"
	"compress/gzip"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// compressed compresses text.
func compressed(t testing.TB, f format, text string) string {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch f {
	case xzFormat:
		w, err = xz.WriterConfig{CheckSum: xz.CRC32}.NewWriter(&b)
	case zstdFormat:
		w, err = zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1))
	case gzipFormat:
		w = gzip.NewWriter(&b)
	default:
		return text
	}
	if err == nil {
		_, err = io.WriteString(w, text)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// noise is text that does not compress to nothing.
func noise(n int) string {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.IntN(16))
	}
	return string(b)
}

func TestCompressedModulesAreLoaded(t *testing.T) {
	const size = 300_000
	for ext, f := range map[string]format{".ko": plain, ".ko.xz": xzFormat, ".ko.zst": zstdFormat, ".ko.gz": gzipFormat} {
		t.Run(ext, func(t *testing.T) {
			m := newMachine(t)
			text := elf("nic") + strings.Repeat(" ", 64) + noise(size)
			write(t, modulesDir(m.root), map[string]string{
				"modules.alias": "alias pci:* nic\n", "modules.dep": "nic" + ext + ":\n", "nic" + ext: compressed(t, f, text),
			})
			m.plug("pci", "0", nicPCI)
			if got, err := m.load(m.loader()); err != nil || !slices.Equal(got, []string{"nic"}) {
				t.Fatalf("loaded %q, %v", got, err)
			}
			if f != plain && m.kernel.bytes != len(text) {
				t.Errorf("the kernel was given %d bytes, want %d", m.kernel.bytes, len(text))
			}
		})
	}
}

func TestDamagedModulesAreNotGivenToTheKernel(t *testing.T) {
	text := elf("nic") + noise(100_000)
	for name, f := range map[string]format{"xz": xzFormat, "zstd": zstdFormat, "gzip": gzipFormat} {
		whole := compressed(t, f, text)
		for what, file := range map[string]string{
			"cut in the middle":    whole[:len(whole)/2],
			"cut in its header":    whole[:7],
			"cut before its check": whole[:len(whole)-30],
			"with a bit turned":    whole[:len(whole)/2] + string(whole[len(whole)/2]^1) + whole[len(whole)/2+1:],
		} {
			t.Run(name+" "+what, func(t *testing.T) {
				m := newMachine(t)
				write(t, modulesDir(m.root), map[string]string{"modules.alias": "alias pci:* nic\n", "modules.dep": "nic.ko:\n", "nic.ko": file})
				m.plug("pci", "0", nicPCI)
				got, err := m.load(m.loader())
				if e, ok := errors.AsType[*Error](err); !ok || e.Remedy == "" || len(got) > 0 || len(m.kernel.calls) > 0 {
					t.Errorf("loaded %q, %v", got, err)
				}
				if strings.HasPrefix(what, "cut") && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("%v does not say that it is cut short", err)
				}
			})
		}
	}
}

func TestABombIsDefused(t *testing.T) {
	const limit = 1 << 20
	for name, f := range map[string]format{"plain": plain, "xz": xzFormat, "zstd": zstdFormat, "gzip": gzipFormat} {
		for size, refused := range map[int]bool{limit: false, limit + 1: true} {
			var got counter
			err := decompress(&got, strings.NewReader(compressed(t, f, strings.Repeat("\x00", size))), f, limit)
			if refused != (err != nil) || got > limit+1 {
				t.Errorf("%s: %d bytes: %d come out, %v", name, size, got, err)
			}
		}
	}
}

func TestWhatTheUsualToolsMake(t *testing.T) {
	text := elf("nic") + noise(400_000)
	for _, line := range []string{
		"xz -0", "xz -6", "xz -9e", "xz --check=crc32 --lzma2=dict=1MiB", "xz --check=crc64", "xz --check=sha256", "xz --check=none",
		"xz -T2 --block-size=100000", "zstd -1", "zstd -19", "zstd --ultra -22", "zstd --no-check", "gzip -9",
	} {
		t.Run(line, func(t *testing.T) {
			args := strings.Fields(line)
			name := t.TempDir() + "/file"
			if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := exec.LookPath(args[0]); err != nil {
				missing(t, "apt-get install xz-utils zstd gzip: %v", err)
			}
			file, err := exec.Command(args[0], append(args[1:], "-c", name)...).Output()
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			if err := os.WriteFile(name, file, 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			kind, err := formatOf(f)
			if err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			if err := decompress(&got, f, kind, largest); err != nil || got.String() != text {
				t.Errorf("%d bytes of %d, %v", got.Len(), len(text), err)
			}
		})
	}
}

func TestXZThatModulesAreNotMadeWith(t *testing.T) {
	whole := compressed(t, xzFormat, "text")
	// The first block's header begins at 12: size, flags, filter 0x21, 1 byte, the
	// dictionary's size; its check is in its last four bytes.
	change := func(at int, to byte) string {
		b := []byte(whole)
		b[at] = to
		end := 12 + 4*(int(b[12])+1)
		sum := crc32.ChecksumIEEE(b[12 : end-4])
		b[end-4], b[end-3], b[end-2], b[end-1] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
		return string(b)
	}
	for name, file := range map[string]string{
		"a header's check that does not fit": whole[:13] + "\x01" + whole[14:],
		"two filters":                        change(13, 0x01),
		"a size that takes up the header":    change(13, 0x40),
		"a dictionary larger than any":       change(16, 41),
		"a dictionary of 4 GiB":              change(16, 40), // a forged one: nothing of that size is ever asked for
		"a stream's header with new flags":   whole[:6] + "\x01" + whole[7:],
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := decompress(io.Discard, strings.NewReader(file), xzFormat, largest)
			runtime.ReadMemStats(&after)
			if err == nil {
				t.Error("it is decompressed")
			}
			if took := after.TotalAlloc - before.TotalAlloc; took > dictionary+(8<<20) {
				t.Errorf("%d MiB were allocated", took>>20)
			}
		})
	}
}

func FuzzDecompress(f *testing.F) {
	for _, kind := range []format{xzFormat, zstdFormat, gzipFormat} {
		f.Add(uint8(kind), []byte(compressed(f, kind, "some text, some text, some text")))
	}
	f.Fuzz(func(t *testing.T, kind uint8, data []byte) {
		var got counter
		const limit = 1 << 20
		if err := decompress(&got, bytes.NewReader(data), format(kind%4), limit); err == nil && got > limit {
			t.Fatalf("%d bytes", got)
		}
	})
}

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
