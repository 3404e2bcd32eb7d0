//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/spf13/cobra"

	"github.com/nametag-boot/nametag/internal/cli"
	"github.com/nametag-boot/nametag/internal/image/jobs"
	"github.com/nametag-boot/nametag/internal/testvm/helpertest"
)

// execute runs a command as nametagctl would.
func execute(t *testing.T, cmd *cobra.Command, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	return executeIn(t.Context(), cmd, args...)
}

func executeIn(ctx context.Context, cmd *cobra.Command, args ...string) (stdout, stderr string, err error) {
	var out, complaints bytes.Buffer
	root := &cobra.Command{Use: "nametagctl"}
	root.AddCommand(cmd)
	cli.Prepare(root)
	root.SetArgs(append([]string{cmd.Name()}, args...))
	root.SetOut(cli.NewScreen(&out))
	root.SetErr(cli.NewScreen(&complaints))
	root.SetIn(cmd.InOrStdin())
	err = root.ExecuteContext(ctx)
	return out.String(), complaints.String(), err
}

// fails checks that a command ends with that status, and what it says.
func fails(t *testing.T, err error, status int, says string) {
	t.Helper()
	var exit *cli.Error
	if !errors.As(err, &exit) || exit.Status != status || !strings.Contains(err.Error(), says) {
		t.Errorf("got %v, want status %d and %q", err, status, says)
	}
}

