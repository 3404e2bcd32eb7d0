//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/u-root/u-root/pkg/cpio"

	"github.com/nametag-boot/nametag/internal/image/extension"
	"github.com/nametag-boot/nametag/internal/image/installer/installertest"
)

// moved is an initramfs that the imager has moved an extension's firmware into: an archive of its own, behind Talos'.
func moved(t *testing.T, path string) []byte {
	t.Helper()
	var records []cpio.Record
	for i, c := range path {
		if c == '/' {
			records = append(records, cpio.Directory(path[:i], 0o755))
		}
	}
	var b bytes.Buffer
	w := cpio.Newc.Writer(&b)
	if err := cpio.WriteRecords(w, append(records, cpio.StaticFile(path, string(installertest.Program("amd64")), 0o755))); err != nil {
		t.Fatal(err)
	}
	if err := cpio.WriteTrailer(w); err != nil {
		t.Fatal(err)
	}
	stock := installertest.Initramfs(t, "amd64")
	return append(append(stock, make([]byte, -len(stock)&3)...), b.Bytes()...)
}

// An image that the imager made with the extension has nametag, though we did not put it there.
func TestInspectKnowsTheHelperOfAnExtension(t *testing.T) {
	for _, line := range []string{"1.9", "1.12"} {
		t.Run(line, func(t *testing.T) {
			release, err := extension.ParseTalos(line)
			if err != nil {
				t.Fatal(err)
			}
			file, path := filepath.Join(t.TempDir(), "initramfs"), "/"+release.Path()
			content := moved(t, release.Path())
			if err := os.WriteFile(file, content, 0o600); err != nil {
				t.Fatal(err)
			}
			unified := ukiFile(t, false, ukiSection{".cmdline", "console=tty0"}, ukiSection{".initrd", string(content)}, ukiSection{".linux", "the kernel"})
			if out, _, err := execute(t, initramfsCommand(), "inspect", file); err != nil || !strings.Contains(out, "nametag of an extension at "+path+" for rdinit=\n") {
				t.Errorf("%v: %s", err, out)
			}
			if out, _, err := execute(t, ukiCommand(), "inspect", unified); err != nil || !strings.Contains(out, "with nametag of an extension at "+path+"\n") {
				t.Errorf("%v: %s", err, out)
			}
			var report struct{ Extension string }
			out, _, err := execute(t, initramfsCommand(), "inspect", file, "--output", "json")
			if err != nil || json.Unmarshal([]byte(out), &report) != nil || report.Extension != path {
				t.Errorf("%v: %+v", err, report)
			}
			if got := inspectJSON(t, unified).Initramfs; len(got) != 1 || got[0].Extension != path {
				t.Errorf("%+v", got)
			}
		})
	}
}
