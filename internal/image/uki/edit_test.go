package uki

import (
	"bytes"
	"context"
	"debug/pe"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

func appending(words ...string) func(string) (string, error) { return Arguments{Append: words}.Apply }

// sound checks an edited image against the rules of the format and against the image that it was: what the edit did not
// name must be what it was, and the stub where it was.
func sound(t testing.TB, before, after *Image, b []byte) {
	t.Helper()
	independent, err := pe.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatalf("debug/pe: %v", err)
	}
	defer independent.Close()
	optional := independent.OptionalHeader.(*pe.OptionalHeader64)
	if len(independent.Sections) != len(after.Sections) {
		t.Fatalf("debug/pe sees %d sections, not %d", len(independent.Sections), len(after.Sections))
	}
	image := uint64(0)
	for i, s := range independent.Sections {
		ours := after.Sections[i]
		if s.Name != ours.Name && !strings.HasPrefix(ours.Name, "/") || s.Offset != ours.Offset || s.Size != ours.Size || s.VirtualAddress != ours.VirtualAddress || s.VirtualSize != ours.VirtualSize {
			t.Errorf("debug/pe sees %+v, not %+v", s.SectionHeader, ours)
		}
		if s.Size%optional.FileAlignment != 0 || s.Size > 0 && s.Offset%optional.FileAlignment != 0 {
			t.Errorf("%s is not aligned in the file: %+v", s.Name, s.SectionHeader)
		}
		if i > 0 && s.VirtualAddress < independent.Sections[i-1].VirtualAddress {
			t.Errorf("%s does not stand in the order of the addresses", s.Name)
		}
		image = max(image, uint64(ours.VirtualAddress)+ours.span())
	}
	if size := align(image, uint64(optional.SectionAlignment)); uint64(optional.SizeOfImage) != size {
		t.Errorf("SizeOfImage is 0x%x, not 0x%x", optional.SizeOfImage, size)
	}
	for _, old := range before.Sections {
		if !old.fixed {
			continue
		}
		if !slices.ContainsFunc(after.Sections, func(s Section) bool {
			return s.Name == old.Name && s.VirtualAddress == old.VirtualAddress && s.VirtualSize == old.VirtualSize
		}) {
			t.Errorf("%s has moved in memory", old.Name)
		}
	}
}

// contents is every section but the named ones, as text.
func contents(t testing.TB, m *Image, but ...string) []string {
	t.Helper()
	var all []string
	for _, s := range m.Sections {
		if slices.Contains(but, s.Name) {
			continue
		}
		b, err := io.ReadAll(m.Data(s))
		if err != nil {
			t.Fatal(err)
		}
		text := strings.TrimRight(string(b), "\x00") // memory is zero behind what the file has
		all = append(all, m.ProfileName(s.Profile)+" "+s.Name+" "+text)
	}
	return all
}

func TestAnEditThatChangesNothingGivesTheSameBytes(t *testing.T) {
	for name, f := range map[string]fake{
		"plain":                  {parts: usual},
		"with symbols":           {parts: usual, symbols: symbols},
		"with a debug directory": {parts: usual, debug: true},
	} {
		t.Run(name, func(t *testing.T) {
			before := f.bytes()
			_, result, after := edit(t, open(t, before), Edit{CommandLine: appending("console=tty0")})
			if !bytes.Equal(before, after) || result.Changed() {
				t.Errorf("changed: %+v", result)
			}
		})
	}
}

func TestEveryCommandLineIsAmended(t *testing.T) {
	before := fake{parts: usual, checksum: 1, debug: true, symbols: symbols}.image(t)
	after, result, b := edit(t, before, Edit{CommandLine: appending("talos.hostname.wait=2m", "rdinit=/usr/lib/firmware/nametag/nametag", "init=/init")})
	sound(t, before, after, b)
	lines := after.Find(".cmdline")
	if len(lines) != 2 {
		t.Fatalf("%d command lines", len(lines))
	}
	for i, want := range []string{
		"talos.platform=hcloud console=tty0 talos.hostname.wait=2m rdinit=/usr/lib/firmware/nametag/nametag init=/init",
		"talos.platform=hcloud console=tty0 talos.experimental.wipe=system talos.hostname.wait=2m rdinit=/usr/lib/firmware/nametag/nametag init=/init",
	} {
		if text, err := after.Text(lines[i]); err != nil || text != want {
			t.Errorf("%q, %v; not %q", text, err, want)
		}
		if lines[i].VirtualSize != uint32(len(want)) {
			t.Errorf("%d bytes in memory, not %d", lines[i].VirtualSize, len(want))
		}
	}
	if got, want := contents(t, after, ".cmdline"), contents(t, before, ".cmdline"); !slices.Equal(got, want) {
		t.Errorf("other sections changed:\n%q\n%q", got, want)
	}
	if !slices.Equal(after.Profiles, before.Profiles) || !bytes.HasSuffix(b, []byte(symbols)) {
		t.Errorf("profiles %v, and the symbols %q", after.Profiles, b[len(b)-16:])
	}
	if result.StalePCRSignatures != 1 || result.CommandLines[1].Profile != "reset-maintenance" || !result.Changed() {
		t.Errorf("%+v", result)
	}
}

