package kmod

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// deepest bounds chains of dependencies. Real ones have fewer than ten links.
const deepest = 64

// catalogue is a directory of modules made by depmod, for one kernel release.
type catalogue struct {
	root *root
	dir  string // within root, such as "/lib/modules/6.12.5-talos"
	deps map[string]dep
	soft map[string][]string // modules.softdep, what comes before; nil until read
	done map[string]error    // modules that were loaded, or not
}

// dep is a line of modules.dep.
type dep struct {
	file  string   // within the root; empty if modules.dep has no such module
	needs []string // names, in the order of the line: the last is loaded first
}

// findCatalogue finds the modules of a release.
func findCatalogue(r *root, release string) (*catalogue, error) {
	var others []string
	for _, modules := range []string{"/lib/modules", "/usr/lib/modules"} {
		c := &catalogue{root: r, dir: path.Join(modules, release), done: map[string]error{}, deps: map[string]dep{}}
		f, err := r.open(path.Join(c.dir, "modules.dep"))
		if err == nil {
			return c, f.Close()
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, &Error{Op: "open", File: c.label("modules.dep"), Err: err}
		}
		if r.isDir(c.dir) {
			return nil, &Error{
				Op: "open", File: c.label("modules.dep"), Err: err,
				Remedy: "run depmod for " + release + " when the image is built",
			}
		}
		others = append(others, r.list(modules)...)
	}
	e := &Error{Op: "find modules for kernel " + release + " in", File: r.label + "/lib/modules", Err: fs.ErrNotExist}
	if len(others) > 0 {
		slices.Sort(others)
		others = slices.Compact(others)
		e.Err = fmt.Errorf("only those for %s: %w", strings.Join(others[:min(len(others), 4)], ", "), fs.ErrNotExist)
		e.Remedy = "build the image with kernel and modules of one version"
	}
	return nil, e
}

// label names a file of the catalogue for messages.
func (c *catalogue) label(file string) string { return c.root.label + c.resolvePath(file) }

// resolvePath turns a path of modules.dep, which is relative to the catalogue
// unless the module lies elsewhere, into one within the root.
func (c *catalogue) resolvePath(file string) string {
	if path.IsAbs(file) {
		return path.Clean(file)
	}
	return path.Join(c.dir, file)
}

// read calls fn with each line of a file of the catalogue.
func (c *catalogue) read(ctx context.Context, name string, fn func(line []byte)) error {
	f, err := c.root.open(c.resolvePath(name))
	if err == nil {
		err = eachLine(ctx, f, fn)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return &Error{
			Op: "read", File: c.label(name), Err: err,
			Remedy: "run depmod when the image is built",
		}
	}
	return nil
}

// claims returns, by modalias, the modules whose aliases match it, in the order
// of modules.alias ("alias PATTERN MODULE").
func (c *catalogue) claims(ctx context.Context, devices []Device) (map[string][]string, error) {
	found := map[string][]string{}
	err := c.read(ctx, "modules.alias", func(line []byte) {
		fields := bytes.Fields(line)
		if len(fields) != 3 || string(fields[0]) != "alias" {
			return
		}
		for _, d := range devices {
			if match(string(fields[1]), d.Modalias) {
				name := moduleName(string(fields[2]))
				if !slices.Contains(found[d.Modalias], name) {
					found[d.Modalias] = append(found[d.Modalias], name)
				}
			}
		}
	})
	return found, err
}

// resolve reads into c.deps what modules.dep says of the named modules and of all
// that they need. depmod lists every module that one needs in its line, busybox's
// only the direct ones; so the file is read until nothing new is asked for.
func (c *catalogue) resolve(ctx context.Context, names []string) error {
	if err := c.readSoftdeps(ctx); err != nil {
		return err
	}
	want := map[string]bool{}
	ask := func(names []string) {
		for _, n := range names {
			if _, known := c.deps[n]; !known {
				want[n] = true
			}
		}
	}
	ask(names)
	for depth := 0; len(want) > 0; depth++ {
		if depth > deepest {
			return &Error{Op: "read", File: c.label("modules.dep"), Err: fmt.Errorf("dependencies more than %d deep", deepest)}
		}
		err := c.read(ctx, "modules.dep", func(line []byte) {
			file, needs, ok := bytes.Cut(line, []byte(":"))
			if !ok {
				return
			}
			name := moduleName(string(file))
			if !want[name] || c.deps[name].file != "" {
				return
			}
			d := dep{file: c.resolvePath(string(file))}
			for _, n := range bytes.Fields(needs) {
				d.needs = append(d.needs, moduleName(string(n)))
			}
			c.deps[name] = d
		})
		if err != nil {
			return err
		}
		asked := want
		want = map[string]bool{}
		for name := range asked {
			d, ok := c.deps[name]
			if !ok {
				c.deps[name] = dep{} // not there; do not look again
				continue
			}
			ask(d.needs)
			ask(c.soft[name])
		}
	}
	return nil
}

// readSoftdeps reads what modules.softdep ("softdep MODULE pre: … post: …") wants
// before a module. Not every catalogue has the file.
func (c *catalogue) readSoftdeps(ctx context.Context) error {
	if c.soft != nil {
		return nil
	}
	soft := map[string][]string{}
	err := c.read(ctx, "modules.softdep", func(line []byte) {
		fields := strings.Fields(string(line))
		if len(fields) < 3 || fields[0] != "softdep" {
			return
		}
		pre := false
		for _, f := range fields[2:] {
			switch f {
			case "pre:":
				pre = true
			case "post:":
				pre = false
			default:
				if name := moduleName(fields[1]); pre {
					soft[name] = append(soft[name], moduleName(f))
				}
			}
		}
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	c.soft = soft
	return nil
}

// moduleName makes the name of a module of its file's: the part before the first
// ".ko", with _ for -, as the kernel has it.
func moduleName(file string) string {
	name := path.Base(strings.TrimSpace(file))
	if i := strings.Index(name, ".ko"); i > 0 {
		name = name[:i]
	}
	return strings.ReplaceAll(name, "-", "_")
}
