//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/dmi"
	"github.com/nametag-boot/nametag/identity/hetzner"
	"github.com/nametag-boot/nametag/internal/node/apply"
	"github.com/nametag-boot/nametag/internal/node/handover"
	"github.com/nametag-boot/nametag/internal/node/kmsg"
	"github.com/nametag-boot/nametag/internal/node/lasting"
	"github.com/nametag-boot/nametag/internal/node/links"
	"github.com/nametag-boot/nametag/internal/node/systemd"
	"github.com/nametag-boot/nametag/procfs"
)

const applyUsage = `nametag apply gives this system its name: it waits for it as the kernel argument nametag.wait= says, sets the hostname,
writes /run/nametag/identity.json, and puts the name where the system keeps it: in /etc/hostname, if that can be written.

A name that an operator gave, on the kernel command line or in /etc/hostname, ends the matter. So does a record of this
boot that is there already, from the initramfs. Done again it changes nothing. It is what the unit nametag.service runs,
and the hooks of dracut, initramfs-tools and mkinitcpio.

It needs root: beside what nametag resolve needs, CAP_SYS_ADMIN to set the hostname, and the right to write /run and /etc.

Usage:
  nametag apply [flags]

Flags:
  --wait VALUE[,KEY=VALUE…]  the policy, instead of the kernel argument's
  --root DIR                 the system whose name it is; default /sysroot in an initrd of systemd, else /
  --no-root                  there is no such system yet: set the hostname and write the record, and leave the rest to a
                             later apply of this boot
  --at-boot                  where there is no name in time, do what the policy's then= says. systemd does it where it
                             runs this, by the unit's FailureAction=; without systemd, nametag does
  --dmi DIR                  read the machine's DMI facts here; default /sys/class/dmi/id

Exit status:
  0  the name is in effect, or there is nothing to do       4  never: another cloud is nothing to do
  1  another failure, as printed                            5  no permission: the capabilities are missing
  2  bad usage                                              6  interrupted by SIGINT, SIGTERM or SIGHUP
  3  timed out without a valid name

Example:
  nametag apply --wait 30s
`

// applyFlags is the command line of `nametag apply`, understood.
type applyFlags struct {
	wait   *string
	root   string
	noRoot bool
	atBoot bool
	dmi    string
}

func parseApply(args []string) (applyFlags, error) {
	var f applyFlags
	set := flag.NewFlagSet("apply", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.Func("wait", "", func(s string) error { f.wait = &s; return nil })
	set.StringVar(&f.root, "root", "", "")
	set.BoolVar(&f.noRoot, "no-root", false, "")
	set.BoolVar(&f.atBoot, "at-boot", false, "")
	set.StringVar(&f.dmi, "dmi", "", "")
	if err := set.Parse(args); err != nil {
		return f, &usageError{err}
	}
	if set.NArg() > 0 {
		return f, &usageError{fmt.Errorf("apply takes flags only, not %q", set.Arg(0))}
	}
	if f.noRoot && f.root != "" {
		return f, &usageError{errors.New("--root and --no-root contradict each other")}
	}
	return f, nil
}

// line is what decides: the kernel's command line, with the policy of --wait where that is given. mistake is what is
// wrong with the kernel's argument.
func (f applyFlags) line() (line procfs.CommandLine, mistake, err error) {
	line, err = procfs.Read()
	var malformed *procfs.Error
	if errors.As(err, &malformed) {
		mistake, err = err, nil
	}
	if err != nil || f.wait == nil {
		return line, mistake, err
	}
	line.Present = true
	if line.Policy, err = procfs.ParsePolicy(*f.wait); err != nil {
		return line, nil, &usageError{err}
	}
	return line, nil, nil
}

// inInitrd reports whether this is an initrd that systemd will switch from (systemd's initrd interface).
func inInitrd() bool {
	_, err := os.Stat("/etc/initrd-release")
	return err == nil
}

// sysroot is where an initrd of systemd has the real root.
const sysroot = "/sysroot"

func (f applyFlags) rootDir() lasting.Root {
	switch {
	case f.noRoot:
		return ""
	case f.root != "":
		return lasting.Root(f.root)
	case inInitrd():
		return sysroot
	}
	return "/"
}

// runApply is `nametag apply`.
func runApply(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f, err := parseApply(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, applyUsage)
		return nil
	}
	if err != nil {
		return err
	}
	line, mistake, err := f.line()
	if err != nil {
		return err
	}
	facts, err := dmi.Read(f.dmi)
	if err != nil && !f.atBoot {
		return err
	}
	hostname, _ := os.Hostname() // it is needed for one thing, see there
	c := apply.Config{
		Hostname: hostname, Root: f.rootDir(), RunDir: lasting.Run, Line: line, Mistake: mistake, Instance: facts.Serial, AtBoot: f.atBoot, Managed: systemd.Managed(),
		SetHostname: handover.SetHostname, UnsetHostname: handover.UnsetHostname, Reporter: apply.Shell{W: stderr},
		Find: func(ctx context.Context, policy procfs.Policy, observe func(identity.Event)) (*identity.Identity, error) {
			r, err := links.Resolver(policy, links.Shared)
			if err != nil {
				return nil, err
			}
			given := facts
			if line.Platform != "" && facts.Cloud() == "" { // it is ours, and not known to be another's: the operator knows more
				given.Vendor = ""
			}
			r.Source, r.Facts, r.OnEvent = hetzner.Source(), &given, observe
			return r.Resolve(ctx)
		},
	}
	if f.atBoot {
		err = applyAtBoot(ctx, c, args, err)
	} else {
		err = c.Do(ctx)
	}
	if err == nil {
		systemd.Ready()
	}
	return err
}

