//go:build unix

package initramfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/image/limit"
)

// Images that are small and made to cost much.

// windowed is frames of zstd, each an archive of its own that asks for a window of 128 MiB.
func windowed(t testing.TB, frames int, first ...entry) []byte {
	t.Helper()
	var all bytes.Buffer
	for i := range frames {
		entries := []entry{file(fmt.Sprint("f", i), strings.Repeat("x", 64))}
		if i == 0 {
			entries = append(entries, first...)
		}
		plain := archiveOf(t, Plain, entries...)
		packed := binary.LittleEndian.AppendUint32(nil, 0xfd2fb528)
		packed = append(packed, 0x00, (27-10)<<3)                                                 // no single segment; a window of 2^27
		packed = append(packed, byte(len(plain)<<3|1), byte(len(plain)>>5), byte(len(plain)>>13)) // one block, raw, the last
		all.Write(append(packed, plain...))
	}
	return all.Bytes()
}

// chained is links that lead one to the next, each by a thousand steps on the spot, and files behind them.
func chained(t testing.TB, files int) []byte {
	t.Helper()
	entries := []entry{file("init", initProgram), dir("l39")}
	for i := range 39 {
		entries = append(entries, link(fmt.Sprint("l", i), strings.Repeat("./", 1000)+fmt.Sprint("l", i+1)))
	}
	for i := range files {
		entries = append(entries, file(fmt.Sprint("l0/f", i), ""))
	}
	return archiveOf(t, Zstd, entries...)
}

// swollen is an archive with a file of that many zero bytes.
func swollen(t testing.TB, size int64) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	w := &archiveWriter{w: z}
	h := file("init", "").header
	h.size = uint32(size)
	if err := w.write("init", h, io.LimitReader(endless{}, size)); err != nil {
		t.Fatal(err)
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// cost is what a call takes: bytes that it asks the allocator for, and seconds of the processor in all of its threads. It
// is not time on a clock, so that a busy machine changes no verdict.
func cost(call func()) (bytes uint64, seconds float64) {
	used := func() (m runtime.MemStats, cpu float64) {
		runtime.ReadMemStats(&m)
		var u unix.Rusage
		if unix.Getrusage(unix.RUSAGE_SELF, &u) == nil {
			cpu = float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
		}
		return m, cpu
	}
	before, began := used()
	call()
	after, ended := used()
	return after.TotalAlloc - before.TotalAlloc, ended - began
}

// Not beside others: what they allocate would count.
func TestASmallFileCostsLittle(t *testing.T) {
	const window = 128 << 20
	for _, c := range []struct {
		name  string
		image []byte
		most  uint64 // bytes allocated
	}{
		{"fifty frames, each with a window of 128 MiB", windowed(t, 50, file("init", initProgram)), window + window/2},
		{"four thousand of them", windowed(t, 4000, file("init", initProgram)), window + window},
		{"links that lead round on the spot", chained(t, 8000), 64 << 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			bytes, seconds := cost(func() {
				if _, err := readBytes(c.image); err != nil && !errors.As(err, new(*limit.Exceeded)) {
					t.Error(err)
				}
			})
			if underRace {
				c.most *= 16 // and still a part of the gigabytes that it was
			}
			t.Logf("%d bytes: %d MiB allocated, %.2f s", len(c.image), bytes>>20, seconds)
			if bytes > c.most {
				t.Errorf("%d MiB allocated, more than %d", bytes>>20, c.most>>20)
			}
			if seconds > 10 { // it was 16 to 100
				t.Errorf("%.1f s of the processor", seconds)
			}
		})
	}
}

