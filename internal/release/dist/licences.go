package main

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"maps"
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
	fmt.Fprintf(&b, "nametag, nametagctl and nametag-audit are built with the following.\n%s", chapter("Go "+runtime.Version(), text))
	modules := map[string]string{} // the folder by the name with its version
	for _, binary := range binaries {
		if err := linkedInto(binary, modules); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(modules)) {
		text, err := licencesIn(modules[name])
		if err != nil {
			return fmt.Errorf("the licence of %s: %w", name, err)
		}
		b.WriteString(chapter(name, text))
	}
	return write(dir, thirdPartyFile, b.String())
}

// linkedInto finds the modules of others that are linked into a binary, and where they stand.
func linkedInto(binary string, modules map[string]string) error {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return err
	}
	list := exec.Command("go", "list", "-m", "-f", "{{.Path}} {{.Dir}}") //nolint:noctx,gosec // it prints and ends
	list.Dir = moduleOf(binary)
	names := map[string]string{} // by the path that our go.mod has
	for _, dep := range info.Deps {
		if module, theirs := linked(dep); theirs {
			names[dep.Path] = module.Path + "@" + module.Version
			list.Args = append(list.Args, dep.Path)
		}
	}
	if len(names) == 0 {
		return nil
	}
	out, err := list.Output()
	if err != nil {
		return fmt.Errorf("where the modules in %s are: %w", filepath.Base(binary), err)
	}
	for line := range strings.Lines(string(out)) {
		path, dir, _ := strings.Cut(strings.TrimSpace(line), " ")
		modules[names[path]] = dir
	}
	return nil
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
