//go:build linux

package installer_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/nametag-boot/nametag/internal/image/helper"
	cpios "github.com/nametag-boot/nametag/internal/image/initramfs"
	"github.com/nametag-boot/nametag/internal/image/installer"
	"github.com/nametag-boot/nametag/internal/image/installer/installertest"
	"github.com/nametag-boot/nametag/internal/image/limit"
	"github.com/nametag-boot/nametag/internal/image/oci"
	ukis "github.com/nametag-boot/nametag/internal/image/uki"
	"github.com/nametag-boot/nametag/internal/testvm/helpertest"
)

// helpers are stand-ins for both architectures.
func helpers(t *testing.T) []helper.Binary {
	t.Helper()
	found, err := helper.Choice{Path: helpertest.StandIn(t)}.Resolve(nil, "")
	if err != nil {
		t.Fatal(err)
	}
	return found
}

const policy = "talos.hostname.wait=2m"

func options(t *testing.T) installer.Options {
	t.Helper()
	return installer.Options{Edit: installer.Editors(helpers(t), policy, false, limit.Limits{}), Scratch: t.TempDir()}
}

// amend puts nametag into an artifact.
func amend(t *testing.T, a oci.Artifact) (oci.Artifact, installer.Report) {
	t.Helper()
	amended, report, err := installer.Amend(t.Context(), a, options(t))
	if err != nil {
		t.Fatal(err)
	}
	return amended, report
}

// flat is every file of an image, with its header.
func flat(t *testing.T, i v1.Image) (contents map[string][]byte, headers map[string]tar.Header) {
	t.Helper()
	contents, headers = map[string][]byte{}, map[string]tar.Header{}
	r := mutate.Extract(i)
	defer r.Close()
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return contents, headers
		}
		if err != nil {
			t.Fatal(err)
		}
		if contents[h.Name], err = io.ReadAll(archive); err != nil {
			t.Fatal(err)
		}
		h.Size = 0
		headers[h.Name] = *h
	}
}

// sameBut checks that nothing of an image has changed but the contents of one file, and a layer that is further up.
func sameBut(t *testing.T, before, after v1.Image, path string) {
	t.Helper()
	was, wasHeaders := flat(t, before)
	is, isHeaders := flat(t, after)
	if !reflect.DeepEqual(wasHeaders, isHeaders) {
		t.Errorf("owners, modes, times or names have changed: %v, %v", wasHeaders, isHeaders)
	}
	for name := range was {
		if same := bytes.Equal(was[name], is[name]); same == (name == path) {
			t.Errorf("%s: the same: %v", name, same)
		}
	}
	m0, err := before.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	m1, err := after.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	if m0.MediaType != m1.MediaType || m0.Config.MediaType != m1.Config.MediaType {
		t.Errorf("media types: %s, %s", m1.MediaType, m1.Config.MediaType)
	}
	if text(t, m0.Layers) != text(t, m1.Layers[:len(m1.Layers)-1]) || m1.Layers[len(m1.Layers)-1].MediaType != m0.Layers[0].MediaType {
		t.Errorf("the layers are %v, and were %v", m1.Layers, m0.Layers)
	}
	c0, err := before.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c1, err := after.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c1 = c1.DeepCopy()
	if last := c1.History[len(c1.History)-1]; last.CreatedBy != "nametagctl installer" || last.EmptyLayer {
		t.Errorf("its history ends with %+v", last)
	}
	c1.RootFS.DiffIDs, c1.History = c1.RootFS.DiffIDs[:len(c1.RootFS.DiffIDs)-1], c1.History[:len(c1.History)-1]
	if a, b := text(t, c0), text(t, c1); a != b {
		t.Errorf("the configuration is\n%s\nand was\n%s", b, a)
	}
}

