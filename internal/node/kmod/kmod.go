//go:build linux

// Package kmod loads the kernel modules without which a machine has no network
// interface, early at boot, when there is no udev and no modprobe.
//
// It looks at the network devices on the PCI and virtio buses that no driver has
// taken, finds what their modaliases ask for in modules.alias, and loads that
// with what modules.dep says it needs. virtio_pci makes new devices appear, with
// modaliases of their own, so it looks again until there is nothing left to do.
//
// The modules come from /lib/modules of the initramfs, or else from the squashfs
// image that the operating system will mount as its root. The image is mounted
// detached (fsopen(2), fsmount(2)): it never shows in a mount table, there is no
// mount point to make or to leave behind, and the kernel drops mount and loop
// device by itself should the process end half-way.
//
// Where the caller asks for it, the same is done for the controllers of disks, after the
// network devices, and for the disks' file system: a node keeps its name on a disk.
//
// Only these drivers are loaded, what they depend on, and, where the image has
// to be mounted and these are modules in the initramfs, loop and squashfs.
// Parameters on the kernel command line (virtio_net.napi_tx=0) are passed on, as
// modprobe does: whoever boots next finds the module loaded and cannot give them.
// What modprobe.blacklist= there names is not loaded for a device.
// What is not done: install and options lines of modprobe.d, post softdeps,
// reading modules.*.bin.
//
// # Why not a library
//
// github.com/pmorjan/kmod is small and good at its job, which is modprobe on a
// system that runs. Here it would not do: it matches aliases as plain text, while
// those of devices are patterns; it opens files by path, so the image would have
// to be mounted somewhere and its symbolic links would lead out of it; it drops
// the errors of dependencies; it panics on an empty line in modules.dep, which in
// PID 1 stops the machine; and it knows neither contexts nor bounds.
package kmod

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/joined"
	"github.com/nametag-boot/nametag/internal/kernelarg"
	"github.com/nametag-boot/nametag/internal/node/wait"
	"github.com/nametag-boot/nametag/internal/safely"
)

const (
	// rounds bounds how often the buses are looked at. One for virtio_pci, one for
	// virtio_net, one for a SCSI disk, one to see that nothing is left; the rest is
	// reserve.
	rounds = 8
	// grace is how long Load waits for its worker once the context has ended.
	grace = 5 * time.Millisecond
)

// Config says where things are. The zero value is right for an initramfs with
// /dev and /sys mounted.
type Config struct {
	// Root is the directory of the initramfs. Empty means "/".
	Root string
	// Image is the squashfs with further modules, a path within Root. Empty means
	// "/rootfs.sqsh". It need not exist.
	Image string
	// Release is the kernel's. Empty means that of the running one.
	Release string
	// Sys and Dev are where sysfs and devtmpfs are mounted. Empty means "/sys" and
	// "/dev".
	Sys, Dev string
	// CommandLine is the kernel command line, for the modules' parameters.
	CommandLine string
	// Disks asks for the drivers of disks too. A disk that no module claims is not an
	// error: its driver may be built in, or nobody needs it.
	Disks bool
	// FileSystems are those that a disk is to be read by, such as "xfs", with Disks.
	FileSystems []string
}

// Loader loads modules. Make one with [New]. It may be used from several
// goroutines; one Load runs at a time.
type Loader struct {
	cfg   Config
	sys   sys
	turn  chan struct{}   // holds one token while a worker runs
	tried map[string]bool // devices, by key, that an attempt was made for; the worker's
	state *progress       // what the worker is at
}

// Report is what a Load found and did.
type Report struct {
	// Devices are the network devices on the PCI and virtio buses, as they were
	// at the end, and with Config.Disks the controllers of disks.
	Devices []Device
	// Loaded are the modules that were loaded, in order. Those that were there
	// before are not among them.
	Loaded []Module
}

// Module is a module that was loaded.
type Module struct {
	Name string        // such as "virtio_net"
	File string        // where it came from, such as "/rootfs.sqsh:/lib/modules/…/virtio_net.ko.xz"
	Took time.Duration // reading, decompressing, loading, and its drivers' probing
}

// New returns a Loader. It touches nothing yet.
func New(cfg Config) *Loader {
	set := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	set(&cfg.Root, "/")
	set(&cfg.Image, "/rootfs.sqsh")
	set(&cfg.Sys, "/sys")
	set(&cfg.Dev, "/dev")
	return &Loader{
		cfg:   cfg,
		sys:   kernel{},
		turn:  make(chan struct{}, 1),
		tried: map[string]bool{},
		state: new(progress),
	}
}

