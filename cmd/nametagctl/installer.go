package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/image/helper"
	"github.com/nametag-boot/nametag/internal/image/installer"
	"github.com/nametag-boot/nametag/internal/image/oci"
	"github.com/nametag-boot/nametag/procfs"
)

const installerLong = `Put nametag into a Talos installer image that exists already, without Docker and without root.

IMAGE is a reference in a registry, an OCI layout (oci:DIR) or what docker save and Talos' imager write
(docker-archive:FILE). The result has one layer more: the initramfs (Talos 1.9) or the UKI (1.10 and later) with nametag
as /init, and talos.hostname.wait= on every command line of a UKI. Of an index every architecture's image is amended.
Nothing else about the image changes, and an image that has all of it already stays as it is.

From 1.10 on the platform is part of the UKI: take an installer for hcloud. ghcr.io/siderolabs/installer is for metal.`

const installerExample = `  nametagctl installer ghcr.io/siderolabs/installer:v1.9.1 --push ghcr.io/acme/installer:v1.9.1-nametag
  nametagctl installer factory.talos.dev/hcloud-installer/376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba:v1.12.7 \
    --push ghcr.io/acme/installer:v1.12.7-nametag
  nametagctl installer docker-archive:_out/installer-amd64.tar --archive installer-nametag.tar --wait 2m,then=halt
  nametagctl installer oci:installer --arch arm64 --oci installer-arm64`

// installerFlags are the command's.
type installerFlags struct {
	helperFlags
	limitFlags
	architectures          []string
	wait                   string
	layout, archive, image string
	tag                    string
	force, insecure        bool
	dropSignature          bool
	output                 string
}

// installerResult is what --output json prints.
type installerResult struct {
	Digest    string `json:"digest"`
	MediaType string `json:"mediaType"`
	Changed   bool   `json:"changed"`
	installer.Report
	KernelArgument string `json:"kernelArgument"`
	Layout         string `json:"layout,omitempty"`
	Archive        string `json:"archive,omitempty"`
	Tag            string `json:"tag,omitempty"`    // in the archive
	Pushed         string `json:"pushed,omitempty"` // pinned by digest
}

