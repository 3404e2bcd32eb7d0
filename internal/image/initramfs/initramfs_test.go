//go:build unix

package initramfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/u-root/u-root/pkg/cpio"
	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/image/helper"
)

var allFormats = []Format{Plain, Gzip, XZ, Zstd, LZ4}

// microcode is an archive that stands in front, as it is.
func microcode(t testing.TB) []byte {
	return archiveOf(t, Plain, dir("kernel"), dir("kernel/x86"), dir("kernel/x86/microcode"), file("kernel/x86/microcode/GenuineIntel.bin", strings.Repeat("\x01\x00", 700)))
}

func zeros(n int) []byte { return make([]byte, n) }

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func TestWhatDebiansToolsMakeIsAddedToAndTakenBackByteForByte(t *testing.T) {
	t.Parallel()
	h, other := aHelper(t, helperProgram), aHelper(t, program(amd64, "another nametag"))
	for _, format := range allFormats {
		for _, way := range []Way{AsInit, RDInit} {
			for _, shape := range []string{"alone", "behind microcode", "with zero bytes behind it"} {
				t.Run(fmt.Sprintf("%s, %s, %s", format, way, shape), func(t *testing.T) {
					t.Parallel()
					image := debian(t, format)
					switch shape {
					case "behind microcode":
						image = join(microcode(t), zeros(512), image)
					case "with zero bytes behind it":
						image = join(image, zeros(517))
					}
					o, want := Options{Way: way}, format
					if format == XZ && shape != "alone" {
						o.Format = &format // it packs then, and not only in form
					}
					added, c := mustAdd(t, image, h, o)
					if !bytes.HasPrefix(added, image) {
						t.Fatal("what was there is not there as it was")
					}
					if c.Segment.Format != want {
						t.Errorf("it is compressed by %s, not %s", c.Segment.Format, want)
					}
					im := mustRead(t, added)
					last := im.Segments[len(im.Segments)-1]
					if last.Added == nil || last.Offset != c.Segment.Offset || last.Size != c.Segment.Size {
						t.Errorf("the last archive is %+v, the change spoke of %+v", last, c.Segment)
					}
					if way == AsInit {
						if contentOf(t, im, "init") != helperProgram || contentOf(t, im, "init.next") != initProgram {
							t.Error("/init is not nametag, or /init.next not what /init was")
						}
					} else if contentOf(t, im, DefaultPath) != helperProgram || contentOf(t, im, "init") != initProgram {
						t.Error("the helper is not at its path, or /init not what it was")
					}
					independent(t, added[last.Offset:last.End()], last)

					if again, c := mustAdd(t, added, h, o); c.Changed || !bytes.Equal(again, added) {
						t.Error("adding twice changed something")
					}
					o.Way = 1 - way
					replaced, c := mustAdd(t, added, other, o)
					if !c.Changed || !c.Replaced {
						t.Errorf("another helper: %+v", c)
					}
					if fresh, _ := mustAdd(t, image, other, o); !bytes.Equal(fresh, replaced) {
						t.Error("replaced is not the same as added afresh")
					}
					for _, b := range [][]byte{added, replaced} {
						var out bytes.Buffer
						if _, err := mustRead(t, b).Remove(ctx, &out); err != nil {
							t.Fatal(err)
						}
						if !bytes.Equal(out.Bytes(), image) {
							t.Error("what is left is not what was there before")
						}
					}
				})
			}
		}
	}
}

// independent reads our archive by others' programs.
func independent(t *testing.T, b []byte, s Segment) {
	t.Helper()
	plain := unpackTool(t, s.Format, b)
	listed := strings.Fields(string(tool(t, plain, "cpio", "-it", "--quiet")))
	if got := strings.Join(listed, " "); got != strings.Join(s.Added.Entries, " ") {
		t.Errorf("cpio lists %q", got)
	}
	r := cpio.Newc.Reader(bytes.NewReader(plain))
	for _, want := range s.Added.Entries {
		record, err := r.ReadRecord()
		if err != nil || record.Name != want {
			t.Fatalf("u-root reads %q, %v; want %q", record.Name, err, want)
		}
	}
	if _, err := r.ReadRecord(); !errors.Is(err, io.EOF) {
		t.Errorf("behind the last entry: %v", err)
	}
}

