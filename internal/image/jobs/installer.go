package jobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/nametag-boot/nametag/internal/cli"
	"github.com/nametag-boot/nametag/internal/image/helper"
	"github.com/nametag-boot/nametag/internal/image/installer"
	"github.com/nametag-boot/nametag/internal/image/limit"
	"github.com/nametag-boot/nametag/internal/image/oci"
)

// AmendInstaller puts nametag into a Talos installer image.
type AmendInstaller struct {
	Image                 string
	Architectures         []string // of an index; empty: all
	Wait                  string
	Layout, Archive, Push string // where it goes
	Tag                   string // in the archive
	Force, Insecure       bool
	DropSignature         bool
	Helpers               Helpers
	Limits                limit.Limits
}

// InstallerResult is what became of it.
type InstallerResult struct {
	Digest    string `json:"digest"`
	MediaType string `json:"media_type"`
	Changed   bool   `json:"changed"`
	installer.Report
	KernelArgument string `json:"kernel_argument"`
	Layout         string `json:"layout,omitempty"`
	Archive        string `json:"archive,omitempty"`
	Tag            string `json:"tag,omitempty"`    // in the archive
	Pushed         string `json:"pushed,omitempty"` // pinned by digest
}

// Run does it.
func (j *AmendInstaller) Run(ctx context.Context, c Console) (*InstallerResult, error) {
	policy, err := j.plan()
	if err != nil {
		return nil, err
	}
	r, err := j.amend(ctx, policy, c)
	if err != nil {
		return nil, err
	}
	c.warn("", r.Warnings)
	return r, nil
}

// checkArchitectures refuses those that there is no nametag for.
func checkArchitectures(architectures []string) error {
	for _, a := range architectures {
		if !slices.Contains(helper.Architectures(), a) {
			return cli.Misusedf("--arch %s: choose %s", a, strings.Join(helper.Architectures(), ", "))
		}
	}
	return nil
}

// plan checks the options before anything is read, and returns the kernel argument.
func (j *AmendInstaller) plan() (policy string, err error) {
	if j.Layout == "" && j.Archive == "" && j.Push == "" {
		return "", cli.Misusedf("say where it goes: --oci DIR, --archive FILE or --push IMAGE")
	}
	if err := checkArchitectures(j.Architectures); err != nil {
		return "", err
	}
	if j.Push != "" {
		if err := (oci.Registry{}).Check(j.Push); err != nil {
			return "", cli.Misusedf("--push: %w", err)
		}
	}
	if j.Archive != "" {
		if j.Tag == "" {
			j.Tag = "localhost/installer:nametag"
			if tag, err := name.NewTag(j.Image, name.StrictValidation); err == nil {
				j.Tag = tag.Name()
			}
		}
		if _, err := name.NewTag(j.Tag); err != nil {
			return "", cli.Misusedf("--tag: %w", err)
		}
	}
	return WaitPolicy(j.Wait)
}

