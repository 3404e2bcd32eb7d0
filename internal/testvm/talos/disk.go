//go:build linux

package talos

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/nametag-boot/nametag/internal/testvm/netns"
)

// Partition is one of a disk's.
type Partition struct {
	Label string
	Size  int64 // bytes, a multiple of a MiB; 0: 1 MiB
	// Exactly one of the two says what is in it; neither: noughts.
	Bytes []byte            // what it begins with
	XFS   map[string][]byte // a file system with these files, by path; one that is empty is not nil
}

// The sizes that Talos gives (STATE), or that are enough here.
const (
	mib       = 1 << 20
	stateSize = 100 * mib
	sector    = 512
)

// Header of LUKS2, as far as anybody looks at it who has no key.
func luksHeader() []byte {
	return append([]byte("LUKS\xba\xbe\x00\x02"), bytes.Repeat([]byte{0xa5}, 4088)...)
}

// Encrypted is a partition that only its system can read.
func Encrypted(label string) Partition {
	return Partition{Label: label, Size: 16 * mib, Bytes: luksHeader()}
}

// State is the partition that a Talos keeps its name and its configuration on. An empty content is no file.
func State(platform, config []byte) Partition {
	p := Partition{Label: "STATE", Size: stateSize, XFS: map[string][]byte{}}
	for name, content := range map[string][]byte{"platform-network.yaml": platform, "config.yaml": config} {
		if len(content) > 0 {
			p.XFS[name] = content
		}
	}
	return p
}

// Ephemeral is the partition of /var, as far as it is looked at from outside.
func Ephemeral() Partition { return Partition{Label: "EPHEMERAL", Bytes: []byte("XFSB")} }

// Root is the root of a system that is not Talos, with a file that says which name it has had.
func Root(name, instance string) Partition {
	text := fmt.Sprintf("{\"schema\": 1, \"hostname\": %q, \"instance_id\": %q, \"since\": \"2026-11-29T12:00:00Z\"}\n", name, instance)
	return Partition{Label: "ROOT", Size: stateSize, XFS: map[string][]byte{"var/lib/nametag/name.json": []byte(text), "etc/hostname": []byte("a-static-name\n")}}
}

// Meta is the partition that the image of a new server has, beside its boot loader's.
func Meta() Partition { return Partition{Label: "META"} }

// Disk makes the image of a disk with a GPT, and returns its path. It goes with the test.
func Disk(t testing.TB, partitions ...Partition) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := writeDisk(t.Context(), path, t.TempDir(), partitions); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			netns.Missing(t, "mkfs.xfs is not installed; apt-get install xfsprogs")
		}
		t.Fatalf("the disk: %v", err)
	}
	return path
}

func writeDisk(ctx context.Context, path, dir string, partitions []Partition) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // closed below when all went well
	at := int64(mib)
	extents := make([][2]int64, 0, len(partitions))
	for _, p := range partitions {
		size := max(p.Size, mib)
		extents = append(extents, [2]int64{at, size})
		at += size
	}
	if err := f.Truncate(at + mib); err != nil {
		return err
	}
	for i, p := range partitions {
		content := p.Bytes
		if p.XFS != nil {
			if content, err = makeXFS(ctx, dir, p.Label, extents[i][1], p.XFS); err != nil {
				return err
			}
		}
		if err := writeSparse(f, content, extents[i][0]); err != nil {
			return err
		}
	}
	if err := writeGPT(f, (at+mib)/sector, partitions, extents); err != nil {
		return err
	}
	return f.Close()
}

// writeSparse writes what is not nought.
func writeSparse(f *os.File, content []byte, at int64) error {
	const block = 64 << 10
	nought := make([]byte, block)
	for len(content) > 0 {
		n := min(block, len(content))
		if !bytes.Equal(content[:n], nought[:n]) {
			if _, err := f.WriteAt(content[:n], at); err != nil {
				return err
			}
		}
		content, at = content[n:], at+int64(n)
	}
	return nil
}

// makeXFS makes a file system with files in its root, without mounting it.
func makeXFS(ctx context.Context, dir, label string, size int64, files map[string][]byte) ([]byte, error) {
	mkfs, err := exec.LookPath("mkfs.xfs")
	if err != nil {
		if mkfs, err = exec.LookPath("/usr/sbin/mkfs.xfs"); err != nil {
			return nil, exec.ErrNotFound
		}
	}
	// A prototype file, mkfs.xfs(8): a boot block, two numbers, the root folder, its entries, an end.
	proto, err := protoFolder(dir, label, files)
	if err != nil {
		return nil, err
	}
	proto = "/dev/null\n0 0\nd--755 0 0\n" + proto
	protoFile, image := filepath.Join(dir, "proto"), filepath.Join(dir, "image")
	if err := os.WriteFile(protoFile, []byte(proto), 0o600); err != nil {
		return nil, err
	}
	defer os.Remove(image) //nolint:errcheck // it goes with the test
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		return nil, err
	}
	if err := os.Truncate(image, size); err != nil {
		return nil, err
	}
	// It has been refusing file systems of that size since 5.19, and Talos makes them all the same.
	var out []byte
	for _, small := range [][]string{{"--unsupported"}, nil} {
		args := append(slices.Clone(small), "-q", "-f", "-L", label, "-p", protoFile, image)
		if out, err = exec.CommandContext(ctx, mkfs, args...).CombinedOutput(); err == nil {
			return os.ReadFile(image)
		}
	}
	return nil, fmt.Errorf("mkfs.xfs: %w: %s", err, out)
}