func TestAnArchiveStandsWhereTheKernelFindsIt(t *testing.T) {
	t.Parallel()
	h := aHelper(t, helperProgram)
	for _, last := range allFormats {
		for _, next := range allFormats {
			for _, behind := range []int{0, 1, 2, 3, 4, 5, 508} {
				if last == Plain && behind%4 != 0 {
					continue // its own end is a multiple of four
				}
				image := join(archiveOf(t, last, file("init", initProgram)), zeros(behind))
				format := next
				added, c := mustAdd(t, image, h, Options{Format: &format})
				gap := c.Segment.Offset - int64(len(image)) + int64(behind)
				switch {
				case last == LZ4 && (gap != 0 || next != LZ4) && gap < 4:
					t.Errorf("%s behind lz4 and %d zero bytes: %d in between; the kernel reads on", next, behind, gap)
				case c.Segment.Offset%4 != 0 && (last == Plain || next == Plain):
					t.Errorf("%s behind %s and %d zero bytes: at byte %d", next, last, behind, c.Segment.Offset)
				case behind == 0 && gap > 0 && last != LZ4 && last != Plain && next != Plain:
					t.Errorf("%s behind %s: %d zero bytes in between, which their tools take for damage", next, last, gap)
				}
				if im := mustRead(t, added); contentOf(t, im, "init") != helperProgram {
					t.Errorf("%s behind %s and %d zero bytes: not found", next, last, behind)
				}
			}
		}
	}
}

