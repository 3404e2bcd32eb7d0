// Command audit-image makes the container image of nametag-audit, without Docker: an OCI layout of the static binary and nothing else,
// run by nobody on a root that may be read-only. The same source gives the same bytes.
package main

import (
	"archive/tar"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/nametag-boot/nametag/internal/image/oci"
)

func main() {
	out := flag.String("o", "nametag-audit.oci", "the folder of the layout; what it has is replaced")
	version := flag.String("version", "devel", "the version that the command prints")
	arches := flag.String("arch", "amd64,arm64", "the architectures")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *out, *version, strings.Split(*arches, ","))
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "audit-image:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out, version string, arches []string) error {
	work, err := os.MkdirTemp("", "nametag-audit-image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, arch := range arches {
		binary := filepath.Join(work, arch)
		if err := build(ctx, binary, version, arch); err != nil {
			return err
		}
		image, err := imageOf(binary, version, arch)
		if err != nil {
			return err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil { //nolint:gosec // for everybody to read
		return err
	}
	return oci.WriteLayout(ctx, out, oci.Artifact{Index: index}, true)
}

// build compiles the command as it ships.
func build(ctx context.Context, out, version, arch string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-trimpath", "-ldflags", "-s -w -buildid= -X main.version="+version, "-o", out, "./cmd/nametag-audit") //nolint:gosec // our own arguments
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	cmd.Stderr = os.Stderr
	return cmd.Run()
}

// nobody runs it.
const nobody = "65534:65534"

func imageOf(binary, version, arch string) (v1.Image, error) {
	content, err := os.Open(binary)
	if err != nil {
		return nil, err
	}
	defer content.Close()
	info, err := content.Stat()
	if err != nil {
		return nil, err
	}
	layer, err := oci.NewLayer(binary+".layer", types.OCILayer, func(archive *tar.Writer) error {
		if err := archive.WriteHeader(oci.Entry("nametag-audit", 0o755, info.Size())); err != nil {
			return err
		}
		_, err := io.Copy(archive, content)
		return err
	})
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err = mutate.ConfigFile(image, &v1.ConfigFile{
		OS: "linux", Architecture: arch, Created: v1.Time{Time: time.Unix(0, 0).UTC()}, RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{
			Entrypoint: []string{"/nametag-audit"}, User: nobody, WorkingDir: "/",
			Labels: map[string]string{
				"org.opencontainers.image.title": "nametag-audit", "org.opencontainers.image.version": version, "org.opencontainers.image.licenses": "Apache-2.0",
			},
		},
	})
	if err != nil {
		return nil, err
	}
	return mutate.AppendLayers(image, layer)
}