// protoFolder is the entries of a folder and its end, with the files' contents beside it.
func protoFolder(dir, label string, files map[string][]byte) (string, error) {
	proto := ""
	folders := map[string]map[string][]byte{}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		name, rest, deeper := strings.Cut(path, "/")
		if deeper {
			if folders[name] == nil {
				folders[name] = map[string][]byte{}
			}
			folders[name][rest] = files[path]
			continue
		}
		from := filepath.Join(dir, strings.ReplaceAll(label, "/", "-")+"-"+name)
		if err := os.WriteFile(from, files[path], 0o600); err != nil {
			return "", err
		}
		proto += fmt.Sprintf("%s ---400 0 0 %s\n", name, from)
	}
	for _, name := range slices.Sorted(maps.Keys(folders)) {
		inner, err := protoFolder(dir, label+"/"+name, folders[name])
		if err != nil {
			return "", err
		}
		proto += name + " d--755 0 0\n" + inner
	}
	return proto + "$\n", nil
}

// writeGPT writes the table (UEFI 2.10, 5.3), and the other one at the end of the disk.
func writeGPT(f *os.File, sectors int64, partitions []Partition, extents [][2]int64) error {
	const entries, entrySize, tableSectors = 128, 128, 32
	table := make([]byte, entries*entrySize)
	for i, p := range partitions {
		e := table[i*entrySize:]
		copy(e, guid("0FC63DAF-8483-4772-8E79-3D69D8477DE4")) // Linux filesystem data
		copy(e[16:], guid(fmt.Sprintf("00000000-0000-4000-8000-%012d", i+1)))
		binary.LittleEndian.PutUint64(e[32:], uint64(extents[i][0]/sector))                   //nolint:gosec // not negative
		binary.LittleEndian.PutUint64(e[40:], uint64((extents[i][0]+extents[i][1])/sector-1)) //nolint:gosec // not negative
		for j, u := range utf16.Encode([]rune(p.Label)) {
			binary.LittleEndian.PutUint16(e[56+2*j:], u)
		}
	}
	header := func(mine, other, tableAt int64) []byte {
		h := make([]byte, sector)
		copy(h, "EFI PART\x00\x00\x01\x00\x5c\x00\x00\x00")
		le := binary.LittleEndian
		le.PutUint64(h[24:], uint64(mine))                   //nolint:gosec // not negative
		le.PutUint64(h[32:], uint64(other))                  //nolint:gosec // not negative
		le.PutUint64(h[40:], 2+tableSectors)                 // the first usable
		le.PutUint64(h[48:], uint64(sectors-tableSectors-2)) //nolint:gosec // not negative
		copy(h[56:], guid("11111111-1111-4111-8111-111111111111"))
		le.PutUint64(h[72:], uint64(tableAt)) //nolint:gosec // not negative
		le.PutUint32(h[80:], entries)
		le.PutUint32(h[84:], entrySize)
		le.PutUint32(h[88:], crc32.ChecksumIEEE(table))
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:92]))
		return h
	}
	mbr := make([]byte, sector) // the protective one
	copy(mbr[446:], []byte{0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})
	copy(mbr[510:], []byte{0x55, 0xaa})
	for _, w := range []struct {
		at      int64
		content []byte
	}{
		{0, mbr},
		{1, header(1, sectors-1, 2)},
		{2, table},
		{sectors - 1 - tableSectors, table},
		{sectors - 1, header(sectors-1, 1, sectors-1-tableSectors)},
	} {
		if _, err := f.WriteAt(w.content, w.at*sector); err != nil {
			return err
		}
	}
	return nil
}

// guid is one in the order of bytes that a GPT has it in (UEFI 2.10, appendix A).
func guid(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil {
		panic(err) // one of the constants above
	}
	slices.Reverse(b[0:4])
	slices.Reverse(b[4:6])
	slices.Reverse(b[6:8])
	return b
}

// Sum is a checksum of a file's content.
func Sum(t testing.TB, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // opened for reading
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}
