package jobs

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/nametag-boot/nametag/internal/cli"
	"github.com/nametag-boot/nametag/internal/image/extension"
	"github.com/nametag-boot/nametag/internal/image/helper"
	"github.com/nametag-boot/nametag/internal/image/oci"
	"github.com/nametag-boot/nametag/internal/image/whole"
)

// ArchPart stands for the architecture in the name of a tarball.
const ArchPart = "{arch}"

// MakeExtension makes the system extension for Talos.
type MakeExtension struct {
	Architectures         []string // empty: every one that there is a helper for
	Talos, Wait           string
	Layout, Tarball, Push string // where it goes
	Force, Insecure       bool
	Kind                  string // of the profile
	Profile               bool   // it is the profile that is asked for
	Helpers               Helpers
	Version               string // of this program, for helpers that tell none
}

// ExtensionResult is what became of it.
type ExtensionResult struct {
	Digest          string            `json:"digest"`
	MediaType       string            `json:"media_type"`
	Architectures   []string          `json:"architectures"`
	Version         string            `json:"version"`
	Talos           string            `json:"talos"` // the constraint
	Path            string            `json:"path"`  // of the helper in the initramfs
	KernelArguments []string          `json:"kernel_arguments"`
	Layout          string            `json:"layout,omitempty"`
	Tarballs        map[string]string `json:"tarballs,omitempty"` // by architecture
	Pushed          string            `json:"pushed,omitempty"`   // pinned by digest

	insecure bool // the imager must speak to the registry as we did
	release  extension.Talos
	policy   string
	kind     extension.Kind
}

// plan is what the options come to, before anything is written.
func (j *MakeExtension) plan() (t extension.Talos, policy string, err error) {
	if j.Layout == "" && j.Tarball == "" && j.Push == "" {
		return t, "", cli.Misusedf("say where it goes: --oci DIR, --tarball FILE or --push IMAGE")
	}
	if err := checkArchitectures(j.Architectures); err != nil {
		return t, "", err
	}
	if j.Kind != string(extension.DiskImage) && j.Kind != string(extension.Installer) {
		return t, "", cli.Misusedf("--for %s: choose %s or %s", j.Kind, extension.DiskImage, extension.Installer)
	}
	if t, err = extension.ParseTalos(j.Talos); err != nil {
		return t, "", cli.Misusedf("--talos: %w", err)
	}
	if policy, err = WaitPolicy(j.Wait); err != nil {
		return t, "", err
	}
	if j.Push != "" {
		if err := (oci.Registry{}).Check(j.Push); err != nil {
			return t, "", cli.Misusedf("--push: %w", err)
		}
	}
	if j.Profile {
		if _, err := t.Profile(extension.Kind(j.Kind), helper.AMD64, extension.Origin{}, policy); err != nil {
			return t, "", cli.Misused(err)
		}
	}
	return t, policy, nil
}

// Run does it.
func (j *MakeExtension) Run(ctx context.Context, c Console) (*ExtensionResult, error) {
	t, policy, err := j.plan()
	if err != nil {
		return nil, err
	}
	if j.Layout != "" {
		if err := oci.CheckLayout(j.Layout, j.Force); err != nil {
			return nil, err
		}
	}
	helpers, closed, err := j.Helpers.find(j.Architectures)
	if err != nil {
		return nil, err
	}
	defer closed()
	if j.Tarball != "" && len(helpers) > 1 && !strings.Contains(j.Tarball, ArchPart) {
		return nil, cli.Misusedf("--tarball %s: there is one for each of %d architectures: put %s into the name, or choose one by --arch", j.Tarball, len(helpers), ArchPart)
	}
	nametag, err := versionOf(helpers, j.Version)
	if err != nil {
		return nil, err
	}
	scratch, err := os.MkdirTemp("", cli.Scratch)
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(scratch) //nolint:errcheck // ours
	spec := extension.Spec{Talos: t, Version: nametag}
	artifact, err := spec.Build(helpers, scratch)
	if err != nil {
		return nil, err
	}
	digest, err := artifact.Digest()
	if err != nil {
		return nil, err
	}
	mediaType, err := artifact.MediaType()
	if err != nil {
		return nil, err
	}
	r := &ExtensionResult{
		Digest: digest.String(), MediaType: string(mediaType), Version: nametag, Talos: t.Constraint(), Path: "/" + t.Path(),
		KernelArguments: t.KernelArguments(policy), insecure: j.Insecure, release: t, policy: policy, kind: extension.Kind(j.Kind),
	}
	for _, h := range helpers {
		r.Architectures = append(r.Architectures, h.Architecture)
	}
	return r, j.write(ctx, spec, artifact, helpers, r, c)
}

