//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/nametag-boot/nametag/internal/cli"
	"github.com/u-root/u-root/pkg/cpio"
	"golang.org/x/sys/unix"
)

// testProgram is a static ELF program's beginning, for amd64.
func testProgram(text string) []byte {
	b := make([]byte, 64)
	copy(b, "\x7fELF\x02\x01\x01")
	b[16], b[18], b[20], b[52], b[54], b[58] = 2, 62, 1, 64, 56, 64
	return append(b, text...)
}

// writeImage makes an initramfs of an /init, a file that does not compress, as a squashfs does not, and one that does.
func writeImage(t *testing.T, name string, sizes ...int64) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out, err := zstd.NewWriter(f, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		t.Fatal(err)
	}
	w := cpio.Newc.Writer(out)
	records := []cpio.Record{
		cpio.StaticRecord(testProgram("the image's own"), cpio.Info{Name: "init", Mode: unix.S_IFREG | 0o755}),
		cpio.Directory("usr", 0o755),
		cpio.StaticFile("usr/\x1b[2Jclear", "", 0o644),
	}
	for i, size := range sizes {
		b := make([]byte, size)
		if i == 0 {
			_, _ = rand.NewChaCha8([32]byte{}).Read(b)
		}
		records = append(records, cpio.StaticRecord(b, cpio.Info{Name: fmt.Sprintf("%d.sqsh", i), Mode: unix.S_IFREG | 0o644}))
	}
	if err := errors.Join(cpio.WriteRecords(w, records), cpio.WriteTrailer(w), out.Close()); err != nil {
		t.Fatal(err)
	}
}

// workbench is a folder with an image and a helper in it.
func workbench(t *testing.T) (image, helper string, original []byte) {
	t.Helper()
	dir := t.TempDir()
	image, helper = filepath.Join(dir, "initramfs"), filepath.Join(dir, "nametag")
	writeImage(t, image, 5000)
	if err := os.WriteFile(helper, testProgram("nametag"), 0o755); err != nil {
		t.Fatal(err)
	}
	original, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	return image, helper, original
}

func TestInitramfsAddInspectRemove(t *testing.T) {
	t.Parallel()
	image, helper, original := workbench(t)
	if err := os.Chmod(image, 0o640); err != nil {
		t.Fatal(err)
	}
	do := func(says string, args ...string) string {
		t.Helper()
		out, _, err := execute(t, initramfsCommand(), args...)
		if err != nil || !strings.Contains(out, says) {
			t.Fatalf("%q: %v, want %q in:\n%s", args, err, says, out)
		}
		return out
	}
	out := image + ".out"
	do("/init is nametag, and what /init was is /init.next", "add", image, "--helper", helper, "--out", out)
	if b, _ := os.ReadFile(image); !bytes.Equal(b, original) {
		t.Error("the image was changed, though -o named another file")
	}
	do("nametag added", "add", image, "--helper", helper)
	a, _ := os.ReadFile(image)
	if b, _ := os.ReadFile(out); !bytes.Equal(a, b) {
		t.Error("in place and into another file are not the same")
	}
	before, _ := os.Stat(image)
	do("nothing changed", "add", image, "--helper", helper)
	after, _ := os.Stat(image)
	if !os.SameFile(before, after) || before.Mode() != after.Mode() || !before.ModTime().Equal(after.ModTime()) || after.Mode() != 0o640 {
		t.Errorf("nothing to do, and the file is another: %v %v", before.Mode(), after.Mode())
	}
	do("nothing changed", "add", image, "--helper", helper, "--out", out+"2")
	if b, _ := os.ReadFile(out + "2"); !bytes.Equal(a, b) {
		t.Error("the copy is not the same")
	}
	do("replaced: nametag is at /usr/lib/firmware/nametag/nametag", "add", image, "--helper", helper, "--rdinit")

	shown := do("for rdinit=", "inspect", image)
	for _, says := range []string{"archive 1:", "(nametag)", `usr/`, `"\x1b[2Jclear"`, "0.sqsh  -rw-r--r--", "└── "} {
		if !strings.Contains(shown, says) {
			t.Errorf("inspect does not show %q:\n%s", says, shown)
		}
	}
	var report struct {
		Architecture string
		Nametag      struct{ Way, Path string }
		Segments     []struct {
			Offset, Size int64
			Compression  string
		}
		Files []struct{ Path, Mode string }
	}
	if err := json.Unmarshal([]byte(do("", "inspect", image, "--output", "json")), &report); err != nil {
		t.Fatal(err)
	}
	if report.Architecture != "amd64" || report.Nametag.Way != "rdinit" || len(report.Segments) != 2 || report.Segments[1].Compression != "zstd" || len(report.Files) != 11 {
		t.Errorf("inspect as JSON: %+v", report)
	}
	var change struct {
		Changed         bool
		KernelArguments []string `json:"kernel_arguments"`
	}
	if err := json.Unmarshal([]byte(do("", "add", image, "--helper", helper, "--path", "/nametag", "--rdinit", "--output", "json")), &change); err != nil {
		t.Fatal(err)
	}
	if !change.Changed || strings.Join(change.KernelArguments, " ") != "talos.hostname.wait=5m rdinit=/nametag init=/init" {
		t.Errorf("add as JSON: %+v", change)
	}
	do("nametag is taken out", "remove", image)
	if b, _ := os.ReadFile(image); !bytes.Equal(b, original) {
		t.Error("what is left is not what was there")
	}
	if leftover, _ := filepath.Glob(filepath.Join(filepath.Dir(image), ".*")); len(leftover) > 0 {
		t.Errorf("left in the folder: %q", leftover)
	}
}

