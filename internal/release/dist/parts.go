package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"os"
	"path/filepath"
	"runtime/debug"
)

// parts are what a built command consists of, by its own build information.
type parts struct {
	name, version string // of the command
	sha256        string
	path, module  string // of its package and its module
	libraries     []library
}

// A library is a module that is linked in; Go's own is named std.
type library struct{ path, version, sum string }

func partsOf(binary, version string) (parts, error) {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return parts{}, err
	}
	sum, err := digest(binary)
	if err != nil {
		return parts{}, err
	}
	p := parts{
		name: filepath.Base(binary), version: version, sha256: sum, path: info.Path, module: info.Main.Path,
		libraries: []library{{path: "std", version: info.GoVersion}},
	}
	for _, dep := range info.Deps {
		if module, theirs := linked(dep); theirs {
			p.libraries = append(p.libraries, library{module.Path, module.Version, module.Sum})
		}
	}
	return p, nil
}

// linked is the module that is linked in for a dependency: what it is replaced by, where it is. A folder of ours has no version.
func linked(dep *debug.Module) (module *debug.Module, theirs bool) {
	if dep.Replace != nil {
		dep = dep.Replace
	}
	return dep, dep.Version != ""
}

// purl is a library as a package URL.
func (l library) purl() string { return "pkg:golang/" + l.path + "@" + l.version }

// purl is the command as a package URL.
func (p parts) purl() string {
	return "pkg:golang/" + p.module + "@" + p.version + "#" + filepath.Join("cmd", filepath.Base(p.path))
}

// digest is the SHA-256 of a file.
func digest(file string) (string, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:]), nil
}
