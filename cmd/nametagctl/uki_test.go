//go:build linux

package main

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nametag-boot/nametag/internal/cli"
	"github.com/nametag-boot/nametag/internal/image/jobs"
	"github.com/u-root/u-root/pkg/cpio"
	"golang.org/x/sys/unix"
)

// ukiSection is a section of a made-up image.
type ukiSection struct{ name, content string }

// ukiFile makes a unified kernel image of the sections, signed by nobody that can be read where signed is true.
func ukiFile(t *testing.T, signed bool, sections ...ukiSection) string {
	t.Helper()
	if signed {
		return ukiFileWith(t, certificateTable(nil), sections...)
	}
	return ukiFileWith(t, nil, sections...)
}

// certificateTable has one entry, a PKCS #7 message.
func certificateTable(message []byte) []byte {
	table := binary.LittleEndian.AppendUint32(nil, uint32(8+len(message)))
	table = append(append(table, 0, 2, 2, 0), message...)
	return append(table, make([]byte, -len(table)&7)...)
}

// ukiFileWith is an image with a certificate table; nil: it is not signed.
func ukiFileWith(t *testing.T, signature []byte, sections ...ukiSection) string {
	t.Helper()
	const headers, page = 1024, 4096
	var head, body bytes.Buffer
	put := func(v any) {
		if err := binary.Write(&head, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	sections = append([]ukiSection{{".text", "code"}, {".sdmagic", "#### LoaderInfo: systemd-stub 257 ####"}}, sections...)
	optional := pe.OptionalHeader64{
		Magic: 0x20b, AddressOfEntryPoint: page, SectionAlignment: page, FileAlignment: 512, SizeOfHeaders: headers, NumberOfRvaAndSizes: 16,
	}
	var table []pe.SectionHeader32
	address := uint32(page)
	for _, s := range sections {
		h := pe.SectionHeader32{
			VirtualSize: uint32(len(s.content)), VirtualAddress: address,
			PointerToRawData: uint32(headers + body.Len()), Characteristics: 0x40000040,
		}
		copy(h.Name[:], s.name)
		body.WriteString(s.content)
		body.Write(make([]byte, -body.Len()&511))
		h.SizeOfRawData = uint32(headers+body.Len()) - h.PointerToRawData
		address += (h.VirtualSize + page - 1) &^ (page - 1)
		table = append(table, h)
	}
	optional.SizeOfImage = address
	if signature != nil {
		optional.DataDirectory[4] = pe.DataDirectory{VirtualAddress: uint32(headers + body.Len()), Size: uint32(len(signature))}
		body.Write(signature)
	}
	dos := make([]byte, 64)
	copy(dos, "MZ")
	dos[0x3c] = 64
	put(dos)
	put([]byte("PE\x00\x00"))
	put(pe.FileHeader{Machine: pe.IMAGE_FILE_MACHINE_AMD64, NumberOfSections: uint16(len(table)), SizeOfOptionalHeader: uint16(binary.Size(optional))})
	put(optional)
	put(table)
	put(make([]byte, headers-head.Len()))
	name := filepath.Join(t.TempDir(), "vmlinuz.efi")
	if err := os.WriteFile(name, append(head.Bytes(), body.Bytes()...), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// ukiProgram is a program that passes for nametag, for the image's processor, whatever this test's is.
func ukiProgram(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	source := filepath.Join(dir, "cmd", "nametag")
	if err := os.MkdirAll(source, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{filepath.Join(dir, "go.mod"): "module example\n", filepath.Join(source, "main.go"): "package main\n\nfunc main() {}\n"} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(dir, "program")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", out, "./cmd/nametag")
	build.Dir = dir
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	return out
}

// ukiInitrd is an initramfs with an /init.
func ukiInitrd(t *testing.T, program string) string {
	t.Helper()
	b, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	w := cpio.Newc.Writer(&archive)
	if err := w.WriteRecord(cpio.StaticRecord(b, cpio.Info{Name: "init", Mode: unix.S_IFREG | 0o755})); err != nil {
		t.Fatal(err)
	}
	if err := cpio.WriteTrailer(w); err != nil {
		t.Fatal(err)
	}
	return archive.String()
}

func runUKICommand(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, complaints, err := execute(t, ukiCommand(), args...)
	return out + complaints, err
}

func inspectJSON(t *testing.T, name string) jobs.UKIReport {
	t.Helper()
	out, err := runUKICommand(t, "inspect", "--output", "json", name)
	if err != nil {
		t.Fatal(err)
	}
	var r jobs.UKIReport
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestNametagIsPutIntoAUnifiedKernelImage(t *testing.T) {
	program := ukiProgram(t)
	image := ukiFile(t, false,
		ukiSection{".osrel", "ID=talos\nPRETTY_NAME=\"Talos (v1.12.7)\"\n"},
		ukiSection{".cmdline", "talos.platform=hcloud"},
		ukiSection{".initrd", ukiInitrd(t, program)},
		ukiSection{".linux", "kernel"},
		ukiSection{".profile", "ID=main"},
		ukiSection{".profile", "ID=reset"},
		ukiSection{".cmdline", "talos.platform=hcloud wipe\x1b[2J"},
		ukiSection{".pcrsig", "{}"},
	)
	t.Run("it is shown", func(t *testing.T) {
		out, err := runUKICommand(t, "inspect", image)
		for _, want := range []string{"unified kernel image for amd64", "Talos (v1.12.7)", "systemd-stub 257", "command line of reset:\n    talos.platform=hcloud wipe\\u001b[2J", "without nametag", "signature       none"} {
			if err != nil || !strings.Contains(out, want) {
				t.Errorf("%v: no %q in\n%s", err, want, out)
			}
		}
	})
	for _, c := range []struct {
		name      string
		flags     []string
		arguments string
		path      string
	}{
		{"as init", nil, " talos.hostname.wait=2m", "init"},
		{"by rdinit", []string{"--rdinit"}, " talos.hostname.wait=2m rdinit=/usr/lib/firmware/nametag/nametag init=/init", "usr/lib/firmware/nametag/nametag"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out.efi")
			flags := append([]string{"edit", image, "--nametag", "--helper", program, "--wait", "2m", "--out", out}, c.flags...)
			said, err := runUKICommand(t, flags...)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(said, "PCR signatures (.pcrsig: 1)") {
				t.Errorf("it does not tell of the PCR signatures:\n%s", said)
			}
			r := inspectJSON(t, out)
			if len(r.CommandLines) != 2 || r.CommandLines[0].Text != "talos.platform=hcloud"+c.arguments || !strings.HasSuffix(r.CommandLines[1].Text, c.arguments) || r.CommandLines[1].Profile != "reset" {
				t.Errorf("%+v", r.CommandLines)
			}
			if len(r.Initramfs) != 1 || r.Initramfs[0].Nametag == nil || r.Initramfs[0].Nametag.Path != c.path {
				t.Errorf("%+v", r.Initramfs)
			}
			first, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := runUKICommand(t, flags...); err != nil {
				t.Fatal(err)
			}
			if again, err := os.ReadFile(out); err != nil || !bytes.Equal(first, again) {
				t.Errorf("done twice, it is another image: %v", err)
			}
		})
	}
	t.Run("another initramfs", func(t *testing.T) {
		other := filepath.Join(t.TempDir(), "initramfs")
		if err := os.WriteFile(other, []byte(ukiInitrd(t, program)+strings.Repeat("\x00", 8192)), 0o600); err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(t.TempDir(), "out.efi")
		said, err := runUKICommand(t, "edit", image, "--initrd", other, "--out", out, "--output", "json")
		var result jobs.UKIResult
		if err != nil || json.Unmarshal([]byte(said), &result) != nil || len(result.Initramfs) != 1 || result.Initramfs[0].After != result.Initramfs[0].Before+8192 {
			t.Errorf("%v: %s", err, said)
		}
	})
	t.Run("arguments added, replaced and removed", func(t *testing.T) {
		out := filepath.Join(t.TempDir(), "out.efi")
		if _, err := runUKICommand(t, "edit", image, "--append", "a b=1", "--append", "c", "--replace", "talos.platform=metal", "--remove", "wipe\x1b[2J", "--out", out); err == nil {
			t.Error("a name that is not printable was taken")
		}
		if _, err := runUKICommand(t, "edit", image, "--append", "a b=1", "--append", "c", "--replace", "talos.platform=metal", "--out", out); err != nil {
			t.Fatal(err)
		}
		if r := inspectJSON(t, out); r.CommandLines[0].Text != "talos.platform=metal a b=1 c" {
			t.Errorf("%+v", r.CommandLines)
		}
	})
}

// An image that was edited with --rdinit has an argument by which the kernel looks for the helper at its path. As /init it
// is not there any more, and the kernel would panic.
func TestNametagIsNotPutAtInitWhereTheKernelIsToldOtherwise(t *testing.T) {
	program := ukiProgram(t)
	image := ukiFile(t, false, ukiSection{".cmdline", "a"}, ukiSection{".initrd", ukiInitrd(t, program)}, ukiSection{".linux", "kernel"})
	if _, err := runUKICommand(t, "edit", image, "--nametag", "--helper", program, "--rdinit", "--wait", "2m"); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	_, err = runUKICommand(t, "edit", image, "--nametag", "--helper", program)
	fails(t, err, cli.Failed, "--remove rdinit")
	if after, err := os.ReadFile(image); err != nil || !bytes.Equal(before, after) {
		t.Errorf("it was changed: %v", err)
	}
	if _, err := runUKICommand(t, "edit", image, "--nametag", "--helper", program, "--remove", "rdinit init"); err != nil {
		t.Fatal(err)
	}
	r := inspectJSON(t, image)
	if r.CommandLines[0].Text != "a talos.hostname.wait=2m" || r.Initramfs[0].Nametag == nil || r.Initramfs[0].Nametag.Path != "init" {
		t.Errorf("%+v %+v", r.CommandLines, r.Initramfs)
	}
}

func TestAnEditSaysWhatKeepsNametagFromWaiting(t *testing.T) {
	program := ukiProgram(t)
	image := ukiFile(t, false, ukiSection{".cmdline", "talos.hostname=web-1"}, ukiSection{".initrd", ukiInitrd(t, program)}, ukiSection{".linux", "kernel"})
	said, err := runUKICommand(t, "edit", image, "--nametag", "--helper", program)
	if err != nil || !strings.Contains(said, "talos.hostname=web-1 talos.hostname.wait=5m") || !strings.Contains(said, "command line of base: mistake: ") {
		t.Errorf("%v: %s", err, said)
	}
	said, err = runUKICommand(t, "edit", image, "--wait", "2m", "--output", "json")
	var result jobs.UKIResult
	if err != nil || json.Unmarshal([]byte(said), &result) != nil || !result.Changed || len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0], "web-1") {
		t.Errorf("%v: %s", err, said)
	}
	_, err = runUKICommand(t, "edit", ukiFile(t, false, ukiSection{".initrd", ukiInitrd(t, program)}, ukiSection{".linux", "kernel"}), "--nametag", "--helper", program)
	fails(t, err, cli.Usage, "--cmdline")
	plain := ukiFile(t, false, ukiSection{".cmdline", ""}, ukiSection{".initrd", ukiInitrd(t, program)}, ukiSection{".linux", "kernel"})
	said, err = runUKICommand(t, "edit", plain, "--wait", "2m")
	if err != nil || !strings.Contains(said, "nothing runs nametag") || !strings.Contains(said, "uki edit --nametag") {
		t.Errorf("told to wait, and not added: %v: %s", err, said)
	}
	for _, flags := range [][]string{nil, {"--rdinit"}} {
		out := filepath.Join(t.TempDir(), "out.efi")
		said, err = runUKICommand(t, append([]string{"edit", plain, "--nametag", "--helper", program, "--wait", "2m", "--out", out}, flags...)...)
		if err != nil || strings.Contains(said, "mistake") || strings.Contains(said, "hint") {
			t.Errorf("as it should be: %v: %s", err, said)
		}
	}
	said, err = runUKICommand(t, "edit", image, "--append", "quiet")
	if err != nil || strings.Contains(said, "mistake") {
		t.Errorf("what is none of nametag's: %v: %s", err, said)
	}
}

func TestWhatIsNoInitramfsIsNotPutIn(t *testing.T) {
	image := ukiFile(t, false, ukiSection{".cmdline", "a"}, ukiSection{".linux", "kernel"})
	dir := t.TempDir()
	write := func(name, content string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	program := ukiInitrd(t, ukiProgram(t))
	foreign := []byte(program)
	foreign[bytes.Index(foreign, []byte("\x7fELF"))+18] = 183 // arm64
	for _, c := range []struct{ file, want string }{
		{write("empty", ""), "there is no archive in it"},
		{write("kernel", "MZ and so on"), "an EFI program"},
		{write("text", "quiet"), "neither a cpio archive nor"},
		{write("cut", program[:len(program)/2]), "cut"},
		{write("foreign", string(foreign)), "its /init is for arm64, and the image for amd64"},
		{dir, "not a regular file"},
	} {
		_, err := runUKICommand(t, "edit", image, "--initrd", c.file, "--out", filepath.Join(dir, "out.efi"))
		fails(t, err, cli.Failed, c.want)
	}
	if _, err := os.Stat(filepath.Join(dir, "out.efi")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is a result: %v", err)
	}
}

func TestACommandLineIsCheckedAgainstAUnifiedKernelImage(t *testing.T) {
	program := ukiProgram(t)
	image := ukiFile(t, false, ukiSection{".cmdline", ""}, ukiSection{".initrd", ukiInitrd(t, program)}, ukiSection{".linux", "kernel"})
	out, _, err := execute(t, cmdlineCommand(), "check", "--image", image, "talos.hostname.wait=2m rdinit=/x init=/init")
	fails(t, err, cli.Failed, "")
	if !strings.Contains(out, "the image has no /x") {
		t.Errorf("%s", out)
	}
	if _, err := runUKICommand(t, "edit", image, "--nametag", "--helper", program, "--wait", "2m"); err != nil {
		t.Fatal(err)
	}
	if out, _, err := execute(t, cmdlineCommand(), "check", "--image", image, "talos.hostname.wait=2m"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	_, _, err = execute(t, cmdlineCommand(), "check", "--image", ukiFile(t, false, ukiSection{".linux", "kernel"}), "talos.hostname.wait=2m")
	fails(t, err, cli.Failed, "it has no initramfs")
}

func TestASignedImageIsNotEditedUnasked(t *testing.T) {
	image := ukiFile(t, true, ukiSection{".cmdline", "a"}, ukiSection{".linux", "kernel"})
	before, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	_, err = runUKICommand(t, "edit", image, "--wait", "2m")
	var exit *cli.Error
	if !errors.As(err, &exit) || exit.Status != cli.Failed || !strings.Contains(err.Error(), "--drop-signature") || !strings.Contains(err.Error(), "sbsign --key") {
		t.Errorf("%v", err)
	}
	if after, err := os.ReadFile(image); err != nil || !bytes.Equal(before, after) {
		t.Errorf("it was changed: %v", err)
	}
	said, err := runUKICommand(t, "edit", image, "--wait", "2m", "--drop-signature")
	if err != nil || !strings.Contains(said, "sbsign --key db.key --cert db.crt --output "+image) {
		t.Errorf("%v: %s", err, said)
	}
	if r := inspectJSON(t, image); len(r.Signatures) != 0 {
		t.Errorf("%+v", r.Signatures)
	}
}

func TestWhatTheUKICommandsCannotDoHasARemedy(t *testing.T) {
	image := ukiFile(t, false, ukiSection{".linux", "kernel"})
	for _, c := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"inspect"}, cli.Usage, "give one IMAGE"},
		{[]string{"inspect", "--output", "yaml", image}, cli.Usage, "choose text or json"},
		{[]string{"inspect", "uki_test.go"}, cli.Failed, `uki_test.go: at byte 0x0: no EFI program: it begins with "//"`},
		{[]string{"inspect", "no-such"}, cli.Failed, "no such file"},
		{[]string{"edit", image}, cli.Usage, "nothing to do"},
		{[]string{"edit", image, "--wait", "90"}, cli.Usage, "did you mean 90s?"},
		{[]string{"edit", image, "--append", `a="b`}, cli.Usage, "--append: a quotation mark"},
		{[]string{"edit", image, "--rdinit"}, cli.Usage, "belong to --nametag"},
		{[]string{"edit", image, "--nametag", "--initrd", "x"}, cli.Usage, "choose --initrd"},
		{[]string{"edit", image, "--initrd", "no-such"}, cli.Failed, "no such file"},
		{[]string{"edit", image, "--nametag", "--cmdline", ""}, cli.Failed, "put one in with --initrd"},
		{[]string{"edit", image, "--append", "quiet"}, cli.Usage, "give the image a whole one by --cmdline"},
		{[]string{"edit", image, "--append", "-- foo"}, cli.Usage, "is not one kernel argument"},
		{[]string{"edit", ukiFile(t, false, ukiSection{".initrd", "x"}, ukiSection{".linux", "kernel"}), "--nametag", "--cmdline", "quiet", "--helper", "uki_test.go"}, cli.Failed, "is not a Linux program"},
		{[]string{"edit", image, "--cmdline", "", "--append", strings.Repeat("x", 3000)}, cli.Failed, "the kernel cuts it off after 2047"},
		{[]string{"edit", image, "--cmdline", "", "--wait", "2m", "--out", "/proc/no/such"}, cli.Failed, "no such file"},
	} {
		t.Run(strings.Join(slices.DeleteFunc(slices.Clone(c.args), func(s string) bool { return len(s) > 40 }), " "), func(t *testing.T) {
			_, err := runUKICommand(t, c.args...)
			var exit *cli.Error
			if !errors.As(err, &exit) || exit.Status != c.status || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; not %d with %q", err, c.status, c.want)
			}
		})
	}
}