func installerCommand() *cobra.Command {
	var f installerFlags
	cmd := &cobra.Command{
		Use:     "installer IMAGE (--oci DIR | --archive FILE | --push IMAGE) [flags]",
		Short:   "Put nametag into a Talos installer image",
		Long:    installerLong,
		Example: installerExample,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return &exitError{exitUsage, errors.New("installer: give one IMAGE; for example: nametagctl installer ghcr.io/siderolabs/installer:v1.9.1 --oci installer")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			return runInstaller(ctx, f, args[0], cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f.helperFlags.register(cmd)
	f.limitFlags.register(cmd)
	flags := cmd.Flags()
	flags.StringSliceVar(&f.architectures, "arch", nil, "of an index take only these architectures: amd64, arm64; one makes an image of it")
	flags.StringVar(&f.wait, "wait", procfs.Default().Value(), "how long a boot waits for the name, and what then: the value of talos.hostname.wait=")
	flags.StringVar(&f.layout, "oci", "", "write an OCI layout, in a new folder")
	flags.StringVar(&f.archive, "archive", "", "write a docker-archive, as docker load takes it")
	flags.StringVar(&f.tag, "tag", "", "the image's name in the archive (default: that of IMAGE in its registry)")
	flags.StringVar(&f.image, "push", "", "push to a registry; credentials are those of docker login")
	flags.BoolVar(&f.force, "force", false, "replace an OCI layout that is there")
	flags.BoolVar(&f.insecure, "insecure", false, "speak to registries in plain HTTP, or to those whose certificate nobody vouches for")
	flags.BoolVar(&f.dropSignature, "drop-signature", false, "take the signature of a signed UKI away")
	flags.StringVar(&f.output, "output", "text", "text or json")
	return cmd
}

// plan checks the flags before anything is read, and returns the kernel argument.
func (f *installerFlags) plan(source string) (policy string, err error) {
	if f.layout == "" && f.archive == "" && f.image == "" {
		return "", errors.New("say where it goes: --oci DIR, --archive FILE or --push IMAGE")
	}
	if f.output != "text" && f.output != "json" {
		return "", fmt.Errorf("--output %s: choose text or json", f.output)
	}
	for _, a := range f.architectures {
		if !slices.Contains(helper.Architectures(), a) {
			return "", fmt.Errorf("--arch %s: choose %s", a, strings.Join(helper.Architectures(), ", "))
		}
	}
	if f.image != "" {
		if err := (oci.Registry{}).Check(f.image); err != nil {
			return "", fmt.Errorf("--push: %w", err)
		}
	}
	if f.archive != "" {
		if f.tag == "" {
			f.tag = "localhost/installer:nametag"
			if tag, err := name.NewTag(source, name.StrictValidation); err == nil {
				f.tag = tag.Name()
			}
		}
		if _, err := name.NewTag(f.tag); err != nil {
			return "", fmt.Errorf("--tag: %w", err)
		}
	}
	return waitPolicy(f.wait)
}

func runInstaller(ctx context.Context, f installerFlags, source string, stdout, stderr io.Writer) error {
	policy, err := f.plan(source)
	if err != nil {
		return &exitError{exitUsage, fmt.Errorf("installer: %w", err)}
	}
	result, err := f.amend(ctx, source, policy, stderr)
	if err == nil {
		err = f.print(stdout, stderr, policy, result)
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		err = errors.New("interrupted; nothing was replaced")
	case scratchIsFull(err):
		err = fmt.Errorf("%w; the copies in between go where TMPDIR says, now %s", err, os.TempDir())
	}
	return &exitError{exitFailed, fmt.Errorf("installer: %w", err)}
}

// scratchIsFull says whether it is the copies in between that there is no room for, and not the result.
func scratchIsFull(err error) bool {
	var at *fs.PathError
	return errors.As(err, &at) && (errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)) &&
		strings.HasPrefix(at.Path, filepath.Join(os.TempDir(), scratchName))
}

// scratchName is how the folder of the copies in between begins.
const scratchName = "nametagctl-"

// amend reads the image, amends it and writes it to wherever the flags say.
func (f *installerFlags) amend(ctx context.Context, source, policy string, stderr io.Writer) (result installerResult, err error) {
	if f.layout != "" {
		if err := oci.CheckLayout(f.layout, f.force); err != nil {
			return result, err
		}
	}
	if f.archive != "" {
		if err := oci.CheckArchive(f.archive); err != nil {
			return result, err
		}
	}
	helpers, err := f.find(nil)
	if err != nil {
		return result, err
	}
	registry := oci.Registry{Insecure: f.insecure}
	artifact, err := oci.Open(ctx, source, registry)
	if err != nil {
		return result, err
	}
	if f.archive != "" && artifact.Index != nil && len(f.architectures) != 1 {
		return result, errors.New("a docker-archive holds one image, and this is an index of several: choose one by --arch, or write it by --oci or --push")
	}
	scratch, err := os.MkdirTemp("", scratchName)
	if err != nil {
		return result, err
	}
	defer os.RemoveAll(scratch) //nolint:errcheck // ours

	amended, report, err := installer.Amend(ctx, artifact, installer.Options{
		Edit:          installer.Editors(helpers, policy, f.dropSignature, f.limits()),
		Limits:        f.limits(),
		Architectures: f.architectures,
		Scratch:       scratch,
		Say:           func(line string) { fmt.Fprintln(stderr, line) },
	})
	if err != nil {
		return result, err
	}
	result = installerResult{Changed: report.Changed(), Report: report, KernelArgument: policy}
	if artifact.Index != nil && len(f.architectures) == 1 {
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
	return result, f.write(ctx, amended, &result, registry, stderr)
}

func (f *installerFlags) write(ctx context.Context, a oci.Artifact, result *installerResult, registry oci.Registry, stderr io.Writer) error {
	if f.layout != "" {
		if err := oci.WriteLayout(ctx, f.layout, a, f.force); err != nil {
			return err
		}
		result.Layout = f.layout
	}
	if f.archive != "" {
		if err := oci.WriteArchive(ctx, f.archive, f.tag, a.Image); err != nil {
			return err
		}
		result.Archive, result.Tag = f.archive, f.tag
	}
	if f.image != "" {
		meter := oci.NewMeter(stderr, "pushing "+f.image)
		defer meter.Close()
		registry.Progress = meter.Update
		pinned, err := registry.Push(ctx, a, f.image)
		if err != nil {
			return err
		}
		result.Pushed = pinned
	}
	return nil
}

func (f *installerFlags) print(stdout, stderr io.Writer, policy string, r installerResult) error {
	if f.output == "json" {
		e := json.NewEncoder(stdout)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	for _, w := range r.Warnings {
		fmt.Fprintf(stderr, "warning: %s\n", w)
	}
	var b strings.Builder
	hasUKI, hasInitramfs := false, false
	for _, p := range r.Parts {
		for _, file := range p.Files {
			hasUKI, hasInitramfs = hasUKI || file.Kind == installer.UKI, hasInitramfs || file.Kind == installer.Initramfs
			did := "amended: " + oci.Size(file.Before) + " before, " + oci.Size(file.After) + " now"
			if !file.Changed {
				did = "has nametag already"
			}
			fmt.Fprintf(&b, "%s  /%s  %s\n", p.Architecture, file.Path, did)
		}
	}
	fmt.Fprintf(&b, "%s\n", r.Digest)
	if r.Layout != "" {
		fmt.Fprintf(&b, "  OCI layout      %s\n", r.Layout)
	}
	if r.Archive != "" {
		fmt.Fprintf(&b, "  docker-archive  %s, as %s\n", r.Archive, r.Tag)
	}
	if r.Pushed != "" {
		fmt.Fprintf(&b, "  pushed          %s\n", r.Pushed)
	}
	if r.Pushed != "" {
		fmt.Fprintf(&b, "\nUpgrade a node to it:\n\n  talosctl upgrade --nodes NODE --image %s\n", r.Pushed)
	}
	if hasInitramfs {
		fmt.Fprintf(&b, "\nAn initramfs has no command line. Say in the machine configuration that nametag is to wait (an image\nwithout nametag takes no notice of it):\n\n"+
			"  machine:\n    install:\n      extraKernelArgs:\n        - %s\n", policy)
	}
	if hasUKI {
		fmt.Fprintf(&b, "\nThe UKI's command lines have %s. Nodes that boot by GRUB without\nmachine.install.grubUseUKICmdline take theirs from the machine configuration: they need the argument in\nmachine.install.extraKernelArgs.\n", policy)
	}
	_, err := io.WriteString(stdout, b.String())
	return err
}
