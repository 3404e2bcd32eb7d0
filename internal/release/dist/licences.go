package main

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
)

// The files of a release that give what the licences ask for: a copy of ours (Apache-2.0, section 4), and those of
// everything that is linked into the commands (the notices of the BSD and MIT licences go with binaries too).
const (
	licenceFile    = "LICENSE"
	thirdPartyFile = "THIRD-PARTY-LICENSES"
)

var licenceName = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|patents)([.-].*)?$`)

// writeLicences writes both, from the module cache that the commands were just built from.
func writeLicences(dir string, binaries []string) error {
	own, err := os.ReadFile(licenceFile)
	if err != nil {
		return err
	}
	if err := write(dir, licenceFile, string(own)); err != nil {
		return err
	}
	goroot, err := exec.Command("go", "env", "GOROOT").Output() //nolint:noctx // it prints and ends
	if err != nil {
		return fmt.Errorf("go env: %w", err)
	}
	text, err := licencesIn(strings.TrimSpace(string(goroot)))
	if err != nil {
		return fmt.Errorf("the licence of Go: %w", err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "nametag and nametagctl are built with the following.\n%s", chapter("Go "+runtime.Version(), text))
	modules := map[string]bool{}
	for _, binary := range binaries {
		info, err := buildinfo.ReadFile(binary)
		if err != nil {
			return err
		}
		for _, dep := range info.Deps {
			if dep.Replace != nil {
				continue // ours
			}
			modules[dep.Path+"@"+dep.Version] = true
		}
	}
	var names []string
	for name := range modules {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		path, _, _ := strings.Cut(name, "@")
		where, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", path).Output() //nolint:noctx,gosec // a module of ours
		if err != nil {
			return fmt.Errorf("where is %s: %w", name, err)
		}
		text, err := licencesIn(strings.TrimSpace(string(where)))
		if err != nil {
			return fmt.Errorf("the licence of %s: %w", name, err)
		}
		b.WriteString(chapter(name, text))
	}
	return write(dir, thirdPartyFile, b.String())
}

func chapter(name, text string) string {
	return "\n" + strings.Repeat("=", 100) + "\n" + name + "\n" + strings.Repeat("=", 100) + "\n\n" + strings.TrimSpace(text) + "\n"
}

// licencesIn is the text of the licences and notices in a folder, which must have one.
func licencesIn(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	var texts []string
	for _, e := range entries {
		if !licenceName.MatchString(e.Name()) || !e.Type().IsRegular() {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name())) //nolint:gosec // of the module cache
		if err != nil {
			return "", err
		}
		texts = append(texts, strings.TrimSpace(string(b)))
	}
	if len(texts) == 0 {
		return "", errors.New("there is none in " + dir)
	}
	return strings.Join(texts, "\n\n"), nil
}