func TestHowTheImageDecides(t *testing.T) {
	t.Parallel()
	t.Run("plain behind zstd: the kernel can read zstd", func(t *testing.T) {
		image := join(archiveOf(t, Zstd, file("init", initProgram)), zeros(3))
		image = join(image, zeros(-len(image)&3), archiveOf(t, Plain, file("x", "y")))
		if _, c := mustAdd(t, image, aHelper(t, helperProgram), Options{}); c.Segment.Format != Zstd {
			t.Errorf("it is compressed by %s", c.Segment.Format)
		}
	})
	t.Run("the last /init of several archives is the original", func(t *testing.T) {
		image := join(archiveOf(t, Plain, file("init", program(amd64, "old"))), archiveOf(t, Gzip, file("./init", initProgram)))
		added, _ := mustAdd(t, image, aHelper(t, helperProgram), Options{})
		if contentOf(t, mustRead(t, added), "init.next") != initProgram {
			t.Error("/init.next is not the last /init")
		}
	})
	t.Run("mode and owner of /init go along", func(t *testing.T) {
		e := file("init", initProgram)
		e.mode = unix.S_IFREG | 0o4750
		added, _ := mustAdd(t, archiveOf(t, Zstd, e), aHelper(t, helperProgram), Options{})
		im := mustRead(t, added)
		if n, err := im.Lookup("init.next"); err != nil || n.Mode != unix.S_IFREG|0o4750 {
			t.Errorf("/init.next: %+v, %v", n, err)
		}
		if n, err := im.Lookup("init"); err != nil || n.Mode != unix.S_IFREG|0o755 {
			t.Errorf("/init: %+v, %v", n, err)
		}
	})
	t.Run("/init is a link: /init.next is one to the same", func(t *testing.T) {
		image := archiveOf(t, Zstd, dir("sbin"), file("sbin/real", initProgram), link("init", "sbin/real"))
		added, _ := mustAdd(t, image, aHelper(t, helperProgram), Options{})
		im := mustRead(t, added)
		if contentOf(t, im, "init") != helperProgram || contentOf(t, im, "init.next") != initProgram || contentOf(t, im, "sbin/real") != initProgram {
			t.Error("the link was written through, or lost")
		}
	})
	t.Run("/init is a hard link: the file's other names keep their content", func(t *testing.T) {
		image := archiveOf(t, Zstd, dir("bin"), linked("bin/busybox", "", 7), linked("init", initProgram, 7))
		added, c := mustAdd(t, image, aHelper(t, helperProgram), Options{})
		im := mustRead(t, added)
		if contentOf(t, im, "init") != helperProgram || contentOf(t, im, "init.next") != initProgram || contentOf(t, im, "bin/busybox") != initProgram {
			t.Error("what was written to /init is in the other name too")
		}
		if again, c := mustAdd(t, added, aHelper(t, helperProgram), Options{}); c.Changed || len(again) != len(added) {
			t.Error("adding twice changed something")
		}
		if got := strings.Join(c.Segment.Added.Entries, " "); got != ".nametag.json dev dev/null init.next init init" {
			t.Errorf("the entries are %s", got)
		}
	})
	t.Run("/init is a script: its interpreter tells the processor", func(t *testing.T) {
		image := archiveOf(t, Zstd, dir("bin"), file("bin/busybox", program(arm64, "")), link("bin/sh", "busybox"), file("init", "#! /bin/sh -e\n"))
		var refused *RefusedError
		if _, err := mustRead(t, image).Add(ctx, io.Discard, aHelper(t, helperProgram), Options{}); !errors.As(err, &refused) || !strings.Contains(err.Error(), "arm64") {
			t.Errorf("the error is %v", err)
		}
		mustAdd(t, image, aHelper(t, program(arm64, "nametag")), Options{})
	})
	t.Run("folders on the way are made where they are missing, and left alone where they are not", func(t *testing.T) {
		image := archiveOf(t, Zstd, file("init", initProgram), dir("usr"), entry{"usr/lib", header{mode: unix.S_IFDIR | 0o700}, ""}, link("lib", "usr/lib"))
		added, c := mustAdd(t, image, aHelper(t, helperProgram), Options{Way: RDInit, Path: "/lib/firmware/nametag/nametag"})
		if got := strings.Join(c.Segment.Added.Entries, " "); got != ".nametag.json dev dev/null lib/firmware lib/firmware/nametag lib/firmware/nametag/nametag" {
			t.Errorf("the entries are %s", got)
		}
		im := mustRead(t, added)
		if contentOf(t, im, "usr/lib/firmware/nametag/nametag") != helperProgram {
			t.Error("it is not behind the link")
		}
		if n, err := im.Lookup("usr/lib"); err != nil || n.Mode&0o777 != 0o700 {
			t.Errorf("usr/lib: %+v, %v", n, err)
		}
	})
}