// serveRegistry runs a registry in this process and returns its address.
func serveRegistry(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// The commands of docs/extension.md, but for the imager's own.
func TestExtensionAsItsDocumentationHasIt(t *testing.T) {
	helpers := helpertest.StandIn(t)
	t.Run("an OCI layout and the profile for it", func(t *testing.T) {
		t.Chdir(t.TempDir())
		out, _, err := execute(t, extensionCommand(), "--helper", helpers, "--oci", "nametag.oci")
		if err != nil {
			t.Fatal(err)
		}
		for _, says := range []string{
			"for Talos 1.10 and later, amd64 and arm64", "ociPath: /nametag/nametag.oci", "ghcr.io/siderolabs/imager:v1.12.7",
			"- rdinit=/usr/lib/firmware/nametag/nametag", "- init=/init", "- talos.hostname.wait=5m",
			"baseProfileName: hcloud", "baseProfileName: installer",
		} {
			if !strings.Contains(out, says) {
				t.Errorf("it does not say %q:\n%s", says, out)
			}
		}
		if _, err := os.Stat("nametag.oci/index.json"); err != nil {
			t.Error(err)
		}
		_, _, err = execute(t, extensionCommand(), "--helper", helpers, "--oci", "nametag.oci")
		fails(t, err, cli.Failed, "--force")
	})
	t.Run("the same digest twice, in a layout and in a registry", func(t *testing.T) {
		t.Chdir(t.TempDir())
		where := serveRegistry(t) + "/acme/nametag:v1"
		var digests []string
		for _, args := range [][]string{{"--oci", "one"}, {"--push", where, "--wait", "2m,then=halt"}} {
			out, _, err := execute(t, extensionCommand(), append(args, "--helper", helpers, "--output", "json")...)
			if err != nil {
				t.Fatal(err)
			}
			var r jobs.ExtensionResult
			if err := json.Unmarshal([]byte(out), &r); err != nil {
				t.Fatal(err)
			}
			digests = append(digests, r.Digest)
			if r.Pushed != "" && (r.Pushed != strings.TrimSuffix(where, ":v1")+"@"+r.Digest || r.KernelArguments[2] != "talos.hostname.wait=2m,then=halt") {
				t.Errorf("%+v", r)
			}
		}
		if digests[0] != digests[1] {
			t.Error(digests)
		}
	})
	t.Run("a tarball for 1.9", func(t *testing.T) {
		t.Chdir(t.TempDir())
		out, _, err := execute(t, extensionCommand(), "--helper", helpers, "--talos", "1.9", "--arch", "amd64", "--tarball", "nametag.tar")
		if err != nil {
			t.Fatal(err)
		}
		for _, says := range []string{"tarballPath: /nametag/nametag.tar", "rdinit=/lib/firmware/nametag/nametag", "imager:v1.9.1", "nametagctl installer"} {
			if !strings.Contains(out, says) {
				t.Errorf("it does not say %q:\n%s", says, out)
			}
		}
		if strings.Contains(out, "baseProfileName: installer") {
			t.Error("it prints an installer profile that the imager of 1.9 refuses")
		}
	})
	t.Run("a tarball for each architecture", func(t *testing.T) {
		t.Chdir(t.TempDir())
		if _, _, err := execute(t, extensionCommand(), "--helper", helpers, "--tarball", "nametag-{arch}.tar"); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{"nametag-amd64.tar", "nametag-arm64.tar"} {
			if st, err := os.Stat(file); err != nil || st.Size() < 1<<14 {
				t.Error(file, err)
			}
		}
	})
	t.Run("the profile alone", func(t *testing.T) {
		t.Chdir(t.TempDir())
		out, _, err := execute(t, extensionCommand(), "--helper", helpers, "--oci", "nametag.oci", "--output", "profile", "--for", "installer")
		if err != nil || !strings.HasPrefix(out, "baseProfileName: installer\n") {
			t.Errorf("%v: %q", err, out)
		}
	})
	t.Run("a push to a registry shows how far it is, and the imager's flags", func(t *testing.T) {
		out, progress, err := execute(t, extensionCommand(), "--helper", helpers, "--push", serveRegistry(t)+"/acme/nametag:v1")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(progress, "100 % of") {
			t.Errorf("progress: %q", progress)
		}
		if !strings.Contains(out, "--system-extension-image 127.0.0.1") || !strings.Contains(out, "--extra-kernel-arg init=/init") {
			t.Errorf("%s", out)
		}
	})
}

func TestExtensionRefusesWhatCannotWork(t *testing.T) {
	helpers := helpertest.StandIn(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, scenario := range []struct {
		name   string
		args   []string
		status int
		says   string
	}{
		{"no target", nil, cli.Usage, "say where it goes"},
		{"a bare number of seconds", []string{"--oci", "x", "--wait", "90"}, cli.Usage, "did you mean"},
		{"a policy that does nothing", []string{"--oci", "x", "--wait", "off"}, cli.Usage, "do nothing"},
		{"a release that is too old", []string{"--oci", "x", "--talos", "1.8"}, cli.Usage, "too old"},
		{"an output that there is not", []string{"--oci", "x", "--output", "xml"}, cli.Usage, "choose text, json or profile"},
		{"an installer profile for 1.9", []string{"--oci", "x", "--talos", "1.9", "--output", "profile", "--for", "installer"}, cli.Usage, "nametagctl installer"},
		{"one tarball for two architectures", []string{"--tarball", "x.tar", "--helper", helpers}, cli.Usage, "{arch}"},
		{"an architecture that there is not", []string{"--oci", "x", "--arch", "riscv64"}, cli.Usage, "choose amd64, arm64"},
		{"no helper", []string{"--oci", "x", "--helper", t.TempDir()}, cli.Failed, "make cross"},
		{"a helper for the other architecture", []string{"--oci", "x", "--helper-arm64", filepath.Join(helpers, "nametag-linux-amd64")}, cli.Failed, "is for amd64, not for arm64"},
		{"a layout where a file is", []string{"--oci", file, "--helper", helpers}, cli.Failed, "not a directory"},
		{"a layout in a folder that there is not", []string{"--oci", filepath.Join(file, "x"), "--helper", helpers}, cli.Failed, "not a directory"},
		{"a reference that is none", []string{"--push", "Not A Reference"}, cli.Usage, "could not parse reference"},
		{"a registry that is not there", []string{"--push", "127.0.0.1:1/nametag", "--helper", helpers}, cli.Failed, "connection refused"},
	} {
		t.Run(scenario.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			out, _, err := execute(t, extensionCommand(), scenario.args...)
			fails(t, err, scenario.status, scenario.says)
			if out != "" {
				t.Errorf("it prints %q", out)
			}
			if left, err := os.ReadDir("."); err != nil || len(left) > 0 {
				t.Errorf("it leaves %v, %v", left, err)
			}
		})
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious" {
		t.Errorf("the file is %q, %v", b, err)
	}
}

func TestAnInterruptedExtensionLeavesNothing(t *testing.T) {
	t.Parallel()
	helpers, out := helpertest.StandIn(t), t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, to := range [][]string{{"--oci", filepath.Join(out, "layout")}, {"--tarball", filepath.Join(out, "{arch}.tar")}} {
		_, _, err := executeIn(ctx, extensionCommand(), append([]string{"--helper", helpers}, to...)...)
		fails(t, err, cli.Failed, "nothing was replaced by half")
	}
	if left, err := os.ReadDir(out); err != nil || len(left) > 0 {
		t.Errorf("%v %v", left, err)
	}
}