func TestASectionThatGrowsMovesWhatIsFoundByNameAndNothingElse(t *testing.T) {
	parts := slices.Clone(usual)
	parts = slices.Insert(parts, 4, part{name: ".rodata", content: "the stub's own"}) // behind .initrd and .uname
	before := fake{parts: parts, debug: true}.image(t)
	big := strings.Repeat("initramfs ", 5000)
	after, result, b := edit(t, before, Edit{Initramfs: replace(big)})
	sound(t, before, after, b)
	if got, err := io.ReadAll(after.Data(after.Find(".initrd")[0])); err != nil || string(got) != big {
		t.Errorf("%d bytes of initramfs, %v", len(got), err)
	}
	if len(result.Initramfs) != 1 || result.Initramfs[0] != (Initramfs{"base", 13, 50000}) {
		t.Errorf("%+v", result.Initramfs)
	}
	linux := after.Find(".linux")[0]
	if old := before.Find(".linux")[0]; linux.VirtualAddress <= old.VirtualAddress || linux.VirtualAddress%pageSize != 0 || linux.VirtualSize != old.VirtualSize {
		t.Errorf("the kernel is at 0x%x with 0x%x bytes; before at 0x%x with 0x%x", linux.VirtualAddress, linux.VirtualSize, old.VirtualAddress, old.VirtualSize)
	}
	if got, want := contents(t, after, ".initrd", ".rodata"), contents(t, before, ".initrd", ".rodata"); !slices.Equal(got, want) {
		t.Errorf("other sections changed:\n%q\n%q", got, want)
	}
	if rodata := after.Find(".rodata")[0]; rodata.VirtualAddress != before.Find(".rodata")[0].VirtualAddress {
		t.Errorf("the stub's own section is at 0x%x", rodata.VirtualAddress)
	}
}

func TestASectionThatTheHeadersReferIntoStays(t *testing.T) {
	b := fake{parts: usual}.bytes()
	m := open(t, b)
	sbat := m.Find(".sbat")[0]
	h := m.header
	_, _, field := h.directory(1)
	h.put32(field, sbat.VirtualAddress)
	h.put32(field+4, 4)
	copy(b, h.bytes)
	m = open(t, b)
	after, _, out := edit(t, m, Edit{Initramfs: replace(strings.Repeat("x", 30000))})
	sound(t, m, after, out)
	if got := after.Find(".sbat")[0].VirtualAddress; got != sbat.VirtualAddress {
		t.Errorf("at 0x%x, not at 0x%x", got, sbat.VirtualAddress)
	}
}

func TestASectionComesIntoNoOtherProfile(t *testing.T) {
	b := fake{parts: usual}.bytes()
	m := open(t, b)
	signature, h := m.Find(".pcrsig")[0], m.header // between two profiles, and tied
	_, _, field := h.directory(1)
	h.put32(field, signature.VirtualAddress)
	h.put32(field+4, 4)
	copy(b, h.bytes)
	_, err := open(t, b).Write(t.Context(), &memory{}, Edit{Initramfs: replace(strings.Repeat("x", 1<<20))})
	if err == nil || !strings.Contains(err.Error(), "section .pcrsig would come into another profile") {
		t.Errorf("%v", err)
	}
}

func TestAnImageWithoutACommandLineOrAnInitramfsGetsOne(t *testing.T) {
	for name, room := range map[string]int{"where the headers have room": 8, "where the sections must make room": 0} {
		t.Run(name, func(t *testing.T) {
			parts := slices.DeleteFunc(slices.Clone(usual), func(p part) bool { return p.name == ".cmdline" || p.name == ".initrd" })
			// As many as it takes to fill the headers to their last byte but a few.
			for (fakeTable+(2+len(parts))*sectionHeaderSize)%fakeFileAlignment < fakeFileAlignment-sectionHeaderSize {
				parts = append(parts, part{name: ".dtbauto", content: "tree"})
			}
			before := fake{parts: parts, room: room, debug: true, checksum: 7}.image(t)
			after, _, b := edit(t, before, Edit{CommandLine: appending("a=b"), Initramfs: replace("new")})
			sound(t, before, after, b)
			lines, initramfs := after.Find(".cmdline"), after.Find(".initrd")
			if len(lines) != 1 || len(initramfs) != 1 || lines[0].Profile != 0 || initramfs[0].Profile != 0 {
				t.Fatalf("%+v %+v", lines, initramfs)
			}
			if text, err := after.Text(lines[0]); err != nil || text != "a=b" {
				t.Errorf("%q, %v", text, err)
			}
			if got, want := contents(t, after, ".cmdline", ".initrd", ".data"), contents(t, before, ".data"); !slices.Equal(got, want) {
				t.Errorf("other sections changed:\n%q\n%q", got, want)
			}
			// What the debug directory describes is where it says.
			place, _, _ := after.header.directory(directoryDebug)
			data := after.Find(".data")[0]
			at := data.Offset + place - data.VirtualAddress + debugRawOffset
			if raw := binary.LittleEndian.Uint32(b[at:]); string(b[raw:raw+9]) != "debugging" {
				t.Errorf("%q", b[raw:raw+9])
			}
		})
	}
}