// Go's runtime needs one where the kernel has no console.
func TestAnImageWithoutADevNullGetsOne(t *testing.T) {
	t.Parallel()
	h := aHelper(t, helperProgram)
	init := file("init", initProgram)
	null := func(name string, mode uint32) entry {
		return entry{name, header{mode: unix.S_IFCHR | mode, rmajor: 1, rminor: 3}, ""}
	}
	for _, tt := range []struct {
		name    string
		entries []entry
		want    string // our entries beside the marker and the helper's
	}{
		{"no /dev", []entry{init}, "dev dev/null"},
		{"an empty /dev", []entry{init, dir("dev")}, "dev/null"},
		{"/dev is elsewhere", []entry{init, dir("devices"), link("dev", "devices")}, "dev/null"},
		{"there is one", []entry{init, dir("dev"), null("dev/null", 0o600)}, ""},
		{"there is one elsewhere", []entry{init, dir("devices"), null("devices/null", 0o600), link("dev", "devices")}, ""},
		{"a file of that name", []entry{init, dir("dev"), file("dev/null", "")}, ""},
		{"/dev is a file", []entry{init, file("dev", "")}, ""},
		{"/dev leads nowhere", []entry{init, link("dev", "nowhere")}, ""},
	} {
		for _, way := range []Way{AsInit, RDInit} {
			t.Run(tt.name+", "+way.String(), func(t *testing.T) {
				image := verbatim(tt.entries...)
				added, c := mustAdd(t, image, h, Options{Way: way, Path: "helper"})
				got := strings.Join(slices.DeleteFunc(slices.Clone(c.Segment.Added.Entries), func(name string) bool {
					return name != "dev" && name != nullName
				}), " ")
				if got != tt.want {
					t.Errorf("the entries are %q, not %q", got, tt.want)
				}
				n, err := mustRead(t, added).Lookup(nullName)
				switch {
				case tt.want != "" && (err != nil || n.Mode != unix.S_IFCHR|0o666):
					t.Errorf("it is %+v, %v", n, err)
				case strings.Contains(tt.name, "there is one") && (err != nil || n.Mode != unix.S_IFCHR|0o600):
					t.Errorf("the image's own became %+v, %v", n, err)
				}
				if again, c := mustAdd(t, added, h, Options{Way: way, Path: "helper"}); c.Changed || !bytes.Equal(again, added) {
					t.Error("adding twice changed something")
				}
			})
		}
	}
	t.Run("an archive of ours without one is replaced", func(t *testing.T) {
		image := verbatim(init)
		marker := fmt.Sprintf(`{"schema":%q,"way":"rdinit","path":"helper","helper":%q,"entries":[%q,"helper"]}`, schema, h.SHA256, markerName)
		old := join(image, verbatim(file(markerName, marker), file("helper", helperProgram)))
		if _, c := mustAdd(t, old, h, Options{Way: RDInit, Path: "helper"}); !c.Replaced || !slices.Contains(c.Segment.Added.Entries, nullName) {
			t.Errorf("the change is %+v", c)
		}
	})
	t.Run("the helper in /dev", func(t *testing.T) {
		_, c := mustAdd(t, verbatim(init), h, Options{Way: RDInit, Path: "dev/nametag"})
		if got := strings.Join(c.Segment.Added.Entries, " "); got != ".nametag.json dev dev/null dev/nametag" {
			t.Errorf("the entries are %s", got)
		}
	})
}

