//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/dmi"
	"github.com/nametag-boot/nametag/identity/hetzner"
	"github.com/nametag-boot/nametag/internal/node/handover"
	"github.com/nametag-boot/nametag/internal/node/links"
	"github.com/nametag-boot/nametag/internal/node/memory"
	"github.com/nametag-boot/nametag/internal/node/progress"
	"github.com/nametag-boot/nametag/procfs"
)

const resolveUsage = `nametag resolve finds this server's name and prints it.

It takes a network interface that may be down and bare, brings up a minimal link, asks the metadata service of Hetzner
Cloud, checks the answer, prints the name on standard output and undoes what it did to the network. Progress goes to
standard error. It needs root, or CAP_NET_ADMIN and CAP_NET_RAW, and CAP_DAC_READ_SEARCH for the serial number that proves
the answer (or --expect-id, or --id unproven).

Usage:
  nametag resolve [flags]

Flags:
  --wait VALUE[,KEY=VALUE…]  how long to wait, in the syntax of the kernel argument talos.hostname.wait=
                             (90s, 2m, forever; keys nic, via, keep, known, rename, id); default 5m
  --nic NIC                  a MAC, an interface name or a glob; may be repeated; one named exactly is taken
                             whatever kind of Ethernet it is; default every physical Ethernet NIC
  --via METHOD               linklocal, dhcp or ipv6; may be repeated; default linklocal and dhcp
  --keep WHAT                none: undo everything; network: leave the link, address and routes; default none
  --host-network             ask over the network the system already has; no link is touched, so not with --nic,
                             --via or --keep
  --output FORMAT            hostname: the name alone; json: all that is known; env: shell assignments
  --log FORMAT               auto: a live line on a terminal, else plain lines; plain; json; off
  --id WHAT                  proven: the answer must have this machine's DMI serial number as its instance id, or the
                             one that is expected; unproven: without a serial number that can be read, take it all
                             the same; default proven
  --expect-id ID             this server's instance id, given by hand: an answer must have it
  --dmi DIR                  read the machine's DMI facts here; default $NAMETAG_DMI or /sys/class/dmi/id
  --root DIR                 the system's root, where nametag apply keeps the name of an earlier boot; default /

Where the name is known from an earlier boot and the service gives none for 15s (known=), that one is printed, and
standard error says so.

Exit status:
  0  the name was found and printed        4  this is not a server of Hetzner Cloud
  1  another failure, as printed           5  no permission: the capabilities are missing
  2  bad usage                             6  interrupted by SIGINT, SIGTERM or SIGHUP
  3  timed out without a valid name

Example:
  name=$(nametag resolve --wait 30s) && hostname "$name"
`

// resolveFlags is the command line of `nametag resolve`, understood.
type resolveFlags struct {
	policy      procfs.Policy
	hostNetwork bool
	output      string
	log         progress.Format
	dmiDir      string
	root        string // below which the name of an earlier boot is remembered
	expectID    string
}

