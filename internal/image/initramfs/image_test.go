//go:build unix

package initramfs

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/u-root/u-root/pkg/cpio"
	"golang.org/x/sys/unix"
)

// ctx of tests that nothing ends.
var ctx = context.Background()

// program is a static ELF program's beginning, good for amd64 or arm64.
func program(machine byte, rest string) string {
	b := make([]byte, 64)
	copy(b, "\x7fELF\x02\x01\x01")
	b[16], b[18], b[20] = 2, machine, 1 // ET_EXEC
	b[52], b[54], b[58] = 64, 56, 64    // sizes of the headers
	return string(b) + rest
}

const (
	amd64 = 62
	arm64 = 183
)

var (
	initProgram   = program(amd64, strings.Repeat("the image's own init ", 300))
	helperProgram = program(amd64, strings.Repeat("nametag ", 500))
)

func aHelper(t testing.TB, text string) *Helper {
	t.Helper()
	h, err := NewHelper(strings.NewReader(text), int64(len(text)))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// entry is one of an archive made by hand.
type entry struct {
	name string
	header
	content string
}

func dir(name string) entry { return entry{name, header{mode: unix.S_IFDIR | 0o755, nlink: 2}, ""} }

func file(name, content string) entry {
	return entry{name, header{mode: unix.S_IFREG | 0o755}, content}
}

func link(name, target string) entry {
	return entry{name, header{mode: unix.S_IFLNK | 0o777}, target}
}

// linked is a file of several names.
func linked(name, content string, ino uint32) entry {
	return entry{name, header{mode: unix.S_IFREG | 0o755, nlink: 2, ino: ino}, content}
}

// pack makes an archive by u-root's writer, which keeps inode numbers.
func archiveOf(t testing.TB, format Format, entries ...entry) []byte {
	t.Helper()
	var plain bytes.Buffer
	for _, e := range entries {
		e.size = uint32(len(e.content))
		w := cpio.Newc.Writer(&plain) // a new one each time: it would leave out what comes twice
		r := cpio.StaticRecord([]byte(e.content), cpio.Info{Name: e.name, Mode: uint64(e.mode), Ino: uint64(e.ino), NLink: uint64(e.nlink)})
		if err := w.WriteRecord(r); err != nil {
			t.Fatal(err)
		}
		plain.Write(make([]byte, -plain.Len()&3))
	}
	if err := cpio.WriteTrailer(cpio.Newc.Writer(&plain)); err != nil {
		t.Fatal(err)
	}
	plain.Write(make([]byte, -plain.Len()&3))
	return packed(t, format, plain.Bytes())
}

func packed(t testing.TB, format Format, plain []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := format.packer(&b)
	if err == nil {
		_, err = w.Write(plain)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func readBytes(b []byte) (*Image, error) {
	return Read(ctx, bytes.NewReader(b), int64(len(b)), nil, nil)
}

func mustRead(t testing.TB, b []byte) *Image {
	t.Helper()
	im, err := readBytes(b)
	if err != nil {
		t.Fatal(err)
	}
	return im
}

func mustAdd(t testing.TB, b []byte, h *Helper, o Options) ([]byte, Change) {
	t.Helper()
	var out bytes.Buffer
	c, err := mustRead(t, b).Add(ctx, &out, h, o)
	if err != nil {
		t.Fatal(err)
	}
	if !c.Changed {
		if out.Len() > 0 {
			t.Fatal("nothing changed, and something was written")
		}
		return b, c
	}
	if c.Before != int64(len(b)) || c.After != int64(out.Len()) {
		t.Errorf("the change says %d → %d bytes; it was %d → %d", c.Before, c.After, len(b), out.Len())
	}
	return out.Bytes(), c
}

func contentOf(t testing.TB, im *Image, name string) string {
	t.Helper()
	n, err := im.Lookup(name)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	r, err := im.Open(n)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return string(b)
}

// tool runs a program of the system; without it the test is skipped, and fails under CI.
func tool(t testing.TB, stdin []byte, name string, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s is missing: apt-get install cpio gzip xz-utils zstd lz4", name)
		}
		t.Skipf("SKIPPED: %s is missing: apt-get install cpio gzip xz-utils zstd lz4", name)
	}
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, &complaint)
	}
	return out.Bytes()
}

// debian makes an archive as Debian's tools do.
func debian(t testing.TB, format Format) []byte {
	t.Helper()
	root := t.TempDir()
	for _, d := range []string{"usr/lib", "etc", "dev"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	files := map[string]string{
		"init": initProgram, "etc/text": "text\n", "usr/lib/zeros": strings.Repeat("\x00", 300<<10), "etc/empty": "",
	}
	if format == LZ4 {
		files["usr/lib/zeros"] = strings.Repeat("\x00", lz4Chunk+1<<20) // more than one chunk
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("usr/lib", filepath.Join(root, "lib")); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(root, "etc/text"), filepath.Join(root, "etc/again")); err != nil {
		t.Fatal(err)
	}
	plain := tool(t, nil, "sh", "-c", "command -v cpio >/dev/null || exit 0; cd "+root+" && find . | LC_ALL=C sort | cpio -o -H newc --quiet -R 0:0")
	if len(plain) == 0 {
		tool(t, nil, "cpio", "--version")
	}
	return toolPacked(t, format, plain)
}

func toolPacked(t testing.TB, format Format, plain []byte) []byte {
	t.Helper()
	switch format {
	case Gzip:
		return tool(t, plain, "gzip", "-9n")
	case XZ:
		return tool(t, plain, "xz", "--check=crc32", "-0")
	case Zstd:
		return tool(t, plain, "zstd", "-q", "-c", "-19", "--check")
	case LZ4:
		return tool(t, plain, "lz4", "-l", "-c", "-q")
	}
	return plain
}

// unpackTool is how Debian's tools unpack an archive.
func unpackTool(t testing.TB, format Format, b []byte) []byte {
	t.Helper()
	switch format {
	case Gzip:
		return tool(t, b, "gzip", "-dc")
	case XZ:
		return tool(t, b, "xz", "-dc")
	case Zstd:
		return tool(t, b, "zstd", "-qdc")
	case LZ4:
		return tool(t, b, "lz4", "-dc")
	}
	return b
}
