//go:build unix

package initramfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/image/limit"
)

// What is right by the format's own description, and yet not what the kernel reads.
func TestWhatOnlyTheKernelDoesNotReadIsRefused(t *testing.T) {
	t.Parallel()
	plain := archiveOf(t, Plain, file("init", initProgram))
	gz := func(h gzip.Header) []byte {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		w.Header = h
		_, _ = w.Write(plain)
		_ = w.Close()
		return b.Bytes()
	}
	summed := gz(gzip.Header{}) // with a sum of the header
	summed[3] |= 2
	summed = slices.Insert(summed, 10, 0, 0)
	copy(summed[10:], crc(summed[:10])[:2])
	xz := func(args ...string) []byte { return tool(t, plain, "xz", append([]string{"-c"}, args...)...) }
	field := func(e entry, number int, digits string) []byte {
		b := archiveOf(t, Plain, e)
		copy(b[6+8*number:], digits)
		return b
	}
	unended := archiveOf(t, Plain, file("init/x", initProgram))
	copy(unended[headerSize:], "init\x00xy")
	odd := packed(t, LZ4, append(bytes.Clone(plain), 0))

	for _, tt := range []struct {
		name  string
		image []byte
		says  string
	}{
		{"gzip with something extra in its header", gz(gzip.Header{Extra: []byte("extra")}), "gzip: the header has flags 0x4"},
		{"gzip with a comment", gz(gzip.Header{Comment: "comment"}), "gzip: the header has flags 0x10"},
		{"gzip with a sum of its header", summed, "gzip: the header has flags 0x2"},
		{"gzip with a name", gz(gzip.Header{Name: "initrd"}), ""},
		{"xz with no check", xz("--check=none"), ""},
		{"xz with a filter of distances", xz("--check=crc32", "--delta", "--lzma2"), "xz: filter 0x3, which the kernel does not know"},
		{"xz with a filter for machine code", xz("--check=crc32", "--x86", "--lzma2"), ""},
		{"xz with two filters for machine code", xz("--check=crc32", "--x86", "--arm", "--lzma2"), "more in it than the kernel knows"},
		{"xz in blocks", xz("--check=crc32", "--block-size=1000"), ""},
		{"xz in blocks that tell their sizes", xz("--check=crc32", "-T2", "--block-size=1000"), ""},
		{"a name that goes on behind its end", unended, "a name without its end"},
		{"a folder with content", field(dir("init.d"), 6, "00000008"), "a folder or device with 8 bytes"},
		{"a device with content", field(entry{"null", header{mode: unix.S_IFCHR | 0o666}, ""}, 6, "00000008"), "a folder or device with 8 bytes"},
		{"an end that is a link", field(entry{trailer, header{mode: unix.S_IFLNK | 0o777}, "here"}, 5, "00000000"), "does not end an archive"},
		{"lz4 right behind lz4 that ends askew", join(odd, odd), "the first does not unpack to a multiple of four"},
		{"lz4 behind lz4 that ends askew", join(odd, zeros(8), odd), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			im, err := readBytes(tt.image)
			var wrong *FormatError
			switch {
			case tt.says == "":
				if err != nil || contentOf(t, im, "init") != initProgram {
					t.Errorf("the kernel reads it: %v", err)
				}
			case !errors.As(err, &wrong) || !strings.Contains(err.Error(), tt.says):
				t.Errorf("the error is %v, want one with %q", err, tt.says)
			}
		})
	}
	t.Run("nametag's lz4 stands apart from lz4 that ends askew", func(t *testing.T) {
		added, c := mustAdd(t, odd, aHelper(t, helperProgram), Options{})
		if c.Segment.Format != LZ4 || c.Segment.Offset < int64(len(odd))+4 {
			t.Errorf("%s at byte %d, right behind one that ends at %d", c.Segment.Format, c.Segment.Offset, len(odd))
		}
		if contentOf(t, mustRead(t, added), "init") != helperProgram {
			t.Error("/init is not nametag")
		}
	})
}

// What xz makes unless told otherwise is read, and there is a warning.
func TestACheckThatTheKernelDoesNotKnow(t *testing.T) {
	t.Parallel()
	plain := archiveOf(t, Plain, file("init", initProgram))
	for check, want := range map[string]string{
		"crc64":  "the archive at byte 512: xz with CRC64, and the kernel knows CRC32 only: pack it with xz --check=crc32",
		"sha256": "the archive at byte 512: xz with SHA-256, and the kernel knows CRC32 only: pack it with xz --check=crc32",
		"crc32":  "", "none": "",
	} {
		t.Run(check, func(t *testing.T) {
			early := archiveOf(t, Plain, file("kernel", "early"))
			image := join(early, zeros(512-len(early)), tool(t, plain, "xz", "-c", "--check="+check))
			im := mustRead(t, image)
			if got := strings.Join(im.Warnings(), "\n"); got != want {
				t.Errorf("the warnings are %q, not %q", got, want)
			}
			if contentOf(t, im, "init") != initProgram {
				t.Error("it was not read as it is")
			}
			added, _ := mustAdd(t, image, aHelper(t, helperProgram), Options{})
			if contentOf(t, mustRead(t, added), "init") != helperProgram {
				t.Error("/init is not nametag")
			}
		})
	}
	t.Run("none that there is", func(t *testing.T) {
		image := tool(t, plain, "xz", "-c")
		image[7] = 2
		copy(image[8:], crc(image[6:8]))
		if _, err := readBytes(image); err == nil || !strings.Contains(err.Error(), "a check of kind 2") {
			t.Errorf("the error is %v", err)
		}
	})
}

