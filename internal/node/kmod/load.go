//go:build linux

package kmod

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// loadModule loads a module of a catalogue, what it needs first. The catalogue
// must have resolved it. A module is tried once; the answer is remembered.
func (s *session) loadModule(ctx context.Context, c *catalogue, name string) error {
	return s.loadAfter(ctx, c, name, nil)
}

// loadAfter is loadModule for a module that those in chain need.
func (s *session) loadAfter(ctx context.Context, c *catalogue, name string, chain []string) error {
	if err, done := c.done[name]; done {
		return err
	}
	if slices.Contains(chain, name) {
		return &Error{
			Op: "order dependencies in", Module: chain[0], File: c.label("modules.dep"),
			Err:    fmt.Errorf("they go in a circle: %s", strings.Join(append(chain, name), " needs ")),
			Remedy: "run depmod when the image is built",
		}
	}
	if len(chain) >= deepest {
		return &Error{
			Op: "order dependencies in", Module: chain[0], File: c.label("modules.dep"),
			Err: fmt.Errorf("more than %d deep", deepest),
		}
	}
	err := s.loadWithNeeds(ctx, c, name, append(chain, name))
	if ctx.Err() == nil {
		c.done[name] = err
	}
	return err
}

func (s *session) loadWithNeeds(ctx context.Context, c *catalogue, name string, chain []string) error {
	d := c.deps[name]
	if d.file == "" {
		return &Error{
			Op: "find in", Module: name, File: c.label("modules.dep"), Err: fs.ErrNotExist,
			Remedy: "modules.alias and modules.dep are not of one depmod run",
		}
	}
	if s.isLive(name) {
		return nil
	}
	// What is merely better to have first may fail, but then is part of the
	// answer if the module fails as well.
	var soft string
	for _, n := range c.soft[name] {
		if c.deps[n].file != "" && !slices.Contains(chain, n) {
			if err := s.loadAfter(ctx, c, n, chain); err != nil {
				soft += "; before it: " + strings.TrimPrefix(err.Error(), "kmod: ")
			}
		}
	}
	for _, n := range slices.Backward(d.needs) {
		if err := s.loadAfter(ctx, c, n, chain); err != nil {
			return &Error{Op: "load what it needs", Module: name, Err: err}
		}
	}
	if ctx.Err() != nil {
		return s.interrupted(ctx)
	}
	s.state.set("loading " + name)
	begin := time.Now()
	loaded, fault := s.insert(c, name, d.file)
	if fault != nil {
		fault.Remedy += soft
		return fault
	}
	if loaded {
		s.report.Loaded = append(s.report.Loaded, Module{Name: name, File: c.label(d.file), Took: time.Since(begin)})
	}
	return nil
}

// isLive reports whether the kernel has the module already. One that is built in
// has a directory without initstate, or no directory; one that is just being
// loaded by another is left to the kernel to wait for.
func (s *session) isLive(name string) bool {
	state, err := readShort(filepath.Join(s.cfg.Sys, "module", name, "initstate"))
	if err != nil {
		_, err := os.Stat(filepath.Join(s.cfg.Sys, "module", name))
		return err == nil
	}
	return strings.TrimSpace(state) == "live"
}

// insert gives a module's file to the kernel. It reports false if the kernel had
// the module already.
func (s *session) insert(c *catalogue, name, file string) (loaded bool, fault *Error) {
	label := c.label(file)
	f, err := c.root.open(file)
	if err != nil {
		e := &Error{Op: "open", Module: name, File: label, Err: err}
		if errors.Is(err, fs.ErrNotExist) {
			e.Remedy = "modules.dep names it: put it into the image, or run depmod again"
		}
		return false, e
	}
	defer f.Close() // read only: nothing to lose
	format, err := formatOf(f)
	if err != nil {
		return false, &Error{Op: "read", Module: name, File: label, Err: err, Remedy: "the file is damaged: build the image again"}
	}
	op, args := "finit_module", params(s.cfg.CommandLine, name)
	if format == plain {
		err = retry(func() error { return s.sys.finitModule(int(f.Fd()), args) })
	} else {
		// The kernel can decompress by itself only as it was configured, and to one
		// format; and finit_module refuses a memfd that is open for writing.
		var image bytes.Buffer
		if err := decompress(&image, f, format, largest); err != nil {
			return false, &Error{
				Op: "decompress", Module: name, File: label, Err: err,
				Remedy: "the file is damaged: build the image again",
			}
		}
		op = "init_module"
		err = retry(func() error { return s.sys.initModule(image.Bytes(), args) })
	}
	switch {
	case errors.Is(err, unix.EEXIST):
		return false, nil
	case err != nil:
		return false, &Error{Op: op, Module: name, File: label, Err: err, Remedy: remedy(err, s.cfg.Release)}
	}
	return true, nil
}

// retry repeats a system call that a signal interrupted, as the Go runtime's own
// signals do.
func retry(call func() error) error {
	for range 16 {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	return unix.EINTR
}

// remedy says what an operator can do about an errno of init_module(2) and
// finit_module(2); see kernel/module/main.c for who returns which.
func remedy(err error, release string) string {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return ""
	}
	switch errno {
	case unix.ENOEXEC:
		return "not a module for kernel " + release + ": kernel and modules must be of one build"
	case unix.EKEYREJECTED, unix.ENOKEY, unix.EBADMSG, unix.ENOPKG:
		return "its signature does not fit this kernel's key: kernel and modules must be of one build"
	case unix.EPERM:
		return "loading modules is forbidden: look for lockdown=, module_blacklist=, kernel.modules_disabled, or a missing CAP_SYS_MODULE"
	case unix.ENOENT:
		return "it wants a symbol that nothing loaded has: run depmod when the image is built"
	case unix.ENOSYS:
		return "this kernel has no loadable modules: build the driver in"
	case unix.ENODEV, unix.ENXIO:
		return "the driver found no device of its own"
	case unix.ENOMEM:
		return "the machine is short of memory"
	case unix.EBUSY:
		return "another process is loading it"
	default:
		return "see the kernel's log"
	}
}