func TestInitramfsLeavesTheImageAloneWhenItFails(t *testing.T) {
	t.Parallel()
	image, helper, original := workbench(t)
	dir := filepath.Dir(image)
	script := filepath.Join(dir, "script")
	broken := filepath.Join(dir, "broken")
	for name, b := range map[string][]byte{script: []byte("#!/bin/sh\n"), broken: append(bytes.Clone(original), "BZh91AY"...)} {
		if err := os.WriteFile(name, b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name   string
		args   []string
		status int
		says   string
	}{
		{"no image", []string{"add"}, cli.Usage, "give one IMAGE"},
		{"two images", []string{"inspect", image, image}, cli.Usage, "give one IMAGE"},
		{"an image that is not there", []string{"inspect", image + "x"}, cli.Failed, "no such file"},
		{"a device", []string{"inspect", os.DevNull}, cli.Failed, "not a regular file"},
		{"something else behind it", []string{"add", broken, "--helper", helper}, cli.Failed, fmt.Sprintf("byte %d", len(original))},
		{"no helper", []string{"add", image, "--helper", helper + "x"}, cli.Failed, "no such file"},
		{"none beside nametagctl", []string{"add", image}, cli.Failed, "no nametag for amd64"},
		{"a script for a helper", []string{"add", image, "--helper", script}, cli.Failed, "not a Linux program"},
		{"nothing to remove", []string{"remove", image}, cli.Failed, "nametag was not added"},
		{"a folder to write to", []string{"add", image, "--helper", helper, "--out", dir}, cli.Failed, "not a regular file"},
		{"a folder that is not there", []string{"add", image, "--helper", helper, "--out", dir + "/no/file"}, cli.Failed, "no such file"},
		{"a path without --rdinit", []string{"add", image, "--path", "/x"}, cli.Usage, "--rdinit"},
		{"an unknown compression", []string{"add", image, "--compression", "rar"}, cli.Usage, "choose none, gzip"},
		{"an unknown output", []string{"inspect", image, "--output", "xml"}, cli.Usage, "text or json"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := execute(t, initramfsCommand(), tt.args...)
			fails(t, err, tt.status, tt.says)
			if b, _ := os.ReadFile(image); !bytes.Equal(b, original) {
				t.Error("the image was changed")
			}
		})
	}
	t.Run("interrupted", func(t *testing.T) {
		over, cancel := context.WithCancel(t.Context())
		cancel()
		_, _, err := executeIn(over, initramfsCommand(), "add", image, "--helper", helper)
		fails(t, err, cli.Failed, "interrupted")
	})
	if entries, _ := os.ReadDir(dir); len(entries) != 4 {
		t.Errorf("left in the folder: %v", entries)
	}
}