// The sums that "cpio -H crc" writes are looked at by the kernel too.
func TestAnArchiveWithSums(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for name, text := range map[string]string{"init": initProgram, markerName: "not ours\n", "zeros": strings.Repeat("\x00", 99)} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o755); err != nil { //nolint:gosec // programs
			t.Fatal(err)
		}
	}
	tool(t, nil, "cpio", "--version")
	image := tool(t, nil, "sh", "-c", "cd "+root+" && printf '%s\\n' "+markerName+" init zeros | cpio -o -H crc --quiet")
	im := mustRead(t, image)
	if contentOf(t, im, "init") != initProgram || im.Entries != 3 {
		t.Error("it was not read as it is")
	}
	image[bytes.Index(image, []byte("image's own"))] ^= 1
	if _, err := readBytes(image); err == nil || !strings.Contains(err.Error(), `"init": its bytes add up to`) {
		t.Errorf("the error is %v", err)
	}
}

// verbatim makes an archive with the names as they are: u-root's writer puts them in order.
func verbatim(entries ...entry) []byte {
	var b []byte
	for _, e := range append(entries, entry{trailer, header{}, ""}) {
		e.size, e.nameSize = uint32(len(e.content)), uint32(len(e.name)+1) //nolint:gosec // small
		b = append(b, magicNewc...)
		for _, field := range e.fields() {
			b = fmt.Appendf(b, "%08x", *field)
		}
		b = append(append(b, e.name...), 0)
		b = append(b, make([]byte, -len(b)&3)...)
		b = append(b, e.content...)
		b = append(b, make([]byte, -len(b)&3)...)
	}
	return b
}

// What the kernel makes of names that are unusual, and of what comes twice (do_name, clean_path and maybe_link).
func TestTheTreeIsTheOneThatTheKernelMakes(t *testing.T) {
	t.Parallel()
	first := func(name, content string) entry { return linked(name, content, 9) }
	for _, tt := range []struct {
		name    string
		entries []entry
		want    string // the tree, one word a file
		lost    int
	}{
		{"a file whose name ends in a slash is none", []entry{file("a/", "x")}, "", 1},
		{"nor is one that ends in a dot", []entry{dir("d"), file("d/.", "x")}, "/d/", 1},
		{"a link neither", []entry{link("a/", "x")}, "", 1},
		{"a folder may end in a slash", []entry{dir("a/"), dir("a//"), file("a/b", "x")}, "/a/ /a/b=x", 0},
		{"and in a dot, if it is there", []entry{dir("."), dir("a"), dir("a/."), dir("b/."), file("b/c", "x")}, "/a/", 2},
		{"a link is replaced by a folder", []entry{dir("a"), link("b", "a"), dir("b"), file("b/c", "x")}, "/a/ /b/ /b/c=x", 0},
		{"but followed where a slash stands behind it", []entry{dir("a"), link("b", "a"), dir("b/"), file("b/c", "x")}, "/a/ /a/c=x /b→a", 0},
		{"and stays where it leads nowhere", []entry{link("b", "a"), dir("b/")}, "/b→a", 1},
		{"a folder does not replace a file under a name with a slash", []entry{file("a", "x"), dir("a/")}, "/a=x", 1},
		{"a name of nothing is lost", []entry{file("", "x"), {"", header{mode: unix.S_IFDIR | 0o700}, ""}}, "", 2},
		{"names go no higher than the top", []entry{dir("../../a"), file("/a/../../b", "x"), file("a/../c", "y")}, "/a/ /b=x /c=y", 0},
		{"a name is too long for any file system", []entry{file(strings.Repeat("n", 256), "x"), dir("a"), file("a/"+strings.Repeat("n", 256)+"/b", "x")}, "/a/", 2},
		{"a file without its folder is lost", []entry{file("a/b", "x")}, "", 1},
		{"a folder with something in it is not replaced", []entry{dir("a"), file("a/b", "x"), file("a", "y"), link("a", "z")}, "/a/ /a/b=x", 2},
		{"names of one file", []entry{first("a", ""), first("b", "x")}, "/a=x /b=x", 0},
		{"a second name goes over another file", []entry{file("b", "old"), first("a", "x"), first("b", "")}, "/a=x /b=x", 0},
		{"a second name that is the first takes the file away", []entry{first("a", "x"), first("a", "y")}, "", 1},
		{"a second name is one of what has the first name now", []entry{first("a", "x"), link("a", "nowhere"), file("a", "new"), first("b", "")}, "/a=new /b=new", 0},
		{"a second name of what is gone is lost", []entry{first("a", "x"), dir("a"), first("b", "y")}, "/a/", 1},
		{"a name is remembered even if it came to nothing", []entry{first("d/a", "x"), dir("d"), file("d/a", "y"), first("b", "")}, "/b=y /d/ /d/a=y", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			im := mustRead(t, verbatim(tt.entries...))
			var words []string
			var walk func(string, *Node)
			walk = func(at string, n *Node) {
				for name, child := range n.Children() {
					word := at + "/" + name
					switch {
					case child.IsDir():
						words = append(words, word+"/")
						walk(word, child)
						continue
					case child.IsLink():
						word += "→" + child.Target
					default:
						word += "=" + contentOf(t, im, word)
					}
					words = append(words, word)
				}
			}
			walk("", im.Root())
			if got := strings.Join(words, " "); got != tt.want || im.Lost != tt.lost {
				t.Errorf("got %q and %d lost, want %q and %d", got, im.Lost, tt.want, tt.lost)
			}
		})
	}
}

