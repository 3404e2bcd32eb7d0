// Package internal_test holds the house to its plan: which wing may know which.
package internal_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/nametag-boot/nametag/"

// below says what each wing may import of the house, besides itself. Arrows point down only: what is named here must not
// name the wing in turn. A package belongs to the wing with the longest name that it begins with.
var below = map[string][]string{
	"procfs":   {},
	"earlynet": {"internal/safely", "internal/joined"},

	"identity/dmi": {"internal/joined"},
	// What other clouds' sources ask with too.
	"identity/metadata": {"earlynet", "internal/safely"},
	"identity":          {"earlynet", "procfs", "identity/dmi", "internal/safely"},
	// Ours is one source of several that there may be: identity does not know it.
	"identity/hetzner":      {"earlynet", "identity", "identity/dmi", "identity/metadata", "internal/safely", "internal/joined"},
	"identity/identitytest": {"earlynet", "identity", "identity/dmi"},

	// What runs on a node, what edits images, the lab, and what makes a release.
	"internal/node":    {"procfs", "earlynet", "identity", "identity/dmi", "identity/hetzner", "internal/safely", "internal/joined", "internal/kernelarg"},
	"internal/image":   {"procfs", "internal/cli", "internal/kernelarg"},
	"internal/release": {"internal/image"},
	"internal/testvm":  {"procfs", "identity/dmi", "internal/image", "internal/release", "internal/kernelarg"},
	// The demo shows what the library does.
	"internal/testvm/demo": {"earlynet", "identity", "identity/dmi", "identity/hetzner", "internal/node", "internal/testvm"},

	"cmd/nametag": {"procfs", "earlynet", "identity", "identity/dmi", "identity/hetzner", "internal/node", "internal/output", "internal/release/buildinfo"},
	"cmd/nametagctl": {
		"procfs", "earlynet", "identity", "identity/dmi", "identity/hetzner", "internal/node",
		"internal/image", "internal/testvm", "internal/testvm/demo", "internal/release", "internal/release/buildinfo", "internal/cli",
	},
	"examples": {"procfs", "earlynet", "identity", "identity/dmi", "identity/hetzner"},

	// Things that any wing may use have no wing themselves.
	"internal/release/buildinfo": {},
	"internal/safely":            {},
	"internal/joined":            {},
	"internal/cli":               {},
	"internal/kernelarg":         {},
	"internal/pages":             {},
	"internal/output":            {},
}

// heavy are modules that must not be in what a node runs, or not in this module at all.
var heavy = []struct{ who, what string }{
	{"cmd/nametag", "gvisor.dev/"},
	{"cmd/nametag", "github.com/google/go-containerregistry"},
	{"cmd/nametag", "github.com/u-root/u-root/"},
	{"cmd/nametag", "github.com/spf13/"},
	{"cmd/nametag", "github.com/prometheus/"},
	{"cmd/nametag", "go.yaml.in/"},
	{"cmd/nametag", "google.golang.org/protobuf/"},
	{"cmd/nametag", module + "internal/testvm"},
	{"", "k8s.io/"},
	{"", "sigs.k8s.io/"},
	{"", "google.golang.org/grpc"},
	{"", "go.etcd.io/"},
	{"", "github.com/siderolabs/talos/"},
	{"", "github.com/cosi-project/"},
}

type pkg struct {
	ImportPath    string
	Imports, Deps []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", module+"...")
	cmd.Env = append(cmd.Environ(), "GOOS=linux")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		switch err := d.Decode(&p); {
		case errors.Is(err, io.EOF):
			return all
		case err != nil:
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// wing is the wing of a package of ours, or nothing for one from elsewhere.
func wing(importPath string) string {
	path, ours := strings.CutPrefix(importPath, module)
	if !ours {
		return ""
	}
	var longest string
	for w := range below {
		if (path == w || strings.HasPrefix(path, w+"/")) && len(w) > len(longest) {
			longest = w
		}
	}
	if longest == "" {
		return path
	}
	return longest
}

func TestArrowsBetweenTheWingsPointDown(t *testing.T) {
	for _, p := range packages(t) {
		from := wing(p.ImportPath)
		allowed, known := below[from]
		if !known && from != "internal" {
			t.Errorf("%s belongs to no wing: say here what it may import", p.ImportPath)
			continue
		}
		for _, i := range p.Imports {
			if to := wing(i); to != "" && to != from && !slices.Contains(allowed, to) {
				t.Errorf("%s imports %s: %s must not know %s", p.ImportPath, i, from, to)
			}
		}
	}
}

func TestThePlanItselfHasNoCircle(t *testing.T) {
	var visit func(wing string, way []string)
	visit = func(wing string, way []string) {
		if slices.Contains(way, wing) {
			t.Fatalf("a circle: %s", strings.Join(append(way, wing), " → "))
		}
		for _, next := range below[wing] {
			visit(next, append(slices.Clone(way), wing))
		}
	}
	for wing := range below {
		visit(wing, nil)
	}
}

func TestHeavyModulesStayOut(t *testing.T) {
	for _, p := range packages(t) {
		for _, h := range heavy {
			if h.who != "" && p.ImportPath != module+h.who {
				continue
			}
			for _, d := range p.Deps {
				if strings.HasPrefix(d, h.what) {
					t.Errorf("%s depends on %s", p.ImportPath, d)
					break
				}
			}
		}
	}
}