func TestAnImageThatIsNotForUsIsRefused(t *testing.T) {
	t.Parallel()
	base := archiveOf(t, Zstd, file("init", initProgram))
	added, _ := mustAdd(t, base, aHelper(t, helperProgram), Options{})
	more := join(added, zeros(-len(added)&3), archiveOf(t, Plain, file("init", program(amd64, "somebody's"))))
	segments := mustRead(t, added).Segments
	ours := unpackTool(t, Zstd, added[segments[1].Offset:])
	for _, tt := range []struct {
		name    string
		image   []byte
		options Options
		says    string
	}{
		{"no /init", archiveOf(t, Zstd, file("linuxrc", initProgram)), Options{}, "no /init"},
		{"microcode alone", microcode(t), Options{Way: RDInit}, "no /init"},
		{"/init cannot be executed", archiveOf(t, Zstd, entry{"init", header{mode: unix.S_IFREG | 0o644}, initProgram}), Options{}, "not a program"},
		{"/init is a folder", archiveOf(t, Zstd, dir("init")), Options{}, "not a program"},
		{"/init leads nowhere", archiveOf(t, Zstd, link("init", "/sbin/\x1b[2Jinit")), Options{}, `link to "/sbin/\x1b[2Jinit", which leads nowhere`},
		{"/init leads to itself", archiveOf(t, Zstd, link("init", "init")), Options{}, "too many symbolic links"},
		{"for another processor", archiveOf(t, Zstd, file("init", program(arm64, ""))), Options{}, "for arm64 and the helper for amd64"},
		{"an /init.next of its own", archiveOf(t, Zstd, file("init", initProgram), file("init.next", "x")), Options{}, "/init.next of its own"},
		{"something at the path", archiveOf(t, Zstd, file("init", initProgram), file("x", "x")), Options{Way: RDInit, Path: "x"}, "/x already"},
		{"a file where a folder belongs", archiveOf(t, Zstd, file("init", initProgram), file("x", "x")), Options{Way: RDInit, Path: "x/y/z"}, "not a folder"},
		{"a dangling link where a folder belongs", archiveOf(t, Zstd, file("init", initProgram), link("x", "nowhere")), Options{Way: RDInit, Path: "x/y"}, "leads nowhere"},
		{"an archive behind ours", more, Options{}, "appended behind nametag's"},
		{"ours repacked with the rest", packed(t, Gzip, join(unpackTool(t, Zstd, base), ours)), Options{}, "it was repacked"},
		{"ours in one stream with another", join(base, zeros(-len(base)&3), packed(t, Gzip, join(ours, unpackTool(t, Zstd, base)))), Options{Way: RDInit}, "not what nametag appended"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			_, err := mustRead(t, tt.image).Add(ctx, &out, aHelper(t, helperProgram), tt.options)
			var refused *RefusedError
			if !errors.As(err, &refused) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("the error is %v, want one with %q", err, tt.says)
			}
			if out.Len() > 0 {
				t.Error("something was written")
			}
		})
	}
	t.Run("nothing was added, nothing is taken away", func(t *testing.T) {
		if _, err := mustRead(t, base).Remove(ctx, io.Discard); !errors.Is(err, ErrNotAdded) {
			t.Errorf("the error is %v", err)
		}
		if _, err := mustRead(t, more).Remove(ctx, io.Discard); err == nil || !strings.Contains(err.Error(), "appended behind") {
			t.Errorf("the error is %v", err)
		}
	})
}

func TestAHelperThatTheKernelCannotRunIsRefused(t *testing.T) {
	t.Parallel()
	dynamic := []byte(program(amd64, "")) // with one program header, PT_INTERP
	dynamic[32], dynamic[56] = 64, 1
	dynamic = append(dynamic, make([]byte, 56)...)
	dynamic[64] = 3
	object := []byte(program(amd64, ""))
	object[16] = 1
	for _, tt := range []struct{ name, text, says string }{
		{"a script", "#!/bin/sh\n", "is not a Linux program"},
		{"one that needs a loader", string(dynamic), "is dynamically linked"},
		{"an object file", string(object), "is not an executable"},
		{"an empty file", "", "is not a Linux program"},
		{"the beginning of one", "\x7fELF\x02\x01\x01", "is not a Linux program"},
		{"one for another machine", program(243, ""), "is for a machine that is neither amd64 nor arm64"},
	} {
		var typed *helper.Error
		if _, err := NewHelper(strings.NewReader(tt.text), int64(len(tt.text))); !errors.As(err, &typed) || !strings.HasPrefix(err.Error(), tt.says) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.says)
		}
	}
}