// versionOf is the version that the helpers carry; all must be of one. Where they carry none it is ours.
func versionOf(helpers []helper.Binary, ours string) (string, error) {
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
		found = ours
	}
	return found, nil
}

// write writes the extension to wherever the options say.
func (j *MakeExtension) write(ctx context.Context, spec extension.Spec, a oci.Artifact, helpers []helper.Binary, result *ExtensionResult, c Console) error {
	if j.Layout != "" {
		if err := oci.WriteLayout(ctx, j.Layout, a, j.Force); err != nil {
			return err
		}
		result.Layout = j.Layout
	}
	if j.Tarball != "" {
		result.Tarballs = map[string]string{}
		for _, h := range helpers {
			if err := ctx.Err(); err != nil {
				return err
			}
			file := strings.ReplaceAll(j.Tarball, ArchPart, h.Architecture)
			if err := whole.File(file, 0o644, func(w *os.File) error { return spec.WriteRootfs(w, h) }); err != nil {
				return err
			}
			result.Tarballs[h.Architecture] = file
		}
	}
	if j.Push != "" {
		meter := cli.NewMeter(c.Err, "pushing "+j.Push)
		defer meter.Close()
		registry := oci.Registry{Insecure: j.Insecure, Progress: meter.Update}
		pinned, err := registry.Push(ctx, a, j.Push)
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
func (r *ExtensionResult) origin(architecture string) (o extension.Origin, mount string, err error) {
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

// profile is the imager's profile of a kind.
func (r *ExtensionResult) profile(k extension.Kind, from extension.Origin) (extension.Profile, string, error) {
	p, err := r.release.Profile(k, r.Architectures[0], from, r.policy)
	if err != nil {
		return p, "", err
	}
	text, err := p.YAML()
	return p, text, err
}

// Profile is the imager's profile of the kind that was asked for, in YAML.
func (r *ExtensionResult) Profile() (string, error) {
	from, _, err := r.origin(r.Architectures[0])
	if err != nil {
		return "", err
	}
	_, text, err := r.profile(r.kind, from)
	return text, err
}

// Text says what was made, and what is next.
func (r *ExtensionResult) Text(w io.Writer) error {
	architecture := r.Architectures[0]
	from, mount, err := r.origin(architecture)
	if err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "nametag %s for %s, %s\n%s\n", r.Version, r.release.Lines(), strings.Join(r.Architectures, " and "), r.Digest)
	if r.Layout != "" {
		fmt.Fprintf(&b, "  OCI layout  %s\n", cli.Line(r.Layout))
	}
	for _, a := range r.Architectures {
		if file := r.Tarballs[a]; file != "" {
			fmt.Fprintf(&b, "  tarball     %s\n", cli.Line(file))
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
		p, text, err := r.profile(k.kind, from)
		if err != nil {
			fmt.Fprintf(&b, "\n%s: %v.\n", k.title, err)
			continue
		}
		fmt.Fprintf(&b, "\n%s:\n\n  mkdir -p _out && docker run --rm -i %s-v \"$PWD/_out:/out\" %s - <<'EOF'\n%sEOF\n", k.title, mount, r.release.Imager(), text)
		if from.ImageRef != "" {
			words := p.Flags()
			for i := range words {
				words[i] = quote(words[i])
			}
			fmt.Fprintf(&b, "\nThe same by flags: %s %s\n", r.release.Imager(), strings.Join(words, " "))
		}
	}
	if len(r.Architectures) > 1 {
		fmt.Fprintf(&b, "\nFor %s, write that in the place of %s.\n", strings.Join(r.Architectures[1:], ", "), architecture)
	}
	fmt.Fprintf(&b, "\nThe arguments belong beside the extension, never into the machine configuration: with them, an image\nwithout the extension panics at boot.\n")
	_, err = io.WriteString(w, b.String())
	return err
}