func text(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// hasNametag checks an initramfs.
func hasNametag(t *testing.T, b []byte, architecture string) {
	t.Helper()
	i, err := cpios.Read(t.Context(), bytes.NewReader(b), int64(len(b)), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		n, err := i.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		r, err := i.Open(n)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	if !strings.Contains(read("init"), "stands in for nametag on "+architecture) {
		t.Errorf("%s: /init is not nametag", architecture)
	}
	if read("init.next") != string(installertest.Program(architecture)) {
		t.Errorf("%s: /init.next is not Talos' /init", architecture)
	}
}

// serve runs a registry in this process and returns its address.
func serve(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// through pushes an artifact to a registry and opens what that has.
func through(t *testing.T, a oci.Artifact, where string) oci.Artifact {
	t.Helper()
	if _, err := (oci.Registry{}).Push(t.Context(), a, where); err != nil {
		t.Fatal(err)
	}
	got, err := oci.Open(t.Context(), where, oci.Registry{})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestEveryShapeOfInstallerGetsNametagAndNothingElse(t *testing.T) {
	for _, scenario := range []struct {
		name string
		make func(testing.TB, string) v1.Image
		file string
	}{
		{"Talos 1.9: an initramfs", installertest.Old, "initramfs.xz"},
		{"Talos 1.12: a UKI", installertest.Merged, "vmlinuz.efi"},
	} {
		t.Run(scenario.name, func(t *testing.T) {
			host := serve(t)
			from := through(t, oci.Artifact{Index: installertest.Index(t, scenario.make)}, host+"/siderolabs/installer:v1")
			amended, report := amend(t, from)
			to := through(t, amended, host+"/acme/installer:v1")
			manifest, err := to.Index.IndexManifest()
			if err != nil {
				t.Fatal(err)
			}
			if len(manifest.Manifests) != 2 || len(report.Parts) != 2 || len(report.Warnings) != 2 || manifest.MediaType != types.OCIImageIndex {
				t.Fatalf("%+v\n%+v", manifest, report)
			}
			for n, architecture := range helper.Architectures() {
				path := "usr/install/" + architecture + "/" + scenario.file
				d := manifest.Manifests[n]
				if d.Platform.String() != "linux/"+architecture {
					t.Errorf("its platform is %s", d.Platform)
				}
				after, err := to.Index.Image(d.Digest)
				if err != nil {
					t.Fatal(err)
				}
				if err := validate.Image(after); err != nil {
					t.Error(err)
				}
				sameBut(t, scenario.make(t, architecture), after, path)
				files, _ := flat(t, after)
				if scenario.file == "initramfs.xz" {
					hasNametag(t, files[path], architecture)
					continue
				}
				if _, there := files["usr/install/"+architecture+"/vmlinuz"]; there {
					t.Error("a vmlinuz stands beside the UKI")
				}
				u, err := ukis.Open(bytes.NewReader(files[path]), int64(len(files[path])))
				if err != nil {
					t.Fatal(err)
				}
				lines := u.Find(".cmdline")
				if len(lines) != 2 {
					t.Errorf("%d command lines", len(lines))
				}
				for _, s := range lines {
					if line, err := u.Text(s); err != nil || !strings.HasPrefix(line, "talos.platform=hcloud ") || !strings.Contains(line+" ", " "+policy+" ") || strings.Contains(line, "rdinit") {
						t.Errorf("a command line is %q, %v", line, err)
					}
				}
				initrd, err := io.ReadAll(u.Data(u.Find(".initrd")[0]))
				if err != nil {
					t.Fatal(err)
				}
				hasNametag(t, initrd, architecture)
			}

			t.Run("and a second time nothing", func(t *testing.T) {
				again, report := amend(t, to)
				a, err := to.Digest()
				if err != nil {
					t.Fatal(err)
				}
				if b, err := again.Digest(); err != nil || a != b || report.Changed() {
					t.Errorf("%s, %s, %v, %+v", a, b, err, report)
				}
			})
			t.Run("the same digest from the same image", func(t *testing.T) {
				again, _ := amend(t, from)
				a, err := to.Digest()
				if err != nil {
					t.Fatal(err)
				}
				if b, err := again.Digest(); err != nil || a != b {
					t.Errorf("%s, %s, %v", a, b, err)
				}
			})
		})
	}
}

func TestADockerArchiveGoesInAndComesOut(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in.tar"), filepath.Join(dir, "out.tar")
	before := installertest.Merged(t, "arm64")
	if err := oci.WriteArchive(t.Context(), in, "ghcr.io/siderolabs/installer:v1.12.7", before); err != nil {
		t.Fatal(err)
	}
	from, err := oci.Open(t.Context(), in, oci.Registry{})
	if err != nil {
		t.Fatal(err)
	}
	amended, _ := amend(t, from)
	if err := oci.WriteArchive(t.Context(), out, "localhost/installer:nametag", amended.Image); err != nil {
		t.Fatal(err)
	}
	to, err := oci.Open(t.Context(), "docker-archive:"+out, oci.Registry{})
	if err != nil {
		t.Fatal(err)
	}
	sameBut(t, from.Image, to.Image, "usr/install/arm64/vmlinuz.efi")
}

func TestALayoutGoesInAndComesOut(t *testing.T) {
	dir := t.TempDir()
	if err := oci.WriteLayout(t.Context(), filepath.Join(dir, "in"), oci.Artifact{Image: installertest.Old(t, "amd64")}, false); err != nil {
		t.Fatal(err)
	}
	from, err := oci.Open(t.Context(), "oci:"+filepath.Join(dir, "in"), oci.Registry{})
	if err != nil {
		t.Fatal(err)
	}
	amended, _ := amend(t, from)
	if err := oci.WriteLayout(t.Context(), filepath.Join(dir, "out"), amended, false); err != nil {
		t.Fatal(err)
	}
	to, err := oci.Open(t.Context(), filepath.Join(dir, "out"), oci.Registry{})
	if err != nil {
		t.Fatal(err)
	}
	sameBut(t, installertest.Old(t, "amd64"), to.Image, "usr/install/amd64/initramfs.xz")
}

// The imager of Talos 1.9 leaves the architecture out of an image's configuration.
func TestAnImageThatDoesNotSayItsArchitectureIsKnownByItsFiles(t *testing.T) {
	base := installertest.Old(t, "arm64")
	config, err := base.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.Architecture = ""
	nameless, err := mutate.ConfigFile(base, config)
	if err != nil {
		t.Fatal(err)
	}
	amended, report := amend(t, oci.Artifact{Image: nameless})
	if len(report.Parts) != 1 || report.Parts[0].Architecture != "arm64" {
		t.Errorf("%+v", report)
	}
	sameBut(t, nameless, amended.Image, "usr/install/arm64/initramfs.xz")
}

func TestAnotherPolicyTakesThePlaceOfTheFirst(t *testing.T) {
	amended, _ := amend(t, oci.Artifact{Image: installertest.Merged(t, "amd64")})
	o := options(t)
	o.Edit = installer.Editors(helpers(t), "talos.hostname.wait=forever", false, limit.Limits{})
	again, report, err := installer.Amend(t.Context(), amended, o)
	if err != nil || !report.Changed() {
		t.Fatal(report, err)
	}
	files, _ := flat(t, again.Image)
	b := files["usr/install/amd64/vmlinuz.efi"]
	u, err := ukis.Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range u.Find(".cmdline") {
		if line, err := u.Text(s); err != nil || strings.Count(line, "talos.hostname.wait=") != 1 || !strings.Contains(line, "talos.hostname.wait=forever") {
			t.Errorf("%q, %v", line, err)
		}
	}
}

func TestAResultOfTwoLayersIsWarnedOf(t *testing.T) {
	one := installertest.Image(t, "amd64", true, installertest.Files{"usr/install/amd64/vmlinuz.efi": installertest.UKI(t, "amd64")})
	_, report := amend(t, oci.Artifact{Image: one})
	if len(report.Warnings) != 1 || !strings.Contains(report.Warnings[0], "drops the second") {
		t.Errorf("%q", report.Warnings)
	}
	_, report = amend(t, oci.Artifact{Image: installertest.Merged(t, "amd64")})
	if len(report.Warnings) != 0 {
		t.Errorf("%q", report.Warnings)
	}
}

// The installer of a Talos release is for machines of metal: the platform is part of its UKI's command line.
func TestAUKIForAnotherPlatformIsWarnedOf(t *testing.T) {
	metal := installertest.Image(t, "amd64", true, installertest.Tools(), installertest.Files{
		"usr/install/amd64/vmlinuz.efi": installertest.UKIFor(t, "amd64", "metal"),
	})
	_, report := amend(t, oci.Artifact{Image: metal})
	if len(report.Warnings) != 1 || !strings.Contains(report.Warnings[0], "/usr/install/amd64/vmlinuz.efi: its command line says talos.platform=metal") ||
		!strings.Contains(report.Warnings[0], "factory.talos.dev/hcloud-installer/") {
		t.Errorf("%q", report.Warnings)
	}
}

// A user has an image, and knows nothing of the copies that are made of its files.
func TestAnErrorDoesNotSpeakOfOurCopies(t *testing.T) {
	o := options(t)
	for name, content := range map[string][]byte{
		"a UKI that is none":                []byte("not a program"),
		"a UKI that another program starts": installertest.UKI(t, "amd64", "rdinit=/other"),
	} {
		image := installertest.Image(t, "amd64", true, installertest.Files{"usr/install/amd64/vmlinuz.efi": content})
		_, _, err := installer.Amend(t.Context(), oci.Artifact{Image: image}, o)
		if err == nil || strings.Contains(err.Error(), o.Scratch) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOfAnIndexOneArchitectureCanBeTaken(t *testing.T) {
	o := options(t)
	o.Architectures = []string{"arm64"}
	amended, report, err := installer.Amend(t.Context(), oci.Artifact{Index: installertest.Index(t, installertest.Merged)}, o)
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Parts) != 1 || report.Parts[0].Architecture != "arm64" {
		t.Errorf("%+v", report)
	}
	only, err := amended.Only()
	if err != nil {
		t.Fatal(err)
	}
	sameBut(t, installertest.Merged(t, "arm64"), only.Image, "usr/install/arm64/vmlinuz.efi")
}

func TestWhatIsNoInstallerOrCannotBeAmendedIsRefused(t *testing.T) {
	at := "usr/install/amd64/"
	for _, scenario := range []struct {
		name string
		a    oci.Artifact
		only []string
		says string
	}{
		{"an installer-base", oci.Artifact{Image: installertest.Image(t, "amd64", true, installertest.Tools())}, nil, "no installer of Talos"},
		{"one for a machine that there is no nametag for", oci.Artifact{Image: installertest.Image(t, "riscv64", true, installertest.Tools())}, nil, "linux/riscv64: there is no nametag for this architecture"},
		{"one for another architecture than was asked for", oci.Artifact{Image: installertest.Old(t, "amd64")}, []string{"arm64"}, "the image is for amd64"},
		{"an index without the architecture", oci.Artifact{Index: installertest.Index(t, installertest.Old)}, []string{"amd64", "s390x"}, "no image for s390x"},
		{"an initramfs that is none", oci.Artifact{Image: installertest.Image(t, "amd64", true, installertest.Files{at + "initramfs.xz": []byte("not an initramfs")})}, nil, "/usr/install/amd64/initramfs.xz: "},
		{"an initramfs for another architecture", oci.Artifact{Image: installertest.Image(t, "amd64", true, installertest.Files{at + "initramfs.xz": installertest.Initramfs(t, "arm64")})}, nil, "arm64"},
		{"a UKI that is none", oci.Artifact{Image: installertest.Image(t, "amd64", true, installertest.Files{at + "vmlinuz.efi": []byte("not a program")})}, nil, "/usr/install/amd64/vmlinuz.efi: "},
		{"a UKI with the extension in it", oci.Artifact{Image: installertest.Image(t, "amd64", true, installertest.Files{at + "vmlinuz.efi": installertest.UKI(t, "amd64", "rdinit=/usr/lib/firmware/nametag/nametag")})}, nil, "rdinit=/usr/lib/firmware/nametag/nametag already"},
	} {
		t.Run(scenario.name, func(t *testing.T) {
			o := options(t)
			o.Architectures = scenario.only
			_, _, err := installer.Amend(t.Context(), scenario.a, o)
			if err == nil || !strings.Contains(err.Error(), scenario.says) {
				t.Errorf("got %v, want an error that says %q", err, scenario.says)
			}
		})
	}
}

func TestAmendingStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := installer.Amend(ctx, oci.Artifact{Image: installertest.Old(t, "amd64")}, options(t)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// What is amended is never in memory as a whole, nor is any layer.
func TestABigImageIsStreamed(t *testing.T) {
	const size = 48 << 20
	in, out := filepath.Join(t.TempDir(), "in"), filepath.Join(t.TempDir(), "out")
	big := installertest.Image(t, "amd64", true, installertest.Tools(), installertest.Files{
		"usr/install/amd64/vmlinuz.efi": installertest.BigUKI(t, "amd64", size),
	})
	if err := oci.WriteLayout(t.Context(), in, oci.Artifact{Image: big}, false); err != nil {
		t.Fatal(err)
	}
	o := options(t)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	from, err := oci.Open(t.Context(), in, oci.Registry{})
	if err != nil {
		t.Fatal(err)
	}
	amended, report, err := installer.Amend(t.Context(), from, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := oci.WriteLayout(t.Context(), out, amended, false); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if f := report.Parts[0].Files[0]; !f.Changed || f.Before < size || f.After < size {
		t.Errorf("%+v", report)
	}
	// All that was ever allocated, garbage included: half of one copy.
	if used := after.TotalAlloc - before.TotalAlloc; used > size/2 {
		t.Errorf("%d MiB were allocated", used>>20)
	} else {
		t.Logf("%d MiB were allocated", used>>20)
	}
}