func TestAPathThatIsNoneForTheHelperIsRefused(t *testing.T) {
	t.Parallel()
	im := mustRead(t, archiveOf(t, Plain, file("init", initProgram)))
	for _, path := range []string{"/" + markerName, trailer, "dev/null", "/dev/null/x", "./init", "a\x00b", strings.Repeat("n", 256), strings.Repeat("long/", 900) + "x"} {
		var refused *RefusedError
		if _, err := im.Add(ctx, io.Discard, aHelper(t, helperProgram), Options{Way: RDInit, Path: path}); !errors.As(err, &refused) || !strings.Contains(err.Error(), "--path") {
			t.Errorf("%.20q: the error is %v", path, err)
		}
	}
}

// What is in the marker is shown to people.
func TestAMarkerThatIsNotFitForATerminalIsNotOurs(t *testing.T) {
	t.Parallel()
	marker := func(path string) []byte {
		text := fmt.Sprintf(`{"schema":%q,"way":"rdinit","path":%q,"entries":[%q]}`, schema, path, markerName)
		return join(archiveOf(t, Plain, file("init", initProgram)), archiveOf(t, Plain, file(markerName, text)))
	}
	if mustRead(t, marker("usr/nametag")).Added() == nil {
		t.Error("it is ours")
	}
	if a := mustRead(t, marker("\x1b[2J")).Added(); a != nil {
		t.Errorf("it is not ours: %+v", a)
	}
}

func TestWhatHasNoEndIsBounded(t *testing.T) {
	t.Parallel()
	t.Run("zeros behind an archive", func(t *testing.T) {
		tp := newTape(&stream{Reader: endless{}}, false, 0)
		budget := limit.Budget{Limits: limit.Limits{Unpacked: 1 << 24}}
		if _, err := tp.nextNonZero(budget.Unpack); !errors.As(err, new(*limit.Exceeded)) {
			t.Errorf("the error is %v", err)
		}
	})
	t.Run("archives", func(t *testing.T) {
		image := archiveOf(t, Plain, file("init", initProgram))
		end := archiveOf(t, Plain)
		if _, err := readBytes(join(image, bytes.Repeat(end, maxArchives-1))); err != nil {
			t.Error(err)
		}
		if _, err := readBytes(join(image, bytes.Repeat(end, maxArchives))); err == nil || !strings.Contains(err.Error(), "more than 4096 archives") {
			t.Errorf("the error is %v", err)
		}
	})
}

// counted counts what is read.
type counted struct {
	io.ReaderAt
	n int64
}

func (c *counted) ReadAt(p []byte, at int64) (int, error) {
	n, err := c.ReaderAt.ReadAt(p, at)
	c.n += int64(n)
	return n, err
}

func TestAnImageIsUnpackedOnceWhereItsInitIsSmall(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("what is packed already ", 1<<16)
	for _, format := range allFormats {
		image := archiveOf(t, format, file("a", large), file("init", initProgram), file("z", large))
		for range 2 { // as it is, and with nametag in it
			from := &counted{ReaderAt: bytes.NewReader(image)}
			im, err := Read(ctx, from, int64(len(image)), nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			from.n = 0
			var out bytes.Buffer
			other := program(amd64, fmt.Sprint("nametag ", len(image)))
			c, err := im.Add(ctx, &out, aHelper(t, other), Options{})
			if err != nil {
				t.Fatal(err)
			}
			if most := c.Segment.Offset + 8; from.n > most {
				t.Errorf("%s: %d bytes were read to copy %d", format, from.n, c.Segment.Offset)
			}
			if im = mustRead(t, out.Bytes()); contentOf(t, im, "init.next") != initProgram || contentOf(t, im, "init") != other {
				t.Errorf("%s: /init is not nametag, or /init.next not what /init was", format)
			}
			image = out.Bytes()
		}
	}
}
