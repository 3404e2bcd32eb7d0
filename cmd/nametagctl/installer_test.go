//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/nametag-boot/nametag/internal/cli"
	"github.com/nametag-boot/nametag/internal/image/installer/installertest"
	"github.com/nametag-boot/nametag/internal/image/jobs"
	"github.com/nametag-boot/nametag/internal/image/oci"
	"github.com/nametag-boot/nametag/internal/testvm/helpertest"
)

// stock pushes an index of installers to a registry, where Talos' own would be, and returns its name there.
func stock(t *testing.T, host string, a oci.Artifact) string {
	t.Helper()
	where := host + "/siderolabs/installer:v1"
	if _, err := (oci.Registry{}).Push(t.Context(), a, where); err != nil {
		t.Fatal(err)
	}
	return where
}

// The commands of docs/extension.md.
func TestInstallerAsItsDocumentationHasIt(t *testing.T) {
	helpers := helpertest.StandIn(t)
	t.Run("from a registry to a registry, for every architecture", func(t *testing.T) {
		host := serveRegistry(t)
		from := stock(t, host, oci.Artifact{Index: installertest.Index(t, installertest.Old)})
		out, progress, err := execute(t, installerCommand(), from, "--push", host+"/acme/installer:v1-nametag", "--helper", helpers)
		if err != nil {
			t.Fatal(err)
		}
		for _, says := range []string{
			"amd64  /usr/install/amd64/initramfs.xz  amended", "arm64  /usr/install/arm64/initramfs.xz  amended",
			"talosctl upgrade --nodes NODE --image " + host + "/acme/installer@sha256:", "extraKernelArgs:\n        - talos.hostname.wait=5m",
		} {
			if !strings.Contains(out, says) {
				t.Errorf("it does not say %q:\n%s", says, out)
			}
		}
		for _, says := range []string{"linux/arm64: reading layer 2 of 2", "amending /usr/install/amd64/initramfs.xz", "100 % of", "it attests to an image that is another one now"} {
			if !strings.Contains(progress, says) {
				t.Errorf("progress does not say %q:\n%s", says, progress)
			}
		}

		t.Run("and again, which changes nothing", func(t *testing.T) {
			out, _, err := execute(t, installerCommand(), host+"/acme/installer:v1-nametag", "--push", host+"/acme/installer:again", "--helper", helpers, "--output", "json")
			if err != nil {
				t.Fatal(err)
			}
			var r jobs.InstallerResult
			if err := json.Unmarshal([]byte(out), &r); err != nil {
				t.Fatal(err)
			}
			if r.Changed || len(r.Parts) != 2 || r.Parts[0].Files[0].Changed || !strings.HasSuffix(r.Pushed, "@"+r.Digest) {
				t.Errorf("%+v", r)
			}
		})
	})
	t.Run("from the imager's file to a file", func(t *testing.T) {
		t.Chdir(t.TempDir())
		if err := oci.WriteArchive(t.Context(), "installer-amd64.tar", "ghcr.io/siderolabs/installer:v1.12.7", installertest.Merged(t, "amd64")); err != nil {
			t.Fatal(err)
		}
		out, _, err := execute(t, installerCommand(), "installer-amd64.tar", "--archive", "installer-nametag.tar", "--wait", "2m,then=halt", "--helper", helpers)
		if err != nil {
			t.Fatal(err)
		}
		for _, says := range []string{"vmlinuz.efi  amended", "docker-archive  installer-nametag.tar, as localhost/installer:nametag", "have talos.hostname.wait=2m,then=halt", "grubUseUKICmdline"} {
			if !strings.Contains(out, says) {
				t.Errorf("it does not say %q:\n%s", says, out)
			}
		}
		if _, err := oci.Open(t.Context(), "installer-nametag.tar", oci.Registry{}); err != nil {
			t.Error(err)
		}
	})
	t.Run("one architecture of an index to a file and a layout", func(t *testing.T) {
		t.Chdir(t.TempDir())
		from := stock(t, serveRegistry(t), oci.Artifact{Index: installertest.Index(t, installertest.Merged)})
		out, _, err := execute(t, installerCommand(), from, "--arch", "arm64", "--archive", "a.tar", "--oci", "b", "--helper", helpers, "--output", "json")
		if err != nil {
			t.Fatal(err)
		}
		var r jobs.InstallerResult
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatal(err)
		}
		if len(r.Parts) != 1 || r.Parts[0].Architecture != "arm64" || r.Tag != from || r.MediaType != "application/vnd.oci.image.manifest.v1+json" {
			t.Errorf("%+v", r)
		}
		if a, err := oci.Open(t.Context(), "b", oci.Registry{}); err != nil || a.Image == nil {
			t.Error(a, err)
		}
	})
}

