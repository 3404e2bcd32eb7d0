//go:build linux

package controlplane

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/nametag-boot/nametag/internal/release/ship"
	"github.com/nametag-boot/nametag/internal/testvm/controlplane/machine"
)

// Programs are what servers run.
type Programs struct {
	// Kube has the binaries of Kubernetes and of etcd, Root those of a Debian.
	Kube, Root string
	// Lab has ours: guest, nametag, and the image of a pod that holds nothing.
	Lab string
}

// FindPrograms builds ours into the checkout's cache, and has hack/controlplane-deps find, or make, the others'. It may need the
// internet, so it comes before a network namespace.
func FindPrograms(ctx context.Context, progress io.Writer) (*Programs, error) {
	repository, err := repository(ctx)
	if err != nil {
		return nil, err
	}
	into := filepath.Join(repository, ".cache/controlplane")
	if err := os.MkdirAll(into, 0o755); err != nil { //nolint:gosec // a cache for every user
		return nil, err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(repository, "hack/controlplane-deps"))
	cmd.Stderr = progress
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("hack/controlplane-deps: %w", err)
	}
	places := strings.Fields(string(out))
	if len(places) != 2 {
		return nil, fmt.Errorf("hack/controlplane-deps printed %q, want two folders", out)
	}
	p := &Programs{Kube: places[0], Root: places[1], Lab: into}
	for _, b := range []ship.Build{
		{Command: "cmd/nametag", Node: true},
		{Command: "guest", Module: "internal/testvm/controlplane"},
		{Command: "pause", Module: "internal/testvm/controlplane"},
	} {
		b.Top, b.Arch, b.Output = repository, runtime.GOARCH, filepath.Join(into, filepath.Base(b.Command))
		if err := b.Run(ctx); err != nil {
			return nil, err
		}
	}
	return p, writePause(filepath.Join(into, "pause"), filepath.Join(into, machine.PauseFile))
}

// programs is where a process finds those that another one has found for it.
const programs = "NAMETAG_TEST_PROGRAMS"

// Hand puts them into the environment, for the programs that this one starts.
func (p *Programs) Hand() error {
	return os.Setenv(programs, strings.Join([]string{p.Kube, p.Root, p.Lab}, string(os.PathListSeparator)))
}

// Handed are those from the environment; nil where there are none.
func Handed() *Programs {
	parts := filepath.SplitList(os.Getenv(programs))
	if len(parts) != 3 {
		return nil
	}
	return &Programs{Kube: parts[0], Root: parts[1], Lab: parts[2]}
}

// repository is the top of this checkout.
func repository(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/nametag-boot/nametag").Output()
	if err != nil {
		return "", fmt.Errorf("go list: %w (run this inside the repository)", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// writePause makes the image of a pod that holds nothing, of the program alone.
func writePause(program, to string) error {
	b, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	err = w.WriteHeader(&tar.Header{Name: "pause", Mode: 0o755, Size: int64(len(b))})
	if err == nil {
		_, err = w.Write(b)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		return err
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil })
	if err != nil {
		return err
	}
	image, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		return err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Config = "linux", "amd64", v1.Config{Entrypoint: []string{"/pause"}}
	if image, err = mutate.ConfigFile(image, config); err != nil {
		return err
	}
	tag, err := name.NewTag(machine.PauseImage)
	if err != nil {
		return err
	}
	return tarball.WriteToFile(to, tag, image)
}