// Load loads what the network devices without a driver ask for. It is cheap when
// there is nothing to do, so it may be called again and again while waiting for a
// device to be plugged in. For each device one attempt is made, until it is
// plugged in anew, and its error is returned once.
//
// The error joins one [*Error] for each device or object that is at fault; the
// Report tells what was done all the same. No network device at all is not an
// error: see Report.Devices. When the context ends, Load returns within
// milliseconds. If a driver is just being probed, which nothing can interrupt,
// that module finishes loading on its own, after which the image is unmounted; a
// further Load waits for this.
func (l *Loader) Load(ctx context.Context) (Report, error) {
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return Report{}, l.interrupted(ctx)
	}
	if err := ctx.Err(); err != nil {
		<-l.turn
		return Report{}, l.interrupted(ctx)
	}
	type result struct {
		report Report
		err    error
	}
	done := make(chan result, 1)
	end := func(r result) {
		l.state.set("")
		<-l.turn
		done <- r
	}
	safely.Go("loading drivers", func() {
		report, err := l.load(ctx)
		end(result{report, err})
	}, func(err error) { end(result{err: fmt.Errorf("kmod: %w", err)}) })
	select {
	case r := <-done:
		return r.report, r.err
	case <-ctx.Done():
	}
	if r, came := wait.For(done, grace); came {
		return r.report, r.err
	}
	return Report{}, l.interrupted(ctx)
}

// interrupted says that the context ended, and during what.
func (l *Loader) interrupted(ctx context.Context) error {
	e := &Error{Op: "interrupted", Err: context.Cause(ctx)}
	if at := l.state.get(); at != "" {
		e.Op = "interrupted while " + at
	}
	return e
}

// load is Load without its goroutine.
func (l *Loader) load(ctx context.Context) (report Report, err error) {
	if l.cfg.Release == "" {
		if l.cfg.Release, err = runningRelease(); err != nil {
			return report, err
		}
	}
	s := &session{Loader: l, report: &report}
	defer func() { err = joined.Errors(err, s.close()) }()
	for range rounds {
		if report.Devices, err = scan(l.cfg.Sys, l.cfg.Disks); err != nil {
			return report, joined.Errors(append(s.errs, err)...)
		}
		all := report.Devices
		if l.cfg.Disks {
			all = withFileSystems(l.cfg.Sys, l.cfg.FileSystems, all)
		}
		todo := l.untried(all)
		if len(todo) == 0 {
			return report, joined.Errors(s.errs...)
		}
		if err := s.serve(ctx, todo); err != nil {
			return report, joined.Errors(append(s.errs, err)...)
		}
		for _, d := range todo {
			l.tried[d.key()] = true
		}
	}
	return report, joined.Errors(append(s.errs, &Error{
		Op:     "settle",
		Err:    fmt.Errorf("new devices still appear after %d rounds", rounds),
		Remedy: "see the kernel's log for a device that comes and goes",
	})...)
}

// untried returns the devices that want a driver and were not tried yet, and
// forgets those that are gone, so that one plugged in anew is tried anew.
func (l *Loader) untried(devices []Device) (todo []Device) {
	here := map[string]bool{}
	for _, d := range devices {
		here[d.key()] = true
		if d.Driver == "" && !l.tried[d.key()] {
			todo = append(todo, d)
		}
	}
	for key := range l.tried {
		if !here[key] {
			delete(l.tried, key)
		}
	}
	return todo
}

func runningRelease() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", &Error{Op: "uname", Err: err}
	}
	return unix.ByteSliceToString(u.Release[:]), nil
}

// session is the work of one Load: the catalogues it opened, and the faults.
type session struct {
	*Loader
	report  *Report
	sources []*source
	errs    []error
}

// source is one place where modules may be. It is opened when first needed.
type source struct {
	name    string // for messages
	open    func(context.Context) (*catalogue, error)
	close   func() error
	opened  bool
	cat     *catalogue
	openErr error
}

// get opens the source. Its error is the same each time.
func (s *source) get(ctx context.Context) (*catalogue, error) {
	if !s.opened {
		s.cat, s.openErr = s.open(ctx)
		s.opened = true
	}
	return s.cat, s.openErr
}

// inOrder returns the sources in the order in which they are asked.
func (s *session) inOrder() []*source {
	if s.sources == nil {
		initramfs := &source{name: filepath.Join(s.cfg.Root, "lib/modules")}
		initramfs.open = func(context.Context) (*catalogue, error) {
			root, err := openRoot(s.cfg.Root, "")
			if err != nil {
				return nil, err
			}
			initramfs.close = root.close
			return findCatalogue(root, s.cfg.Release)
		}
		image := &source{name: s.cfg.Image}
		image.open = func(ctx context.Context) (*catalogue, error) {
			s.prepareForImage(ctx, initramfs)
			m, err := s.mountImage(ctx)
			if err != nil {
				return nil, err
			}
			image.close = m.close
			return findCatalogue(m.root, s.cfg.Release)
		}
		s.sources = []*source{initramfs, image}
	}
	return s.sources
}

// prepareForImage loads loop and squashfs where they are modules of the
// initramfs. Where they are not in its modules.dep they are built in or missing,
// and the mount will tell which.
func (s *session) prepareForImage(ctx context.Context, initramfs *source) {
	cat, err := initramfs.get(ctx)
	if err != nil {
		return
	}
	for _, name := range []string{"loop", "squashfs"} {
		if err := cat.resolve(ctx, []string{name}); err != nil || cat.deps[name].file == "" {
			continue
		}
		if err := s.loadModule(ctx, cat, name); err != nil && ctx.Err() == nil {
			s.errs = append(s.errs, err)
		}
	}
}