// applyWorkerName is what this program is called as the process that asks for the name of a boot.
const applyWorkerName = "nametag-apply-worker"

// applyAtBoot does it under a service manager, or in an initramfs, which have nothing but this process to go by: it lives on
// where the one that meets the network has died. noFacts is why there are no facts of the machine, or nil.
func applyAtBoot(ctx context.Context, c apply.Config, args []string, noFacts error) error {
	console := kmsg.Open("nametag")
	defer console.Close()
	c.Reporter = apply.Service{Console: console}
	_, vmcore := os.Stat("/proc/vmcore") // the memory of the kernel that crashed, and there only then
	c.Capture = vmcore == nil
	c.Enforce = func(ctx context.Context, then procfs.Then, why string) error {
		return handover.Enforce(ctx, then, console, enforceIn, why)
	}
	if os.Args[0] == applyWorkerName {
		working, stop, order, err := apply.Working(ctx)
		if err != nil {
			return err
		}
		defer stop()
		return c.By(order).Do(working)
	}
	alive, stop := context.WithCancel(ctx)
	defer stop()
	systemd.KeepStarting(alive)
	if noFacts != nil {
		console.Warnf("%v; going on without these facts", noFacts)
	}
	repair := func() {
		err := links.Repair(context.WithoutCancel(ctx), func(e earlynet.Event) { console.Debugf("%v", e) })
		if err != nil && !errors.Is(err, earlynet.ErrPermission) { // which whoever asks will be told
			console.Warnf("the links may not be as they were: %v", err)
		}
	}
	if c.Line.Present { // the initramfs may have used links
		repair()
	}
	return c.Apart(ctx, func(working context.Context, order apply.Order) error {
		status, err := apply.Work(working, applyWorkerName, append([]string{"apply"}, args...), order)
		if status == exitInterrupted && working.Err() == nil {
			err = &apply.DiedError{How: errors.New("it was told to end, and nobody told us")}
		}
		var died *apply.DiedError
		switch {
		case errors.As(err, &died), err != nil && working.Err() != nil: // it was killed
			repair()
			return err
		case err != nil:
			console.Warnf("asking in this process, for want of another: %v", err)
			return c.By(order).Do(ctx)
		case status != exitOK:
			return &statusError{code: status} // the worker has said why
		}
		return nil
	})
}

// enforceIn is how long a reboot or power-off is announced before it comes.
const enforceIn = 3 * time.Second

// generatorName is what this program is called as systemd's generator.
const generatorName = "nametag-generator"

// isGenerator reports whether systemd runs this program as its generator.
func isGenerator() bool { return filepath.Base(os.Args[0]) == generatorName }

// runGenerator is that: systemd gives three folders, of which the first is for what is between the operator's and the
// distribution's own.
func runGenerator(args []string, stderr io.Writer) int {
	if len(args) != 3 {
		fmt.Fprintf(stderr, "%s: systemd runs this with three folders\n", generatorName)
		return exitUsage
	}
	line, err := procfs.Read()
	var malformed *procfs.Error
	if err != nil && !errors.As(err, &malformed) { // the mistake is told by the service
		fmt.Fprintf(stderr, "%s: %v\n", generatorName, err)
		return exitFailed
	}
	if err := systemd.Generate(args[0], line, inInitrd()); err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", generatorName, err)
		return exitFailed
	}
	return exitOK
}