func TestALimitIsNamedWithTheFlagThatRaisesIt(t *testing.T) {
	t.Parallel()
	many := archiveOf(t, Gzip, file("init", initProgram), file("a", ""), file("b", ""), file("c", ""))
	for _, c := range []struct {
		name  string
		image []byte
		limit limit.Limits
		flag  string
	}{
		{"bytes", swollen(t, 1<<20), limit.Limits{Unpacked: 1 << 19}, limit.UnpackedFlag},
		{"zeros", join(archiveOf(t, Gzip, file("init", initProgram)), packed(t, Gzip, join(archiveOf(t, Plain), zeros(1<<20)))), limit.Limits{Unpacked: 1 << 19}, limit.UnpackedFlag},
		{"entries", many, limit.Limits{Entries: 3}, limit.EntriesFlag},
		{"names", archiveOf(t, Plain, file("init", initProgram), file(strings.Repeat("n", 200), "")), limit.Limits{Entries: 3}, limit.EntriesFlag},
		{"steps", chained(t, 10), limit.Limits{Steps: 1000}, limit.StepsFlag},
		{"time", many, limit.Limits{Time: 1}, limit.TimeFlag},
	} {
		t.Run(c.name, func(t *testing.T) {
			read := func(l limit.Limits) error {
				_, err := Read(ctx, bytes.NewReader(c.image), int64(len(c.image)), &limit.Budget{Limits: l}, nil)
				return err
			}
			var exceeded *limit.Exceeded
			if err := read(c.limit); !errors.As(err, &exceeded) || exceeded.Flag != c.flag || !strings.Contains(err.Error(), c.flag) {
				t.Errorf("the error is %v", err)
			}
			if err := read(limit.Limits{}); err != nil {
				t.Errorf("within the limits: %v", err)
			}
		})
	}
}

func TestTheArchivesOfOneFileShareItsBudget(t *testing.T) {
	t.Parallel()
	one := swollen(t, 1<<20)
	b := &limit.Budget{Limits: limit.Limits{Unpacked: 3 << 19}}
	read := func() error {
		_, err := Read(ctx, bytes.NewReader(one), int64(len(one)), b, nil)
		return err
	}
	if err := read(); err != nil {
		t.Error(err)
	}
	if err := read(); !errors.As(err, new(*limit.Exceeded)) {
		t.Errorf("the error is %v", err)
	}
}

// edited is bytes with changes in them: each is a place and what is to stand there, in three bytes. A fuzzer that is given
// the changes, and not the file, gets through its work: what it finds is short, and soon made shorter.
func edited(b, edits []byte) []byte {
	b = bytes.Clone(b)
	for ; len(edits) >= 3 && len(b) > 0; edits = edits[3:] {
		b[int(binary.LittleEndian.Uint16(edits))%len(b)] = edits[2]
	}
	return b
}

// Whatever the file, a reader allocates and works in proportion to it, and to what it is allowed to unpack.
func FuzzReadCost(f *testing.F) {
	plain := archiveOf(f, Plain, dir("usr"), link("lib", "usr"), link("l", "lib/../lib/./"), file("init", initProgram), linked("l/x", "x", 3), linked("lib/y", "", 3))
	var images [][]byte // as they are, and then those that are changed before they are packed
	for _, format := range allFormats {
		images = append(images, packed(f, format, plain))
	}
	images = append(images, windowed(f, 3, file("init", initProgram)), chained(f, 5), swollen(f, 1<<20))
	for i := range len(images) + len(allFormats) {
		f.Add(uint8(i), []byte{100, 0, 'f'})
	}
	f.Fuzz(func(t *testing.T, which uint8, edits []byte) {
		image := edited(plain, edits)
		if i := int(which) % (len(images) + len(allFormats)); i < len(images) {
			image = edited(images[i], edits)
		} else {
			image = packed(t, allFormats[i-len(images)], image)
		}
		const unpacked = 4 << 20
		allocated, seconds := cost(func() {
			_, _ = Read(ctx, bytes.NewReader(image), int64(len(image)), &limit.Budget{Limits: limit.Limits{Unpacked: unpacked, Steps: 1 << 18}}, nil)
		})
		// The largest window and dictionary, one time; what the decoders and buffers take; and some for each byte.
		if most := uint64(2*maxWindow + 64<<20 + 4*unpacked + 512*len(image)); allocated > most {
			t.Errorf("%d bytes made it allocate %d MiB", len(image), allocated>>20)
		}
		if seconds > 5 {
			t.Errorf("%d bytes made it work %.1f s", len(image), seconds)
		}
	})
}
