//go:build unix

package initramfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/image/whole"
)

// benchmarked is the size of the images.
const benchmarked = 100 << 20

// BenchmarkAdd adds a helper of 12 MB to images of 100 MB in every compression, each time in a process of its own, and
// reports its peak of memory, the processor's time and the time on the wall:
//
//	go test -run '^$' -bench Add -benchtime 3x ./internal/image/initramfs
//
// "packed" is what an image of Talos looks like: an /init of 6 MB, and for the rest one file that is packed already.
// "files" is what a distribution's looks like: a thousand programs and modules, which pack as code does.
func BenchmarkAdd(b *testing.B) {
	dir := b.TempDir()
	helper := filepath.Join(dir, "helper")
	if err := os.WriteFile(helper, code(1, program(amd64, ""), 12<<20), 0o600); err != nil {
		b.Fatal(err)
	}
	for _, shape := range []struct {
		name  string
		plain func(w io.Writer, enough func() bool) error
	}{{"packed", talosShaped}, {"files", distributionShaped}} {
		for _, format := range allFormats {
			b.Run(shape.name+"/"+format.String(), func(b *testing.B) {
				image := filepath.Join(dir, "image")
				if err := packedTo(b, image, format, shape.plain); err != nil {
					b.Fatal(err)
				}
				var peak, user, system float64
				for b.Loop() {
					cmd := exec.CommandContext(b.Context(), os.Args[0], "-test.run", "^TestBenchmarkedAdd$") //nolint:gosec // this test
					cmd.Env = append(os.Environ(), "NAMETAG_BENCHMARKED="+image, "NAMETAG_BENCHMARKED_HELPER="+helper)
					out, err := cmd.CombinedOutput()
					if err != nil {
						b.Fatalf("%v: %s", err, out)
					}
					// Not what wait4 reports, which for a child begins with its parent's.
					var kib float64
					if _, err := fmt.Sscanf(string(out), "VmHWM: %f", &kib); err != nil {
						b.Fatalf("%v: %s", err, out)
					}
					peak = max(peak, kib/1024)
					user += cmd.ProcessState.UserTime().Seconds()
					system += cmd.ProcessState.SystemTime().Seconds()
				}
				st, err := os.Stat(image)
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(st.Size())
				b.ReportMetric(user/float64(b.N), "user-s/op")
				b.ReportMetric(system/float64(b.N), "sys-s/op")
				b.ReportMetric(peak, "peak-MiB")
			})
		}
	}
}

// TestBenchmarkedAdd is what BenchmarkAdd runs, and does nothing else.
func TestBenchmarkedAdd(t *testing.T) {
	name := os.Getenv("NAMETAG_BENCHMARKED")
	if name == "" {
		return // a part of BenchmarkAdd
	}
	err := func() error {
		image, err := os.Open(name) //nolint:gosec // BenchmarkAdd's
		if err != nil {
			return err
		}
		defer image.Close()
		size, err := image.Seek(0, io.SeekEnd)
		if err != nil {
			return err
		}
		helper, err := os.Open(os.Getenv("NAMETAG_BENCHMARKED_HELPER"))
		if err != nil {
			return err
		}
		defer helper.Close()
		st, err := helper.Stat()
		if err != nil {
			return err
		}
		h, err := NewHelper(helper, st.Size())
		if err != nil {
			return err
		}
		im, err := Read(t.Context(), image, size, nil, nil)
		if err != nil {
			return err
		}
		return whole.File(name+".new", 0o600, func(w *os.File) error {
			_, err := im.Add(t.Context(), w, h, Options{})
			return err
		})
	}()
	if err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "VmHWM:") {
			fmt.Print(line)
		}
	}
}

// code is bytes that pack about as machine code does: by xz to a third, by gzip to a half.
func code(seed uint64, begin string, size int) []byte {
	r := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // the same each time
	b := append(make([]byte, 0, size+64), begin...)
	for len(b) < size {
		if r.IntN(3) > 0 && len(b) > 1<<12 { // what came before, most of it not long ago
			from := len(b) - min(len(b), int(math.Exp2(20*r.Float64())))
			b = append(b, b[from:min(len(b), from+4+r.IntN(16))]...)
			continue
		}
		for range 1 + r.IntN(8) {
			b = append(b, byte(min(255, r.ExpFloat64()*20)))
		}
	}
	return b[:size]
}

// packedTo packs what plain writes as Debian's tools do.
func packedTo(b *testing.B, name string, format Format, plain func(io.Writer, func() bool) error) error {
	file, err := os.Create(name) //nolint:gosec // the benchmark's own
	if err != nil {
		return err
	}
	defer file.Close()
	args := map[Format]string{
		Plain: "cat", Gzip: "gzip -nc1", XZ: "xz -c1 --check=crc32 --threads=1", Zstd: "zstd -qc3 --long=23", LZ4: "lz4 -lcq",
	}
	words := strings.Fields(args[format])
	cmd := exec.CommandContext(b.Context(), words[0], words[1:]...) //nolint:gosec // as above
	cmd.Stdout = file
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return err
	}
	err = plain(in, func() bool {
		st, err := file.Stat()
		return err != nil || st.Size() >= benchmarked
	})
	return errors.Join(err, in.Close(), cmd.Wait())
}

// talosShaped writes what "packed" unpacks to.
func talosShaped(w io.Writer, _ func() bool) error {
	out := &archiveWriter{w: w}
	text := code(2, program(amd64, ""), 6<<20)
	if err := out.write("init", header{mode: unix.S_IFREG | 0o755, size: uint32(len(text))}, bytes.NewReader(text)); err != nil { //nolint:gosec // 6 MiB
		return err
	}
	const size = benchmarked - 3<<20
	noise := rand.NewChaCha8([32]byte{})
	if err := out.write("rootfs.sqsh", header{mode: unix.S_IFREG | 0o644, size: size}, io.LimitReader(noise, size)); err != nil {
		return err
	}
	return out.close()
}

// distributionShaped writes what "files" unpacks to.
func distributionShaped(w io.Writer, enough func() bool) error {
	out := &archiveWriter{w: w}
	script := "#!/bin/sh\n" + strings.Repeat("mount -t proc none /proc\n", 200)
	if err := out.write("init", header{mode: unix.S_IFREG | 0o755, size: uint32(len(script))}, strings.NewReader(script)); err != nil { //nolint:gosec // small
		return err
	}
	for i := uint64(0); !enough(); i++ {
		text := code(100+i, "", 64<<10+int(i%7)*(24<<10))                                                                                 //nolint:gosec // small
		err := out.write(fmt.Sprintf("module-%d", i), header{mode: unix.S_IFREG | 0o644, size: uint32(len(text))}, bytes.NewReader(text)) //nolint:gosec // small
		if err != nil {
			return err
		}
	}
	return out.close()
}
