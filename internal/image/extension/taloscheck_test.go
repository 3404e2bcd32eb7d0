package extension_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// unpack is what an imager does with a rootfs tarball.
func unpack(t *testing.T, rootfs []byte) string {
	t.Helper()
	dir := t.TempDir()
	for archive := tar.NewReader(bytes.NewReader(rootfs)); ; {
		e, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return dir
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, e.Name)
		if e.Typeflag == tar.TypeDir {
			err = os.Mkdir(path, 0o755)
		} else {
			var b []byte
			if b, err = io.ReadAll(archive); err == nil {
				err = os.WriteFile(path, b, e.FileInfo().Mode())
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Talos' own code judges the extensions, that of the oldest line and that of the newest which this was tried with. Each
// must refuse the other's: an image that was built with the wrong one would panic at boot.
func TestTalosItselfTakesTheExtensionForItsLineAndNoOther(t *testing.T) {
	trees := map[string]string{}
	for _, tag := range []string{"v1.9.1", "v1.12.7"} {
		var b bytes.Buffer
		if err := spec(t, tag).WriteRootfs(&b, helpers(t)[0]); err != nil {
			t.Fatal(err)
		}
		trees[tag] = unpack(t, b.Bytes())
	}
	for tag, module := range map[string]string{"v1.9.1": "talos-1.9.mod", "v1.12.7": "go.mod"} {
		judge := filepath.Join(t.TempDir(), "taloscheck")
		build := exec.Command("go", "build", "-o", judge, "-modfile="+module, ".")
		build.Dir = "taloscheck"
		build.Env = append(os.Environ(), "GOFLAGS=-mod=readonly -buildvcs=false", "CGO_ENABLED=0")
		if output, err := build.CombinedOutput(); err != nil {
			t.Fatalf("building with Talos' own code: %v\n%s", err, output)
		}
		for of, tree := range trees {
			output, err := exec.Command(judge, tree).CombinedOutput()
			says := strings.TrimSpace(string(output))
			switch {
			case of == tag && (err != nil || says != "Talos "+tag+" takes nametag v1.2.3"):
				t.Errorf("its own extension: %s (%v)", says, err)
			case of != tag && (err == nil || !strings.Contains(says, "refuses: version constraint")):
				t.Errorf("the extension for %s: %s (%v)", of, says, err)
			}
		}
	}
}
