package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/image/extension"
	"github.com/nametag-boot/nametag/internal/image/helper"
	"github.com/nametag-boot/nametag/internal/image/oci"
	"github.com/nametag-boot/nametag/internal/image/whole"
	"github.com/nametag-boot/nametag/internal/release/buildinfo"
	"github.com/nametag-boot/nametag/procfs"
)

const extensionLong = `Make nametag's system extension for Talos: a container image that Talos' own imager builds into its images.

It is written as an OCI layout (--oci), as a tarball of its files (--tarball), to a registry (--push), or all of these.
With one helper it is an image, with one for each architecture an index of images. The same inputs give the same digest.

Then it prints what to do next: the imager's profile, with the kernel arguments that belong to the extension.

The helpers are nametag-linux-amd64 and nametag-linux-arm64 beside nametagctl, unless --helper names a file or a folder.`

const extensionExample = `  nametagctl extension --oci nametag.oci
  nametagctl extension --push ghcr.io/acme/nametag:v1 --wait 2m,then=halt
  nametagctl extension --talos 1.9 --arch amd64 --tarball nametag.tar
  nametagctl extension --oci nametag.oci --output profile > profile.yaml`

// archPart stands for the architecture in the name of a tarball.
const archPart = "{arch}"

// helperFlags say where the helpers are. Commands that put a helper somewhere share them.
type helperFlags struct {
	path         string
	amd64, arm64 string
}

func (f *helperFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.path, "helper", "", "the helper's binary, or a folder of them (default: beside nametagctl, else the one that a release carries)")
	flags.StringVar(&f.amd64, "helper-amd64", "", "the helper for amd64")
	flags.StringVar(&f.arm64, "helper-arm64", "", "the helper for arm64")
}

// find finds the helpers of the architectures; none given: all that there are. Where the user named none and none stands
// beside the program, it is what the program carries.
func (f helperFlags) find(architectures []string) ([]helper.Binary, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	choice := helper.Choice{Path: f.path, Files: map[string]string{helper.AMD64: f.amd64, helper.ARM64: f.arm64}}
	found, err := choice.Resolve(architectures, filepath.Dir(program))
	if errors.Is(err, fs.ErrNotExist) && f == (helperFlags{}) {
		return findCarried(architectures, err)
	}
	return found, err
}

// extensionFlags are the command's.
type extensionFlags struct {
	helperFlags
	architectures      []string
	talos, wait        string
	layout, tar, image string
	force, insecure    bool
	output, kind       string
}

// extensionResult is what --output json prints.
type extensionResult struct {
	Digest          string            `json:"digest"`
	MediaType       string            `json:"mediaType"`
	Architectures   []string          `json:"architectures"`
	Version         string            `json:"version"`
	Talos           string            `json:"talos"` // the constraint
	Path            string            `json:"path"`  // of the helper in the initramfs
	KernelArguments []string          `json:"kernelArguments"`
	Layout          string            `json:"layout,omitempty"`
	Tarballs        map[string]string `json:"tarballs,omitempty"` // by architecture
	Pushed          string            `json:"pushed,omitempty"`   // pinned by digest

	insecure bool // the imager must speak to the registry as we did
}

