package extension

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Kind is what a profile makes.
type Kind string

// The kinds that a Talos operator on Hetzner Cloud needs.
const (
	DiskImage Kind = "image"     // what a server first boots from
	Installer Kind = "installer" // what it is upgraded with
)

// Origin is where the imager finds the extension: a reference or one of the paths, which are those in the imager's
// container.
type Origin struct {
	ImageRef      string `yaml:"imageRef,omitempty"`
	ForceInsecure bool   `yaml:"forceInsecure,omitempty"` // the registry speaks plain HTTP
	OCIPath       string `yaml:"ociPath,omitempty"`
	TarballPath   string `yaml:"tarballPath,omitempty"`
}

// Profile is an imager profile: what it is fed on its standard input.
type Profile struct {
	Base          string `yaml:"baseProfileName"`
	Architecture  string `yaml:"arch"`
	Platform      string `yaml:"platform"`
	Customization struct {
		ExtraKernelArgs []string `yaml:"extraKernelArgs"`
	} `yaml:"customization"`
	Input struct {
		SystemExtensions []Origin `yaml:"systemExtensions"`
	} `yaml:"input"`
}

// platform is Talos' name for Hetzner Cloud. The base profile of installers would put another one, metal, on the kernel
// command line of a UKI.
const platform = "hcloud"

func base(k Kind) string {
	if k == Installer {
		return "installer"
	}
	return platform
}

// Profile is the imager profile of that kind. The extension is in place and its kernel arguments with it: they belong
// together, for an image with the arguments and without the file panics.
func (t Talos) Profile(k Kind, architecture string, from Origin, policy string) (Profile, error) {
	if k == Installer && !t.InstallerTakesArguments() {
		return Profile{}, fmt.Errorf("the imager of Talos 1.%d takes no kernel arguments for it; edit one with `nametagctl installer`", t.Minor)
	}
	p := Profile{Base: base(k), Architecture: architecture, Platform: platform}
	p.Customization.ExtraKernelArgs = t.KernelArguments(policy)
	p.Input.SystemExtensions = []Origin{from}
	return p, nil
}

// YAML is the profile as the imager reads it.
func (p Profile) YAML() (string, error) {
	var b strings.Builder
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(p); err != nil {
		return "", err
	}
	return b.String(), e.Close()
}

// Flags is the same as arguments of the imager, which take no files but only a registry's images.
func (p Profile) Flags() []string {
	flags := []string{p.Base, "--platform", p.Platform, "--arch", p.Architecture}
	for _, o := range p.Input.SystemExtensions {
		flags = append(flags, "--system-extension-image", o.ImageRef)
		if o.ForceInsecure {
			flags = append(flags, "--insecure")
		}
	}
	for _, a := range p.Customization.ExtraKernelArgs {
		flags = append(flags, "--extra-kernel-arg", a)
	}
	return flags
}

// Imager is the imager's image.
func (t Talos) Imager() string { return "ghcr.io/siderolabs/imager:" + t.Tag }