// parseResolve reads the flags of `nametag resolve`.
func parseResolve(args []string) (resolveFlags, error) {
	var f resolveFlags
	var logFormat, keep, id string
	var nics, via []string
	wait := "on"

	set := flag.NewFlagSet("resolve", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.StringVar(&wait, "wait", wait, "")
	set.Func("nic", "", func(s string) error { nics = append(nics, s); return nil })
	set.Func("via", "", func(s string) error { via = append(via, s); return nil })
	set.StringVar(&keep, "keep", "", "")
	set.BoolVar(&f.hostNetwork, "host-network", false, "")
	set.StringVar(&f.output, "output", "hostname", "")
	set.StringVar(&logFormat, "log", "auto", "")
	set.StringVar(&f.dmiDir, "dmi", "", "")
	set.StringVar(&f.root, "root", "/", "")
	set.Func("expect-id", "", func(s string) error {
		if f.expectID = s; s == "" { // a script's variable that was never set, perhaps: nothing would be compared
			return errors.New("give this server's number")
		}
		return nil
	})
	set.StringVar(&id, "id", "", "")
	if err := set.Parse(args); err != nil {
		return f, &usageError{err}
	}
	if set.NArg() > 0 {
		return f, &usageError{fmt.Errorf("resolve takes flags only, not %q", set.Arg(0))}
	}

	// The single flags are the argument's keys by another name: one parser checks both.
	if keep != "" {
		wait += ",keep=" + keep
	}
	if id != "" {
		wait += ",id=" + id
	}
	for _, s := range nics {
		wait += ",nic=" + s
	}
	for _, s := range via {
		wait += ",via=" + s
	}
	var err error
	if f.policy, err = procfs.ParsePolicy(wait); err != nil {
		return f, &usageError{err}
	}
	if err := f.useless(wait); err != nil {
		return f, &usageError{err}
	}
	if f.policy.Mode == procfs.Off {
		return f, &usageError{errors.New("--wait off: there is nothing to do; give a bound such as 30s, or leave the flag out")}
	}
	if f.log, err = progress.ParseFormat(logFormat); err != nil {
		return f, &usageError{fmt.Errorf("--log: %w", err)}
	}
	switch f.output {
	case "hostname", "json", "env":
	default:
		return f, &usageError{fmt.Errorf("--output %s: choose hostname, json or env", f.output)}
	}
	return f, nil
}

// useless refuses what would have no effect: whoever writes it expects one. wait is all that was asked for, in the syntax
// of the kernel argument.
func (f resolveFlags) useless(wait string) error {
	for field := range strings.SplitSeq(wait, ",") {
		switch key, _, _ := strings.Cut(strings.TrimSpace(field), "="); key {
		case "then":
			return errors.New("then= is for a boot; resolve ends with exit status 3 when the time is up: leave it out")
		case "nic", "via", "keep":
			if f.hostNetwork {
				return fmt.Errorf("--host-network touches no link, so that %s= or --%s says nothing: leave one of the two out", key, key)
			}
		}
	}
	return nil
}

// runResolve is `nametag resolve`: flags in, the name on stdout.
func runResolve(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f, err := parseResolve(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, resolveUsage)
		return nil
	}
	if err != nil {
		return err
	}

	ctx, cancel := f.policy.WithDeadline(ctx, time.Now())
	defer cancel()
	facts, err := dmi.Read(f.dmiDir)
	if err != nil {
		return err
	}

	line := progress.New(stderr, f.log)
	warn := func(text string) {
		line.Pause()
		fmt.Fprintf(stderr, "nametag: %s\n", text)
	}
	search := memory.Search{Policy: f.policy, Instance: cmp.Or(f.expectID, facts.Serial), Warn: warn}
	if _, counts := f.policy.KnownAfter(); counts {
		known := make(chan memory.Recall, 1)
		known <- memory.RecallFile(f.root, search.Instance)
		search.Memory = known
		search.Ready = make(chan struct{}) // it is there already
	}
	r, err := links.Resolver(f.policy, links.Shared)
	if err != nil {
		return &usageError{err}
	}
	r.Source, r.Facts, r.ExpectID = hetzner.Source(), &facts, f.expectID
	r.Host, r.Minimal = f.hostNetwork, f.output == "hostname"
	path, up := make(chan struct{}), new(sync.Once)
	search.Path = path
	r.OnEvent = func(e identity.Event) {
		if e.Kind == identity.EventTrying {
			up.Do(func() { close(path) })
		}
		line.Show(e)
	}
	var printErr error
	printed := false
	if f.output == "hostname" && f.policy.Rename != procfs.RenameStop {
		// The name is printed the moment it is proven: whoever waits for it need not wait for the link to be undone.
		r.OnName = func(id identity.Identity) {
			line.Pause()
			printed = true
			_, printErr = io.WriteString(stdout, id.Hostname+"\n")
		}
	}

	search.Ask = r.Resolve
	outcome, err := search.Run(ctx)
	if said := outcome.Sentence(); said != "" {
		warn(said)
	}
	line.Close()
	_, unproven := errors.AsType[*identity.UnprovenError](err)
	switch {
	case unproven:
		return fmt.Errorf("%w; --expect-id ID gives this server's number by hand, --id unproven takes an answer all the same", err)
	case err != nil:
		return err
	case f.output != "hostname":
		return write(stdout, f.output, outcome.Identity)
	case !printed:
		_, printErr = io.WriteString(stdout, outcome.Identity.Hostname+"\n")
	}
	return printErr
}

// exitStatus is the exit status that an error of this command stands for.
func exitStatus(err error) int {
	var (
		usage      *usageError
		timedOut   *identity.TimeoutError
		notPresent *identity.NotPresentError
		renamed    *memory.RenamedError
		own        *statusError
	)
	switch {
	case errors.As(err, &own):
		return own.code
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &notPresent):
		return exitNotPresent
	case errors.Is(err, earlynet.ErrPermission), errors.Is(err, handover.ErrPermission):
		return exitPermission
	case errors.As(err, &timedOut) && timedOut.Timeout(), errors.As(err, &renamed):
		return exitTimedOut
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	return exitFailed
}
