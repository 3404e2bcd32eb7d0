//go:build linux

package kmod

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// deepest bounds chains of dependencies. Real ones have fewer than ten links.
const deepest = 64

// catalogue is a directory of modules made by depmod, for one kernel release.
type catalogue struct {
	root *root
	open func(name string) (io.ReadCloser, error) // one of depmod's files
	dir  string                                   // within root, such as "/lib/modules/6.12.5-talos"
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
		c.open = func(name string) (io.ReadCloser, error) { return r.open(path.Join(c.dir, name)) }
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

// read calls fn with each line of a file of the catalogue until it returns false.
func (c *catalogue) read(ctx context.Context, name string, fn func(line []byte) bool) error {
	f, err := c.open(name)
	if err == nil {
		err = eachLine(ctx, f, fn)
		_ = f.Close() // only ever read
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
	err := c.read(ctx, "modules.alias", func(line []byte) bool {
		// Tens of thousands of lines, so nothing is allocated for one that fits not.
		rest, ok := bytes.CutPrefix(line, []byte("alias "))
		if !ok {
			return true
		}
		pattern, module, ok := bytes.Cut(rest, []byte(" "))
		if !ok {
			return true
		}
		for _, d := range devices {
			if match(pattern, d.Modalias) {
				name := moduleName(string(module))
				if !slices.Contains(found[d.Modalias], name) {
					found[d.Modalias] = append(found[d.Modalias], name)
				}
			}
		}
		return true
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
		asked := slices.Collect(maps.Keys(want))
		var scratch []byte
		err := c.read(ctx, "modules.dep", func(line []byte) bool {
			file, needs, ok := bytes.Cut(line, []byte(":"))
			if !ok {
				return true
			}
			scratch = appendModuleName(scratch[:0], file)
			if !want[string(scratch)] {
				return true
			}
			d := dep{file: c.resolvePath(string(file))}
			for _, n := range bytes.Fields(needs) {
				d.needs = append(d.needs, moduleName(string(n)))
			}
			c.deps[string(scratch)] = d
			delete(want, string(scratch))
			return len(want) > 0
		})
		if err != nil {
			return err
		}
		clear(want)
		for _, name := range asked {
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
	err := c.read(ctx, "modules.softdep", func(line []byte) bool {
		fields := strings.Fields(string(line))
		if len(fields) < 3 || fields[0] != "softdep" {
			return true
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
		return true
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	c.soft = soft
	return nil
}

// moduleName makes the name of a module of its file's: the part before the first
// ".ko", with _ for -, as the kernel has it.
func moduleName(file string) string { return string(appendModuleName(nil, []byte(file))) }

// appendModuleName appends what moduleName returns to buf.
func appendModuleName(buf, file []byte) []byte {
	file = bytes.TrimSpace(file)
	file = file[bytes.LastIndexByte(file, '/')+1:]
	if i := bytes.Index(file, []byte(".ko")); i > 0 {
		file = file[:i]
	}
	for _, c := range file {
		buf = append(buf, dash(c))
	}
	return buf
}