func TestWhatIsNotUnderstoodIsRefusedAtItsPlace(t *testing.T) {
	t.Parallel()
	small := archiveOf(t, Plain, file("init", initProgram))
	number := func(field int, digits string) []byte {
		b := bytes.Clone(small)
		copy(b[6+8*field:], digits)
		return b
	}
	at := len(small)
	for _, tt := range []struct {
		name   string
		image  []byte
		offset int
		says   string
	}{
		{"nothing", nil, 0, "no archive"},
		{"zero bytes alone", zeros(100), 0, "no archive"},
		{"bzip2", join(small, []byte("BZh91AY&SY")), at, "bzip2"},
		{"lzma", join(small, []byte("\x5d\x00\x00\x80\x00")), at, "lzma"},
		{"lzo", join(small, []byte("\x89LZO\x00")), at, "lzo"},
		{"an lz4 frame", join(small, []byte("\x04\x22\x4d\x18dpag")), at, `"lz4 -l"`},
		{"an old cpio", []byte("0707070000000000000000"), 0, "cpio -H newc"},
		{"a UKI", []byte("MZ\x00\x00\x00\x00\x00\x00"), 0, "nametagctl uki"},
		{"a squashfs", []byte("hsqs\x00\x00\x00\x00"), 0, "squashfs"},
		{"a skippable frame", join(small, []byte("\x50\x2a\x4d\x18\x04\x00\x00\x00")), at, "skippable"},
		{"garbage behind", join(small, zeros(8), []byte("garbage")), at + 8, `"garbage"`},
		{"zstd behind plain, not aligned", join(small, zeros(2), archiveOf(t, Zstd, file("x", "y"))), at + 2, "multiple of four"},
		{"plain behind gzip, not aligned", join(archiveOf(t, Gzip, dir("a")), zeros(5-len(archiveOf(t, Gzip, dir("a")))&3), small), len(archiveOf(t, Gzip, dir("a"))) + 5 - len(archiveOf(t, Gzip, dir("a")))&3, "multiple of four"},
		{"a number that is none", number(6, "0000zz00"), 0, "hexadecimal"},
		{"a name of 4 GiB", number(11, "FFFFFFFF"), 0, "a name of 4294967295 bytes"},
		{"a name of nothing", number(11, "00000000"), 0, "a name of 0 bytes"},
		{"a name without its end", number(11, "00000004"), 0, "a name without its end"},
		{"a file of 4 GiB", number(6, "FFFFFFFF"), 0, "cut off"},
		{"a type that is none", number(1, "000041ED")[:6+16], 0, "cut off"},
		{"a mode that is none", number(1, "0000F1ED"), 0, "no type of file"},
		{"no trailer", small[:at-124], 0, "cut off"},
		{"garbage in the stream", packed(t, Gzip, join(small, []byte("garbage"))), 0, `"garbage"`},
		{"no trailer in the stream", packed(t, Gzip, small[:at-124]), 0, "cut off"},
		{"zstd behind lz4", join(archiveOf(t, LZ4, dir("a")), archiveOf(t, Zstd, dir("b"))), 0, "behind an lz4 archive only"},
		{"a zstd window of 1 GiB", []byte("\x28\xb5\x2f\xfd\x00\xa0\x01\x00\x00"), 0, "a window of 1073741824 bytes"},
		{"a zstd frame of 4 GiB in one piece", []byte("\x28\xb5\x2f\xfd\xa0\x00\x00\x00\xff\x01\x00\x00"), 0, "a window of"},
		{"a zstd dictionary", []byte("\x28\xb5\x2f\xfd\x01\x00\x01\x00\x00"), 0, "dictionary"},
		{"an xz dictionary of 4 GiB", hugeDictionary(t), 0, "dictionary"},
		{"an lz4 chunk of 4 GiB", []byte("\x02\x21\x4c\x18\xff\xff\xff\xff"), 0, "more than any takes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := readBytes(tt.image)
			var wrong *FormatError
			if !errors.As(err, &wrong) || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("the error is %v, want one with %q", err, tt.says)
			}
			if wrong.Offset != int64(tt.offset) {
				t.Errorf("it is said to be at byte %d, not %d: %v", wrong.Offset, tt.offset, err)
			}
		})
	}
}

// hugeDictionary is an xz stream that asks for the largest dictionary that there is.
func hugeDictionary(t *testing.T) []byte {
	b := toolPacked(t, XZ, archiveOf(t, Plain, dir("a")))
	i := bytes.Index(b, []byte{0x21, 0x01})
	b[i+2] = 40
	size := 4 * (int(b[12]) + 1)
	sum := crc(b[12 : 12+size-4])
	copy(b[12+size-4:], sum)
	return b
}