func extensionCommand() *cobra.Command {
	var f extensionFlags
	cmd := &cobra.Command{
		Use:     "extension (--oci DIR | --tarball FILE | --push IMAGE) [flags]",
		Short:   "Make the system extension for Talos' imager",
		Long:    extensionLong,
		Example: extensionExample,
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := untilSignal(cmd.Context())
			defer stop()
			return runExtension(ctx, f, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f.register(cmd)
	flags := cmd.Flags()
	flags.StringSliceVar(&f.architectures, "arch", nil, "only these architectures: amd64, arm64 (default: every one that there is a helper for)")
	flags.StringVar(&f.talos, "talos", extension.Default().Tag, "the release of Talos that it is for")
	flags.StringVar(&f.wait, "wait", procfs.Default().Value(), "how long a boot waits for the name, and what then: the value of talos.hostname.wait=")
	flags.StringVar(&f.layout, "oci", "", "write an OCI layout, in a new folder")
	flags.StringVar(&f.tar, "tarball", "", "write the files as a tarball; "+archPart+" in its name stands for the architecture")
	flags.StringVar(&f.image, "push", "", "push to a registry; credentials are those of docker login")
	flags.BoolVar(&f.force, "force", false, "replace an OCI layout that is there")
	flags.BoolVar(&f.insecure, "insecure", false, "speak to the registry in plain HTTP, or to one whose certificate nobody vouches for")
	flags.StringVar(&f.kind, "for", string(extension.DiskImage), "the kind of the profile of --output profile: image or installer")
	flags.StringVar(&f.output, "output", "text", "text, json, or profile: the imager's profile alone")
	return cmd
}

// plan is what the flags come to, before anything is written.
func (f extensionFlags) plan() (t extension.Talos, policy string, err error) {
	if f.layout == "" && f.tar == "" && f.image == "" {
		return t, "", errors.New("say where it goes: --oci DIR, --tarball FILE or --push IMAGE")
	}
	if !slices.Contains([]string{"text", "json", "profile"}, f.output) {
		return t, "", fmt.Errorf("--output %s: choose text, json or profile", f.output)
	}
	if f.kind != string(extension.DiskImage) && f.kind != string(extension.Installer) {
		return t, "", fmt.Errorf("--for %s: choose %s or %s", f.kind, extension.DiskImage, extension.Installer)
	}
	if t, err = extension.ParseTalos(f.talos); err != nil {
		return t, "", fmt.Errorf("--talos: %w", err)
	}
	if policy, err = waitPolicy(f.wait); err != nil {
		return t, "", err
	}
	if f.image != "" {
		if err := (oci.Registry{}).Check(f.image); err != nil {
			return t, "", fmt.Errorf("--push: %w", err)
		}
	}
	if f.output == "profile" {
		if _, err := t.Profile(extension.Kind(f.kind), helper.AMD64, extension.Origin{}, policy); err != nil {
			return t, "", err
		}
	}
	return t, policy, nil
}

// waitPolicy is the kernel argument of a policy that a user gave.
func waitPolicy(value string) (string, error) {
	p, err := procfs.ParsePolicy(value)
	if err != nil {
		return "", fmt.Errorf("--wait: %w", err)
	}
	if p.Mode == procfs.Off {
		return "", fmt.Errorf("--wait %s: that makes nametag do nothing; leave it out of the image instead", value)
	}
	return p.String(), nil
}

func runExtension(ctx context.Context, f extensionFlags, stdout, stderr io.Writer) error {
	usage := func(err error) error { return &exitError{exitUsage, fmt.Errorf("extension: %w", err)} }
	failed := func(err error) error {
		switch {
		case ctx.Err() != nil && errors.Is(err, context.Canceled):
			err = errors.New("interrupted; nothing was replaced by half")
		case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
			err = fmt.Errorf("%w; nothing was replaced by half. The copies in between go where TMPDIR says, now %s", err, os.TempDir())
		case errors.Is(err, unix.EROFS), errors.Is(err, fs.ErrPermission):
			err = fmt.Errorf("%w; write to another place", err)
		}
		return &exitError{exitFailed, fmt.Errorf("extension: %w", err)}
	}
	t, policy, err := f.plan()
	if err != nil {
		return usage(err)
	}
	if f.layout != "" {
		if err := oci.CheckLayout(f.layout, f.force); err != nil {
			return failed(err)
		}
	}
	helpers, err := f.find(f.architectures)
	if err != nil {
		return failed(err)
	}
	if f.tar != "" && len(helpers) > 1 && !strings.Contains(f.tar, archPart) {
		return usage(fmt.Errorf("--tarball %s: there is one for each of %d architectures: put %s into the name, or choose one by --arch", f.tar, len(helpers), archPart))
	}
	nametag, err := versionOf(helpers)
	if err != nil {
		return failed(err)
	}

	scratch, err := os.MkdirTemp("", "nametagctl-")
	if err != nil {
		return failed(err)
	}
	defer os.RemoveAll(scratch) //nolint:errcheck // ours
	spec := extension.Spec{Talos: t, Version: nametag}
	artifact, err := spec.Build(helpers, scratch)
	if err != nil {
		return failed(err)
	}
	digest, err := artifact.Digest()
	if err != nil {
		return failed(err)
	}
	mediaType, err := artifact.MediaType()
	if err != nil {
		return failed(err)
	}
	result := extensionResult{
		Digest: digest.String(), MediaType: string(mediaType), Version: nametag,
		insecure: f.insecure, Talos: t.Constraint(), Path: "/" + t.Path(), KernelArguments: t.KernelArguments(policy),
	}
	for _, h := range helpers {
		result.Architectures = append(result.Architectures, h.Architecture)
	}
	if err := f.write(ctx, spec, artifact, helpers, &result, stderr); err != nil {
		return failed(err)
	}
	if err := f.print(stdout, t, policy, result); err != nil {
		return failed(err)
	}
	return nil
}

// versionOf is the version that the helpers carry; all must be of one. Where they carry none it is this program's.
func versionOf(helpers []helper.Binary) (string, error) {
	found := ""
	for _, h := range helpers {
		switch {
		case h.Version == "" || h.Version == found:
		case found == "":
			found = h.Version
		default:
			return "", fmt.Errorf("the helpers are not of one version: %s and %s (%s)", found, h.Version, h.Path)
		}
	}
	if found == "" {
		found = strings.Fields(buildinfo.Line("nametagctl", version))[1]
	}
	return found, nil
}

// write writes the extension to wherever the flags say.
func (f extensionFlags) write(ctx context.Context, spec extension.Spec, a oci.Artifact, helpers []helper.Binary, result *extensionResult, stderr io.Writer) error {
	if f.layout != "" {
		if err := oci.WriteLayout(ctx, f.layout, a, f.force); err != nil {
			return err
		}
		result.Layout = f.layout
	}
	if f.tar != "" {
		result.Tarballs = map[string]string{}
		for _, h := range helpers {
			if err := ctx.Err(); err != nil {
				return err
			}
			file := strings.ReplaceAll(f.tar, archPart, h.Architecture)
			if err := whole.File(file, 0o644, func(w *os.File) error { return spec.WriteRootfs(w, h) }); err != nil {
				return err
			}
			result.Tarballs[h.Architecture] = file
		}
	}
	if f.image != "" {
		meter := oci.NewMeter(stderr, "pushing "+f.image)
		defer meter.Close()
		registry := oci.Registry{Insecure: f.insecure, Progress: meter.Update}
		pinned, err := registry.Push(ctx, a, f.image)
		if err != nil {
			return err
		}
		result.Pushed = pinned
	}
	return nil
}

// inside is where the printed commands mount the extension in the imager's container.
const inside = "/nametag"

// origin is where the imager finds the extension: the registry first, for that needs no mount.
func (r extensionResult) origin(architecture string) (o extension.Origin, mount string, err error) {
	local, take := r.Layout, func(p string) { o.OCIPath = p }
	if r.Pushed != "" {
		return extension.Origin{ImageRef: r.Pushed, ForceInsecure: r.insecure}, "", nil
	}
	if local == "" {
		local, take = r.Tarballs[architecture], func(p string) { o.TarballPath = p }
	}
	local, err = filepath.Abs(local)
	if err != nil {
		return o, "", err
	}
	take(inside + "/" + filepath.Base(local))
	return o, fmt.Sprintf("-v %s:%s:ro ", quote(local), quote(inside+"/"+filepath.Base(local))), nil
}

// quote makes one word of a shell's command line.
func quote(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=:,./@%", r)
	}) {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	return s
}

func (f extensionFlags) print(w io.Writer, t extension.Talos, policy string, r extensionResult) error {
	architecture := r.Architectures[0]
	from, mount, err := r.origin(architecture)
	if err != nil {
		return err
	}
	profile := func(k extension.Kind) (extension.Profile, string, error) {
		p, err := t.Profile(k, architecture, from, policy)
		if err != nil {
			return p, "", err
		}
		text, err := p.YAML()
		return p, text, err
	}
	switch f.output {
	case "json":
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(r)
	case "profile":
		_, text, err := profile(extension.Kind(f.kind))
		if err != nil {
			return err
		}
		_, err = io.WriteString(w, text)
		return err
	}

	var b strings.Builder
	fmt.Fprintf(&b, "nametag %s for %s, %s\n%s\n", r.Version, t.Lines(), strings.Join(r.Architectures, " and "), r.Digest)
	if r.Layout != "" {
		fmt.Fprintf(&b, "  OCI layout  %s\n", r.Layout)
	}
	for _, a := range r.Architectures {
		if file := r.Tarballs[a]; file != "" {
			fmt.Fprintf(&b, "  tarball     %s\n", file)
		}
	}
	if r.Pushed != "" {
		fmt.Fprintf(&b, "  pushed      %s\n", r.Pushed)
	}
	kinds := []struct {
		kind  extension.Kind
		title string
	}{
		{extension.DiskImage, "The disk image that servers first boot from"},
		{extension.Installer, "The installer image that they are upgraded with"},
	}
	for _, k := range kinds {
		p, text, err := profile(k.kind)
		if err != nil {
			fmt.Fprintf(&b, "\n%s: %v.\n", k.title, err)
			continue
		}
		fmt.Fprintf(&b, "\n%s:\n\n  mkdir -p _out && docker run --rm -i %s-v \"$PWD/_out:/out\" %s - <<'EOF'\n%sEOF\n", k.title, mount, t.Imager(), text)
		if from.ImageRef != "" {
			words := p.Flags()
			for i := range words {
				words[i] = quote(words[i])
			}
			fmt.Fprintf(&b, "\nThe same by flags: %s %s\n", t.Imager(), strings.Join(words, " "))
		}
	}
	if len(r.Architectures) > 1 {
		fmt.Fprintf(&b, "\nFor %s, write that in the place of %s.\n", strings.Join(r.Architectures[1:], ", "), architecture)
	}
	fmt.Fprintf(&b, "\nThe arguments belong beside the extension, never into the machine configuration: with them, an image\nwithout the extension panics at boot.\n")
	_, err = io.WriteString(w, b.String())
	return err
}
