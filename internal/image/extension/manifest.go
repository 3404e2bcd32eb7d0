package extension

import "go.yaml.in/yaml/v3"

// manifest is manifest.yaml, as Talos' pkg/machinery/extensions reads it.
type manifest struct {
	Version  string `yaml:"version"`
	Metadata struct {
		Name          string `yaml:"name"`
		Version       string `yaml:"version"`
		Author        string `yaml:"author"`
		Description   string `yaml:"description"`
		Compatibility struct {
			Talos struct {
				Version string `yaml:"version"`
			} `yaml:"talos"`
		} `yaml:"compatibility"`
	} `yaml:"metadata"`
}

const (
	author      = "The nametag authors"
	description = "Finds the server's name on Hetzner Cloud before anything else runs, so that a node has one name from the first on.\n"
	source      = "https://github.com/nametag-boot/nametag"
	licence     = "Apache-2.0"
)

// Manifest is the extension's manifest.yaml.
func (s Spec) Manifest() ([]byte, error) {
	var m manifest
	m.Version = "v1alpha1"
	m.Metadata.Name = Name
	m.Metadata.Version = s.Version
	m.Metadata.Author = author
	m.Metadata.Description = description
	m.Metadata.Compatibility.Talos.Version = s.Talos.Constraint()
	return yaml.Marshal(m)
}