// amend reads the image, amends it and writes it to wherever the flags say.
func (j *AmendInstaller) amend(ctx context.Context, policy string, c Console) (result *InstallerResult, err error) {
	result = &InstallerResult{}
	if j.Layout != "" {
		if err := oci.CheckLayout(j.Layout, j.Force); err != nil {
			return result, err
		}
	}
	if j.Archive != "" {
		if err := oci.CheckArchive(j.Archive); err != nil {
			return result, err
		}
	}
	helpers, closed, err := j.Helpers.find(nil)
	if err != nil {
		return result, err
	}
	defer closed()
	registry := oci.Registry{Insecure: j.Insecure}
	artifact, err := oci.Open(ctx, j.Image, registry)
	if bad := (*oci.NameError)(nil); errors.As(err, &bad) {
		return result, cli.Misused(err)
	}
	if err != nil {
		return result, err
	}
	if j.Archive != "" && artifact.Index != nil && len(j.Architectures) != 1 {
		return result, errors.New("a docker-archive holds one image, and this is an index of several: choose one by --arch, or write it by --oci or --push")
	}
	scratch, err := os.MkdirTemp("", cli.Scratch)
	if err != nil {
		return result, err
	}
	defer os.RemoveAll(scratch) //nolint:errcheck // ours

	amended, report, err := installer.Amend(ctx, artifact, installer.Options{
		Edit:          installer.Editors(helpers, policy, j.DropSignature, j.Limits),
		Limits:        j.Limits,
		Architectures: j.Architectures,
		Scratch:       scratch,
		Say:           func(line string) { fmt.Fprintln(c.Err, line) },
	})
	if err != nil {
		return result, err
	}
	result = &InstallerResult{Changed: report.Changed(), Report: report, KernelArgument: policy}
	if artifact.Index != nil && len(j.Architectures) == 1 {
		if amended, err = amended.Only(); err != nil {
			return result, err
		}
	}
	digest, err := amended.Digest()
	if err != nil {
		return result, err
	}
	mediaType, err := amended.MediaType()
	if err != nil {
		return result, err
	}
	result.Digest, result.MediaType = digest.String(), string(mediaType)
	return result, j.write(ctx, amended, result, registry, c)
}

func (j *AmendInstaller) write(ctx context.Context, a oci.Artifact, result *InstallerResult, registry oci.Registry, c Console) error {
	if j.Layout != "" {
		if err := oci.WriteLayout(ctx, j.Layout, a, j.Force); err != nil {
			return err
		}
		result.Layout = j.Layout
	}
	if j.Archive != "" {
		if err := oci.WriteArchive(ctx, j.Archive, j.Tag, a.Image); err != nil {
			return err
		}
		result.Archive, result.Tag = j.Archive, j.Tag
	}
	if j.Push != "" {
		meter := cli.NewMeter(c.Err, "pushing "+j.Push)
		defer meter.Close()
		registry.Progress = meter.Update
		pinned, err := registry.Push(ctx, a, j.Push)
		if err != nil {
			return err
		}
		result.Pushed = pinned
	}
	return nil
}

// Text says what was done, and what is next.
func (r *InstallerResult) Text(w io.Writer) error {
	var b strings.Builder
	hasUKI, hasInitramfs := false, false
	for _, p := range r.Parts {
		for _, file := range p.Files {
			hasUKI, hasInitramfs = hasUKI || file.Kind == installer.UKI, hasInitramfs || file.Kind == installer.Initramfs
			did := "amended: " + cli.Size(file.Before) + " before, " + cli.Size(file.After) + " now"
			if !file.Changed {
				did = "has nametag already"
			}
			fmt.Fprintf(&b, "%s  /%s  %s\n", p.Architecture, cli.Line(file.Path), did)
		}
	}
	fmt.Fprintf(&b, "%s\n", r.Digest)
	if r.Layout != "" {
		fmt.Fprintf(&b, "  OCI layout      %s\n", cli.Line(r.Layout))
	}
	if r.Archive != "" {
		fmt.Fprintf(&b, "  docker-archive  %s, as %s\n", cli.Line(r.Archive), r.Tag)
	}
	if r.Pushed != "" {
		fmt.Fprintf(&b, "  pushed          %s\n", r.Pushed)
	}
	if r.Pushed != "" {
		fmt.Fprintf(&b, "\nUpgrade a node to it:\n\n  talosctl upgrade --nodes NODE --image %s\n", r.Pushed)
	}
	if hasInitramfs {
		fmt.Fprintf(&b, "\nAn initramfs has no command line. Say in the machine configuration that nametag is to wait (an image\nwithout nametag takes no notice of it):\n\n"+
			"  machine:\n    install:\n      extraKernelArgs:\n        - %s\n", r.KernelArgument)
	}
	if hasUKI {
		fmt.Fprintf(&b, "\nThe UKI's command lines have %s. Nodes that boot by GRUB without\nmachine.install.grubUseUKICmdline take theirs from the machine configuration: they need the argument in\nmachine.install.extraKernelArgs.\n", r.KernelArgument)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