func TestInstallerRefusesWhatCannotWorkAndLeavesTheTargetUnharmed(t *testing.T) {
	helpers := helpertest.StandIn(t)
	host := serveRegistry(t)
	index := stock(t, host, oci.Artifact{Index: installertest.Index(t, installertest.Old)})
	base := host + "/siderolabs/installer-base:v1"
	if _, err := (oci.Registry{}).Push(t.Context(), oci.Artifact{Image: installertest.Image(t, "amd64", true, installertest.Tools())}, base); err != nil {
		t.Fatal(err)
	}
	torn := filepath.Join(t.TempDir(), "torn.tar")
	whole := filepath.Join(t.TempDir(), "whole.tar")
	if err := oci.WriteArchive(t.Context(), whole, "installer:v1", installertest.Old(t, "amd64")); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(torn, b[:len(b)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	for _, scenario := range []struct {
		name   string
		args   []string
		status int
		says   string
	}{
		{"no image", []string{"--archive", "out.tar"}, cli.Usage, "give one IMAGE"},
		{"no target", []string{index}, cli.Usage, "say where it goes"},
		{"a bare number of seconds", []string{index, "--archive", "out.tar", "--wait", "90"}, cli.Usage, "did you mean"},
		{"an architecture that there is not", []string{index, "--archive", "out.tar", "--arch", "riscv64"}, cli.Usage, "choose amd64, arm64"},
		{"a tag that is none", []string{whole, "--archive", "out.tar", "--tag", "No Tag"}, cli.Usage, "--tag"},
		{"an index into an archive", []string{index, "--archive", "out.tar"}, cli.Failed, "choose one by --arch"},
		{"an installer-base", []string{base, "--archive", "out.tar"}, cli.Failed, "no installer of Talos"},
		{"an image that is not there", []string{host + "/nothing:v1", "--archive", "out.tar"}, cli.Failed, "the registry has no such image"},
		{"a name that is none", []string{"Not A Name", "--archive", "out.tar"}, cli.Usage, "no file, no OCI layout and no image reference"},
		{"a file that is not there", []string{"_out/none.tar", "--archive", "out.tar"}, cli.Failed, "_out/none.tar: no such file or directory"},
		{"a folder that is no layout", []string{t.TempDir(), "--archive", "out.tar"}, cli.Failed, "OCI layout"},
		{"an archive cut short", []string{torn, "--archive", "out.tar"}, cli.Failed, torn + ": it is no such archive"},
		{"a layout that is none", []string{"oci:" + t.TempDir(), "--archive", "out.tar"}, cli.Failed, "OCI layout"},
		{"one architecture's helper is missing", []string{index, "--push", host + "/x:v1", "--helper-amd64", filepath.Join(helpers, "nametag-linux-amd64")}, cli.Failed, "no nametag for arm64"},
		// Before the image is looked for.
		{"a target that is no file", []string{host + "/nothing:v1", "--archive", "/dev/null"}, cli.Failed, "not a regular file"},
		{"a target folder that is none", []string{host + "/nothing:v1", "--archive", whole + "/out.tar"}, cli.Failed, "not a directory"},
		{"a target folder that there is not", []string{host + "/nothing:v1", "--archive", "no/such/out.tar"}, cli.Failed, "no such file or directory"},
	} {
		t.Run(scenario.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			if err := os.WriteFile("out.tar", []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
			args := scenario.args
			if !strings.Contains(strings.Join(args, " "), "--helper") {
				args = append(args, "--helper", helpers)
			}
			out, _, err := execute(t, installerCommand(), args...)
			fails(t, err, scenario.status, scenario.says)
			if out != "" {
				t.Errorf("it prints %q", out)
			}
			if left, err := os.ReadDir("."); err != nil || len(left) != 1 {
				t.Errorf("it leaves %v, %v", left, err)
			}
			if b, err := os.ReadFile("out.tar"); err != nil || string(b) != "precious" {
				t.Errorf("the target is %q, %v", b, err)
			}
		})
	}
}

// Ctrl-C ends it at once, whatever a registry does, and leaves no copies behind.
func TestAnInterruptedInstallerLeavesNothing(t *testing.T) {
	for _, scenario := range []struct {
		name  string
		hangs func(*http.Request) bool
		args  func(host string) []string
	}{
		{
			"while it reads", func(r *http.Request) bool {
				return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/")
			},
			func(string) []string { return []string{"--archive", "out.tar"} },
		},
		{
			"while it pushes", func(r *http.Request) bool {
				return r.Method == http.MethodPost && strings.Contains(r.URL.Path, "/acme/")
			},
			func(host string) []string { return []string{"--push", host + "/acme/installer:v1"} },
		},
	} {
		t.Run(scenario.name, func(t *testing.T) {
			t.Parallel()
			dir, tmp, helpers := t.TempDir(), t.TempDir(), helpertest.StandIn(t)
			inside := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
			asked, armed := make(chan struct{}, 64), atomic.Bool{}
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if armed.Load() && scenario.hangs(r) {
					asked <- struct{}{}
					<-r.Context().Done()
					return
				}
				inside.ServeHTTP(w, r)
			}))
			defer s.Close()
			host := strings.TrimPrefix(s.URL, "http://")
			from := stock(t, host, oci.Artifact{Index: installertest.Index(t, installertest.Merged)})
			armed.Store(true)
			target := filepath.Join(dir, "out.tar")
			if err := os.WriteFile(target, []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), "/proc/self/exe", append([]string{"installer", from, "--arch", "amd64", "--helper", helpers}, scenario.args(host)...)...)
			cmd.Dir, cmd.Env = dir, append(os.Environ(), actAs+"=1", "TMPDIR="+tmp)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			err := cmd.Start()
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			select {
			case <-asked:
				err = cmd.Process.Signal(os.Interrupt)
			case err = <-ended:
				err = fmt.Errorf("it ended before it was interrupted: %w: %s", err, stderr.String())
			}
			if err != nil {
				t.Fatal(err)
			}
			var exit *exec.ExitError
			if err := <-ended; !errors.As(err, &exit) || exit.ExitCode() != cli.Failed || !strings.Contains(stderr.String(), "nothing was replaced by half") {
				t.Errorf("%v: %s", err, stderr.String())
			}
			if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
				t.Errorf("it leaves %v, %v", left, err)
			}
			if b, err := os.ReadFile(target); err != nil || string(b) != "precious" {
				t.Errorf("the target is %q, %v", b, err)
			}
		})
	}
}