// Cut off or with one bit turned, an image is refused, or it is one that the kernel would read: never a panic, never
// without an end.
func TestBrokenImages(t *testing.T) {
	t.Parallel()
	h := aHelper(t, helperProgram)
	for _, format := range allFormats {
		t.Run(format.String(), func(t *testing.T) {
			t.Parallel()
			image := join(archiveOf(t, format, dir("usr"), link("lib", "usr"), file("init", program(amd64, "short"))))
			image, _ = mustAdd(t, image, aHelper(t, program(amd64, "x")), Options{})
			ends := map[int]bool{}
			for _, s := range mustRead(t, image).Segments {
				for i := s.End(); i <= min(s.End()+8, int64(len(image))); i++ {
					ends[int(i)] = true // an image of whole archives and zero bytes
				}
			}
			for n := range image {
				if _, err := readBytes(image[:n]); err == nil && !ends[n] {
					// lz4 ends where the image does, and nothing is lost but what was not there.
					t.Errorf("cut off at byte %d of %d: no error", n, len(image))
				}
			}
			step := max(1, len(image)*8/1500)
			for bit := 0; bit < len(image)*8; bit += step {
				b := bytes.Clone(image)
				b[bit/8] ^= 1 << (bit % 8)
				im, err := readBytes(b)
				if err != nil {
					continue
				}
				_, _ = im.Add(ctx, io.Discard, h, Options{})
				_, _ = im.Remove(ctx, io.Discard)
			}
		})
	}
}

func FuzzRead(f *testing.F) {
	base := []entry{dir("usr"), link("lib", "usr"), linked("init", initProgram, 3), linked("usr/x", "", 3)}
	for _, format := range allFormats {
		image := archiveOf(f, format, base...)
		f.Add(image)
		added, _ := mustAdd(f, image, aHelper(f, program(amd64, "x")), Options{})
		f.Add(added)
		added, _ = mustAdd(f, image, aHelper(f, program(amd64, "x")), Options{Way: RDInit})
		f.Add(added)
	}
	f.Add(join(microcode(f), zeros(12), archiveOf(f, Zstd, base...)))
	text := program(amd64, "y")
	f.Fuzz(func(t *testing.T, b []byte) {
		im, err := readBytes(b)
		if err != nil {
			return
		}
		h := aHelper(t, text)
		for _, o := range []Options{{}, {Way: RDInit}} {
			var added, again bytes.Buffer
			c, err := im.Add(ctx, &added, h, o)
			if err != nil || !c.Changed {
				continue
			}
			next, err := readBytes(added.Bytes())
			if err != nil {
				t.Fatalf("what Add made cannot be read: %v", err)
			}
			if c, err := next.Add(ctx, &again, h, o); err != nil || c.Changed {
				t.Fatalf("adding twice: %+v, %v", c, err)
			}
			if _, err := next.Remove(ctx, &again); err != nil {
				t.Fatalf("removing: %v", err)
			}
			if !c.Replaced && !bytes.Equal(again.Bytes(), b) {
				t.Fatal("what is left is not what was there")
			}
		}
	})
}

func TestReadingEndsWhenItsContextDoes(t *testing.T) {
	t.Parallel()
	image := archiveOf(t, Zstd, file("init", initProgram))
	cause := errors.New("enough")
	over, cancel := context.WithCancelCause(ctx)
	cancel(cause)
	if _, err := Read(over, bytes.NewReader(image), int64(len(image)), nil, nil); !errors.Is(err, cause) {
		t.Errorf("the error is %v", err)
	}
	if _, err := mustRead(t, image).Add(over, io.Discard, aHelper(t, helperProgram), Options{}); !errors.Is(err, cause) {
		t.Errorf("the error is %v", err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { clear(p); return len(p), nil }