func TestThereMayBeNoRoomForAnotherSectionHeader(t *testing.T) {
	parts := []part{{name: ".linux", content: "kernel"}}
	for len(parts) < 92 {
		parts = append(parts, part{name: ".dtbauto", content: "tree"}) // up to the first section's address
	}
	m := fake{parts: parts}.image(t)
	if _, err := m.Write(t.Context(), &memory{}, Edit{CommandLine: appending("a"), Initramfs: replace("x")}); err == nil || !strings.Contains(err.Error(), "no room for another section header") {
		t.Errorf("%v", err)
	}
}

func TestASignedImageIsRefusedUnlessTheSignatureMayGo(t *testing.T) {
	signature := append(binary.LittleEndian.AppendUint32(nil, 16), 0, 2, 2, 0, 1, 2, 3, 4, 5, 6, 7, 8)
	m := fake{parts: usual, signature: signature}.image(t)
	var refused *SignedError
	if _, err := m.Write(t.Context(), &memory{}, Edit{CommandLine: appending("a")}); !errors.As(err, &refused) {
		t.Fatalf("%v", err)
	}
	after, result, b := edit(t, m, Edit{CommandLine: appending("a"), DropSignature: true})
	sound(t, m, after, b)
	if after.Signed() || result.DroppedSignatures != 1 || bytes.Contains(b, signature) {
		t.Errorf("%+v, %+v", after.Signatures, result)
	}
}

func TestWhatCannotBeDoneIsAnErrorWithItsCause(t *testing.T) {
	cause := errors.New("cause")
	m := fake{parts: usual}.image(t)
	t.Run("the command line's editor fails", func(t *testing.T) {
		_, err := m.Write(t.Context(), &memory{}, Edit{CommandLine: func(string) (string, error) { return "", cause }})
		if !errors.Is(err, cause) || !strings.HasPrefix(err.Error(), "the command line of base: ") {
			t.Errorf("%v", err)
		}
	})
	t.Run("the initramfs' editor fails", func(t *testing.T) {
		_, err := m.Write(t.Context(), &memory{}, Edit{Initramfs: func(context.Context, io.Writer, *io.SectionReader) error { return cause }})
		if !errors.Is(err, cause) || !strings.HasPrefix(err.Error(), "section .initrd: ") {
			t.Errorf("%v", err)
		}
	})
	t.Run("the context ends", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		if _, err := m.Write(ctx, &memory{}, Edit{}); !errors.Is(err, cause) {
			t.Errorf("%v", err)
		}
	})
	t.Run("symbols stand within a section", func(t *testing.T) {
		b := fake{parts: usual, symbols: symbols}.bytes()
		binary.LittleEndian.PutUint32(b[fakePE+4+coffSymbols:], 0x700)
		if _, err := open(t, b).Write(t.Context(), &memory{}, Edit{}); err == nil || !strings.Contains(err.Error(), "table of symbols") {
			t.Errorf("%v", err)
		}
	})
	t.Run("symbols are cut off", func(t *testing.T) {
		b := fake{parts: usual, symbols: symbols}.bytes()
		binary.LittleEndian.PutUint32(b[fakePE+4+coffSymbolCount:], 2)
		if _, err := open(t, b).Write(t.Context(), &memory{}, Edit{}); err == nil || !strings.Contains(err.Error(), "table of symbols") {
			t.Errorf("%v", err)
		}
	})
	t.Run("sections out of the order of their addresses", func(t *testing.T) {
		parts := slices.Clone(usual)
		parts[0].address = 0x100000
		parts[1].address = 0x80000
		if _, err := (fake{parts: parts}).image(t).Write(t.Context(), &memory{}, Edit{}); err == nil || !strings.Contains(err.Error(), "order of their addresses") {
			t.Errorf("%v", err)
		}
	})
}

// PCR signatures are over the sections. They go stale with those, and not with the signature of the image.
func TestPCRSignaturesGoStaleOnlyWithTheSections(t *testing.T) {
	signed := fake{parts: usual, signature: []byte{8, 0, 0, 0, 0, 2, 2, 0}}.image(t)
	if _, result, _ := edit(t, signed, Edit{DropSignature: true}); result.StalePCRSignatures != 0 || result.DroppedSignatures != 1 {
		t.Errorf("only the signature has gone: %+v", result)
	}
	plain := fake{parts: usual}.image(t)
	if _, result, _ := edit(t, plain, Edit{CommandLine: appending("console=tty0")}); result.StalePCRSignatures != 0 {
		t.Errorf("nothing was changed: %+v", result)
	}
	if _, result, _ := edit(t, plain, Edit{Initramfs: replace("another")}); result.StalePCRSignatures != 1 {
		t.Errorf("another initramfs: %+v", result)
	}
}
