//go:build linux

package qemu

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// Modules is a choice of the kernel's modules with what they depend on.
type Modules struct {
	Release string
	found   map[string]module // by name
}

type module struct {
	path    string // below the release's folder, kernel/…
	file    string // on this machine
	depends []string
	aliases []string
}

// Modules takes the named modules, and all that they need, out of the kernel's package.
func (d Deps) Modules(names ...string) (*Modules, error) {
	release, err := d.Release()
	if err != nil {
		return nil, err
	}
	root := filepath.Join(d.Root, "lib/modules", release)
	files := map[string]string{}
	err = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".ko") {
			files[moduleName(path)] = path
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	m := &Modules{Release: release, found: map[string]module{}}
	var take func(string) error
	take = func(name string) error {
		if _, ok := m.found[name]; ok {
			return nil
		}
		file, ok := files[name]
		if !ok {
			return fmt.Errorf("the kernel has no module %s", name)
		}
		found, err := readModule(file)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		found.path, err = filepath.Rel(root, file)
		if err != nil {
			return err
		}
		m.found[name] = found
		for _, d := range found.depends {
			if err := take(d); err != nil {
				return err
			}
		}
		return nil
	}
	for _, name := range names {
		if err := take(moduleName(name)); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// moduleName is the kernel's name of a file: dashes are underscores.
func moduleName(path string) string {
	return strings.ReplaceAll(strings.TrimSuffix(filepath.Base(path), ".ko"), "-", "_")
}

// readModule reads the section .modinfo: strings of the form key=value, each ended by a zero byte.
func readModule(file string) (module, error) {
	f, err := elf.Open(file)
	if err != nil {
		return module{}, err
	}
	defer f.Close() //nolint:errcheck // opened for reading
	section := f.Section(".modinfo")
	if section == nil {
		return module{}, errors.New("no .modinfo")
	}
	b, err := section.Data()
	if err != nil {
		return module{}, err
	}
	m := module{file: file}
	for _, pair := range bytes.Split(b, []byte{0}) {
		key, value, _ := strings.Cut(string(pair), "=")
		switch key {
		case "alias":
			m.aliases = append(m.aliases, value)
		case "depends":
			for _, d := range strings.FieldsFunc(value, func(r rune) bool { return r == ',' }) {
				m.depends = append(m.depends, moduleName(d))
			}
		}
	}
	return m, nil
}

// Order is the names, each behind all that it needs.
func (m *Modules) Order() []string {
	var order []string
	seen := map[string]bool{}
	var visit func(string)
	visit = func(name string) {
		if seen[name] {
			return
		}
		seen[name] = true
		for _, d := range m.found[name].depends {
			visit(d)
		}
		order = append(order, name)
	}
	for _, name := range m.names() {
		visit(name)
	}
	return order
}

func (m *Modules) names() []string {
	names := make([]string, 0, len(m.found))
	for name := range m.found {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// File is the module's file on this machine.
func (m *Modules) File(name string) string { return m.found[name].file }

// Tree is what stands in /lib/modules/RELEASE, with the modules.dep and modules.alias that depmod would make, all
// below the folder at: "lib/modules" or "usr/lib/modules".
func (m *Modules) Tree(at string) Files {
	at = filepath.Join(at, m.Release)
	tree := Files{}
	var dep, alias strings.Builder
	for _, name := range m.names() {
		mod := m.found[name]
		tree[filepath.Join(at, mod.path)] = File{From: mod.file, Mode: 0o644}
		dep.WriteString(mod.path + ":")
		for _, d := range m.needs(name) {
			dep.WriteString(" " + m.found[d].path)
		}
		dep.WriteString("\n")
		for _, a := range mod.aliases {
			fmt.Fprintf(&alias, "alias %s %s\n", a, name)
		}
	}
	tree[filepath.Join(at, "modules.dep")] = File{Data: []byte(dep.String()), Mode: 0o644}
	tree[filepath.Join(at, "modules.alias")] = File{Data: []byte(alias.String()), Mode: 0o644}
	// What is built in comes with the package; kmod looks at it.
	for _, list := range []string{"modules.builtin", "modules.builtin.modinfo", "modules.order"} {
		file := filepath.Join(m.packageDir(), list)
		if _, err := os.Stat(file); err == nil {
			tree[filepath.Join(at, list)] = File{From: file, Mode: 0o644}
		}
	}
	return tree
}

func (m *Modules) packageDir() string {
	for _, mod := range m.found {
		return strings.TrimSuffix(mod.file, mod.path)
	}
	return ""
}

// needs is all that a module needs, in depmod's order: what must be loaded first stands last.
func (m *Modules) needs(name string) []string {
	one := &Modules{found: map[string]module{}}
	var take func(string)
	take = func(n string) {
		for _, d := range m.found[n].depends {
			one.found[d] = m.found[d]
			take(d)
		}
	}
	take(name)
	order := one.Order()
	for i, j := 0, len(order)-1; i < j; i, j = i+1, j-1 {
		order[i], order[j] = order[j], order[i]
	}
	return order
}