// What add must hold: 100 MB in no more than 64 MiB of memory, that of the whole process. It is this test again, in a
// process of its own and built without the race detector, which takes memory for itself.
func TestInitramfsAddIsStreamed(t *testing.T) {
	const role = "NAMETAG_TEST_STREAMED"
	image, helper := filepath.Join(os.Getenv("NAMETAG_TEST_DIR"), "image"), filepath.Join(os.Getenv("NAMETAG_TEST_DIR"), "nametag")
	switch os.Getenv(role) {
	case "make":
		writeImage(t, image, 95<<20, 200<<20)
		text := make([]byte, 11<<20)
		_, _ = rand.NewChaCha8([32]byte{1}).Read(text[:4<<20]) // a program packs to about a third
		if err := os.WriteFile(helper, testProgram(string(text)), 0o755); err != nil {
			t.Fatal(err)
		}
		return
	case "add":
		began := time.Now()
		out, _, err := execute(t, initramfsCommand(), "add", image, "--helper", helper)
		took := time.Since(began)
		if err != nil {
			t.Fatal(err)
		}
		status, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		_, peak, _ := strings.Cut(string(status), "VmHWM:")
		var kib int64
		fmt.Sscan(peak, &kib)
		fmt.Printf("%s\nfigures: %d KiB, %d ms\n", out, kib, took.Milliseconds())
		return
	}
	if testing.Short() {
		t.Skip("skipped: -short")
	}
	dir := t.TempDir()
	alone := filepath.Join(dir, "test")
	run := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), "NAMETAG_TEST_DIR="+dir, "CGO_ENABLED=0")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
		return string(out)
	}
	run("go", "test", "-c", "-o", alone, ".")
	for _, r := range []string{"make", "add"} {
		t.Setenv(role, r)
		out := run(alone, "-test.run", "^TestInitramfsAddIsStreamed$")
		if r == "make" {
			continue
		}
		var kib, ms int64
		_, figures, _ := strings.Cut(out, "figures: ")
		if _, err := fmt.Sscanf(figures, "%d KiB, %d ms", &kib, &ms); err != nil {
			t.Fatalf("%v in: %s", err, out)
		}
		t.Logf("%d KiB of memory, %d ms", kib, ms)
		if kib > 64<<10 {
			t.Errorf("it took %d KiB of memory, more than 64 MiB", kib)
		}
	}
	if st, err := os.Stat(filepath.Join(dir, "image")); err != nil || st.Size() < 100_000_000 {
		t.Errorf("the image: %v, %v", st.Size(), err)
	}
}

// Without its argument nametag does nothing, also as /init.
func TestAddSaysWhichArgumentsToAdd(t *testing.T) {
	t.Parallel()
	image, helper, _ := workbench(t)
	out, _, err := execute(t, initramfsCommand(), "add", image, "--helper", helper)
	if err != nil || !strings.Contains(out, "kernel arguments to add: talos.hostname.wait=5m\n") {
		t.Errorf("%v: %s", err, out)
	}
}

// What goes with rdinit= means another thing to the initramfs of a distribution.
func TestAddByRdinitWarnsOfADistributionsInitramfs(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		file, maker string
		args        []string
	}{
		{"scripts/functions", "initramfs-tools", []string{"--rdinit"}},
		{"usr/lib/dracut/version.sh", "dracut", []string{"--rdinit"}},
		{"init_functions", "mkinitcpio", []string{"--rdinit"}},
		{"usr/bin/true", "", []string{"--rdinit"}},
		{"scripts/functions", "", nil},
	} {
		t.Run(tt.file+strings.Join(tt.args, " "), func(t *testing.T) {
			image, helper, _ := workbench(t)
			more := exec.Command("sh", "-ec", `cd "$1" && mkdir -p "$(dirname "$2")" && : >"$2" && find * | cpio -o -H newc --quiet | zstd -q >>"$3"`, "sh", t.TempDir(), tt.file, image)
			if out, err := more.CombinedOutput(); err != nil {
				t.Fatalf("cpio and zstd: %v: %s", err, out)
			}
			_, said, err := execute(t, initramfsCommand(), append([]string{"add", image, "--helper", helper}, tt.args...)...)
			if err != nil || strings.Contains(said, "init=") != (tt.maker != "") || !strings.Contains(said, tt.maker) {
				t.Errorf("%v: %s", err, said)
			}
		})
	}
}

// An image that other tools unpack and no kernel is served, and its owner is told.
func TestAddWarnsOfAnArchiveThatNoKernelUnpacks(t *testing.T) {
	t.Parallel()
	image, helper, _ := workbench(t)
	// Of an xz stream with CRC64, which xz makes unless told.
	pack := exec.Command("sh", "-c", `zstd -dc "$1" | xz > "$1.xz"`, "sh", image)
	if out, err := pack.CombinedOutput(); err != nil {
		t.Fatalf("zstd and xz (packages zstd, xz-utils): %v: %s", err, out)
	}
	const warning = "xz with CRC64, and the kernel knows CRC32 only: pack it with xz --check=crc32"
	out, said, err := execute(t, initramfsCommand(), "add", image+".xz", "--helper", helper, "--output", "json")
	if err != nil {
		t.Fatal(err)
	}
	var result struct{ Warnings []string }
	if err := json.Unmarshal([]byte(out), &result); err != nil {
		t.Fatal(err)
	}
	if len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0], warning) || !strings.Contains(said, "warning: "+image+".xz: the archive at byte 0: "+warning) {
		t.Errorf("the warnings are %q, and on standard error %q", result.Warnings, said)
	}
	out, _, err = execute(t, initramfsCommand(), "inspect", image+".xz")
	if err != nil || !strings.Contains(out, warning) || !strings.Contains(out, "nametag as /init") {
		t.Errorf("inspect: %v\n%s", err, out)
	}
}