// serve loads modules for devices. What goes wrong with one of them is added to
// s.errs; the error that is returned ends the whole.
func (s *session) serve(ctx context.Context, devices []Device) error {
	faults := map[string]error{}
	var nowhere []error // why a source could not be used at all
	for _, src := range s.inOrder() {
		if len(devices) == 0 {
			break
		}
		s.state.set("opening " + src.name)
		cat, err := src.get(ctx)
		if ctx.Err() != nil {
			return s.interrupted(ctx)
		}
		if err != nil {
			nowhere = append(nowhere, err)
			continue
		}
		s.state.set("reading " + cat.label("modules.alias"))
		claims, err := cat.claims(ctx, devices)
		if ctx.Err() != nil {
			return s.interrupted(ctx)
		}
		if err != nil {
			nowhere = append(nowhere, err)
			continue
		}
		var left []Device
		for _, p := range planAll(devices, claims, s.denied()) {
			served, err := s.apply(ctx, cat, p)
			if ctx.Err() != nil {
				return s.interrupted(ctx)
			}
			switch key := p.device.key(); {
			case errors.Is(err, errDenied): // in every catalogue alike: once is enough
				faults[key] = err
			case err != nil:
				faults[key] = joined.Errors(faults[key], err)
			}
			if !served {
				left = append(left, p.device)
			}
		}
		devices = left
	}
	for _, d := range devices {
		if err := faults[d.key()]; err != nil {
			s.errs = append(s.errs, err)
			continue
		}
		if d.Disk() {
			continue
		}
		s.errs = append(s.errs, &Error{
			Op:     "find a driver",
			Device: d.String(),
			Err:    &NoDriverError{Modalias: d.Modalias, Release: s.cfg.Release, Places: nowhere},
			Remedy: "build the image with the network drivers of this kernel, and run depmod for it",
		})
	}
	return nil
}

// A plan is what one catalogue has for a device.
type plan struct {
	device Device
	load   []string // the modules that claim it; one that loads is enough
	denied string   // one that claims it and is not to be loaded; empty: there is another, or none
}

// planAll is what to load for each device, of the modules that claim it by its modalias, less those that are denied.
func planAll(devices []Device, claims map[string][]string, denied []string) []plan {
	plans := make([]plan, 0, len(devices))
	for _, d := range devices {
		p := plan{device: d}
		for _, module := range claims[d.Modalias] {
			if !slices.Contains(denied, module) {
				p.load = append(p.load, module)
			}
		}
		if claiming := claims[d.Modalias]; len(claiming) > 0 && len(p.load) == 0 {
			p.denied = claiming[0]
		}
		plans = append(plans, p)
	}
	return plans
}

// apply loads what a plan says, and reports whether the device has its driver by that.
func (s *session) apply(ctx context.Context, cat *catalogue, p plan) (served bool, err error) {
	switch {
	case p.denied != "":
		return false, &Error{
			Op: "load", Module: p.denied, Device: p.device.String(), Err: errDenied,
			Remedy: "take it off the command line if the device is to be used",
		}
	case len(p.load) == 0:
		return false, nil
	}
	if err := s.loadFor(ctx, cat, p.device, p.load); err != nil {
		return false, err
	}
	return true, nil
}

// errDenied is why a module is not loaded that could be.
var errDenied = errors.New("modprobe.blacklist= on the kernel command line names it")

// denied returns the modules that the operator does not want to be loaded for a
// device. As a dependency of another module they are loaded all the same, as modprobe
// does. (module_blacklist= is the kernel's own, and refuses both.)
func (s *session) denied() []string {
	var names []string
	args, _ := kernelarg.Split(s.cfg.CommandLine)
	for _, a := range kernelarg.Named(args, "modprobe.blacklist") {
		for name := range strings.SplitSeq(a.Value, ",") {
			names = append(names, moduleName(name))
		}
	}
	return names
}

// loadFor loads the modules that claim a device. One that loads is enough.
func (s *session) loadFor(ctx context.Context, cat *catalogue, d Device, modules []string) error {
	if err := cat.resolve(ctx, modules); err != nil {
		return err
	}
	var errs []error
	for _, m := range modules {
		if err := s.loadModule(ctx, cat, m); err != nil {
			var e *Error
			if errors.As(err, &e) {
				about := *e // the module's error may be that of several devices
				about.Device = d.String()
				err = &about
			}
			errs = append(errs, err)
		}
	}
	if len(errs) < len(modules) {
		return nil
	}
	return joined.Errors(errs...)
}

// close closes the sources, the last one first.
func (s *session) close() error {
	var errs []error
	for i := len(s.sources) - 1; i >= 0; i-- {
		if c := s.sources[i].close; c != nil {
			errs = append(errs, c())
		}
	}
	return joined.Errors(errs...)
}
