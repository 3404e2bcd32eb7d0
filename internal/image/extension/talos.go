package extension

import (
	"fmt"
	"path"
	"regexp"
	"strconv"
)

// Talos is a release of Talos, as far as an extension depends on it.
type Talos struct {
	Minor int    // of Talos 1: 9 and up
	Tag   string // a whole version, "v1.12.7": an image of the imager
}

// Default is the release that is built for where none is named: one of those that this was tried with.
func Default() Talos { return Talos{Minor: 12, Tag: "v1.12.7"} }

// tried is the patch release that a line was tried with. Of other lines the first is named, for it exists.
var tried = map[int]string{9: "v1.9.1", 12: "v1.12.7"}

var release = regexp.MustCompile(`^v?1\.(\d{1,3})(\.\d{1,3}(-[0-9a-z.-]+)?)?$`)

// firstMinor is the oldest line that this was tried with; mergedMinor the first whose firmware is below /usr: Talos 1.10
// merged /lib and /usr/lib, and its imager looks into the latter alone.
const (
	firstMinor  = 9
	mergedMinor = 10
)

// ParseTalos reads a release: 1.9, v1.12, 1.12.7.
func ParseTalos(s string) (Talos, error) {
	m := release.FindStringSubmatch(s)
	if m == nil {
		return Talos{}, fmt.Errorf("%q is no release of Talos such as 1.9 or v1.12.7", s)
	}
	minor, err := strconv.Atoi(m[1])
	if err != nil {
		return Talos{}, err
	}
	if minor < firstMinor {
		return Talos{}, fmt.Errorf("Talos %s is too old: 1.%d is the oldest line that nametag was tried with", s, firstMinor) //nolint:revive,staticcheck // a name
	}
	t := Talos{Minor: minor, Tag: fmt.Sprintf("v1.%d%s", minor, m[2])}
	if m[2] == "" {
		if t.Tag = tried[minor]; t.Tag == "" {
			t.Tag = fmt.Sprintf("v1.%d.0", minor)
		}
	}
	return t, nil
}

// merged says whether firmware is below /usr.
func (t Talos) merged() bool { return t.Minor >= mergedMinor }

// Path is where the kernel finds the helper, with no leading slash.
func (t Talos) Path() string {
	if t.merged() {
		return path.Join("usr/lib/firmware", Name, "nametag")
	}
	return path.Join("lib/firmware", Name, "nametag")
}

// Constraint is the releases whose imager moves firmware from there. It is tight on purpose: an imager that does not move
// the file builds an image that panics at boot, and one that refuses the extension builds none.
func (t Talos) Constraint() string {
	if t.merged() {
		return fmt.Sprintf(">= 1.%d.0", mergedMinor)
	}
	return fmt.Sprintf(">= 1.%d.0 < 1.%d.0", firstMinor, mergedMinor)
}

// Lines is the constraint in words.
func (t Talos) Lines() string {
	if t.merged() {
		return fmt.Sprintf("Talos 1.%d and later", mergedMinor)
	}
	return fmt.Sprintf("Talos 1.%d", firstMinor)
}

// KernelArguments is what makes the kernel run the helper, and the helper wait by a policy, talos.hostname.wait=…. A
// helper that cannot be executed makes the kernel fall back to init=, which is Talos' own; without it, it would panic.
func (t Talos) KernelArguments(policy string) []string {
	return []string{"rdinit=/" + t.Path(), "init=/init", policy}
}

// InstallerTakesArguments says whether the release's imager puts kernel arguments into an installer image. Before UKIs
// became the rule they stood in the machine configuration, and v1.9 refuses them.
func (t Talos) InstallerTakesArguments() bool { return t.merged() }
