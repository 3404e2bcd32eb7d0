//go:build linux

package apply

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/internal/joined"
	"github.com/nametag-boot/nametag/internal/node/kmsg"
	"github.com/nametag-boot/nametag/internal/node/lasting"
	"github.com/nametag-boot/nametag/internal/node/memory"
	"github.com/nametag-boot/nametag/internal/node/record"
	"github.com/nametag-boot/nametag/internal/node/remedy"
	"github.com/nametag-boot/nametag/internal/node/wait"
	"github.com/nametag-boot/nametag/internal/safely"
	"github.com/nametag-boot/nametag/procfs"
)

// Platform is what talos.platform= says on the machines that nametag is for.
const platform = "hcloud"

// Config is what an apply works on.
type Config struct {
	// Root is the system whose name it is. Empty: it is not there yet, and nothing is read
	// from it or written to it.
	Root lasting.Root
	// RunDir is the file system for what lasts until the machine stops: /run.
	RunDir string
	// Line is the kernel command line, and Mistake what is wrong with it, or nil: it is
	// told, and the line's policy counts.
	Line    procfs.CommandLine
	Mistake error
	// Instance is this machine's id, by its firmware; empty: it does not tell, and no name
	// of an earlier boot counts.
	Instance string
	// AtBoot has the policy carried out where there is no name in time. Otherwise that is
	// an error and nothing else.
	AtBoot bool
	// Capture says that this kernel is there to save the memory of one that has crashed
	// (kdump): nothing is to hold that up, least of all a reboot.
	Capture bool
	// Began is when the wait for a name began. Zero: now.
	Began time.Time
	// Spoken says that the service may have told of a rename in this boot, which rename=stop has refused.
	Spoken bool
	// Hostname is the kernel's, before anything is done.
	Hostname string
	// Managed says that a service manager acts on this process' exit status.
	Managed bool

	// Find asks who this machine is, until the context ends. nil: nobody is asked, and what is
	// known counts at once.
	Find func(context.Context, procfs.Policy, func(identity.Event)) (*identity.Identity, error)
	// SetHostname sets the kernel's and returns what it is then.
	SetHostname func(string) (string, error)
	// UnsetHostname takes the kernel's away.
	UnsetHostname func() error
	// Enforce reboots, or switches off. It does not return but with an error.
	Enforce func(ctx context.Context, then procfs.Then, why string) error
	// Reporter hears of everything.
	Reporter Reporter
}

// NoNameError says that there is no name, and what follows.
type NoNameError struct {
	Then procfs.Then
	Err  error // why
}

// Error is one line.
func (e *NoNameError) Error() string { return fmt.Sprintf("no name: %s: %v", e.Then, e.Err) }

// Unwrap returns Err.
func (e *NoNameError) Unwrap() error { return e.Err }

// Do does it. It returns nil where the name is in effect, and where there is nothing
// to do. Done again it changes nothing.
func (c Config) Do(ctx context.Context) error {
	r := c.Reporter
	if c.Mistake != nil && c.Find != nil { // else whoever has asked has told it
		r.Say(Line{Level: kmsg.Error, Event: "mistake", Err: c.Mistake, Text: fmt.Sprintf("%v; going by the default policy, %s%s", c.Mistake, c.Line.Policy, remedy.Argument.See())})
	}
	why, err := c.nothingToDo()
	if err != nil {
		r.Say(Line{Level: kmsg.Warning, Event: "failed", Err: err, Text: fmt.Sprintf("%v; going on as if it were not there", err)})
	}
	if why != "" {
		r.Say(Line{Level: kmsg.Notice, Event: "nothing-to-do", Text: why})
		return nil
	}
	found, known, err := c.find(ctx)
	var elsewhere *identity.NotPresentError
	if errors.As(err, &elsewhere) {
		r.Say(Line{Level: kmsg.Notice, Event: "nothing-to-do", Text: err.Error() + ": nothing to find out"})
		return nil
	}
	if err == nil {
		err = c.put(found, known)
	}
	if err != nil {
		return c.ending(ctx, err)
	}
	return nil
}

// nothingToDo says why there is nothing to find out; empty: there is. An error is of a name that cannot be read.
func (c Config) nothingToDo() (why string, err error) {
	if c.Capture {
		return "this kernel is there to save a crash dump: nothing to find out", nil
	}
	switch line := c.Line; line.Decide(platform) {
	case procfs.DecisionWait:
	case procfs.DecisionNotAsked:
		return fmt.Sprintf("no %s= on the kernel command line: nothing to do", procfs.Alias), nil
	case procfs.DecisionOff:
		return "switched off on the kernel command line", nil
	case procfs.DecisionNamed:
		return fmt.Sprintf("%s%s names this node: nothing to find out", line.HostnameFrom, line.Hostname), nil
	case procfs.DecisionElsewhere:
		return fmt.Sprintf("talos.platform=%s is not Hetzner Cloud (%s): nothing to find out", line.Platform, platform), nil
	}
	name, err := c.operator()
	if name != "" {
		why = fmt.Sprintf("%s says %s, which nametag did not write: nothing to find out", filepath.Join("/", lasting.File), name)
	} else if name := c.credential(); name != "" {
		why = fmt.Sprintf("systemd's credential %s names this node %s: nothing to find out", lasting.Credential, name)
	}
	return why, err
}

// operator is the name that an operator gave in the root.
func (c Config) operator() (string, error) {
	if c.Root == "" {
		return "", nil
	}
	return c.Root.Operator()
}

// credential is the name that an operator gave by a credential of systemd's. It counts where systemd has named the machine by
// it: not before its version 254, not where it makes no name, and not where there is a static one.
func (c Config) credential() string {
	if c.Root != "" {
		if static, err := c.Root.Static(); err != nil || static != "" {
			return ""
		}
	}
	if name := lasting.ByCredential(c.RunDir); name != "" && name == c.Hostname {
		return name
	}
	return ""
}

// recordPath is the record's.
func (c Config) recordPath() string { return filepath.Join(c.RunDir, "nametag/identity.json") }

// recorded is the record of this boot, if there is one: that of an initramfs, perhaps. Another process wrote it: what it says
// is looked at once more. (What comes out of a search was looked at where it came in, from the network or from a disk.)
func (c Config) recorded() (r record.Record, ok bool) {
	r, err := record.Read(c.recordPath())
	return r, err == nil && r.BootID != "" && r.BootID == bootID() && identity.ValidateHostname(r.Hostname) == nil
}

// find is this machine's record: the one of this boot that is there already, or a new
// one. known says that the name is that of an earlier boot.
func (c Config) find(ctx context.Context) (found record.Record, known bool, err error) {
	if r, ok := c.recorded(); ok {
		return r, r.Source == memory.Source, nil
	}
	policy, began := c.Line.Policy, c.Began
	if began.IsZero() {
		began = time.Now()
	}
	if c.Find != nil {
		c.Reporter.Say(Line{Level: kmsg.Notice, Event: "waiting", Text: fmt.Sprintf("finding out this node's name: %s", policy)})
	}
	ctx, cancel := policy.WithDeadline(ctx, began)
	defer cancel()
	waiting, named := context.WithCancel(ctx)
	told := make(chan struct{})
	safely.Go("telling how the wait goes", func() {
		defer close(told)
		c.keepTelling(waiting, began)
	}, func(error) {})
	defer func() {
		named()
		<-told
	}()
	recall := make(chan memory.Recall, 1)
	recall <- c.recall()
	search := memory.Search{
		Policy: policy, Instance: c.Instance, Memory: recall, Began: began, Spoken: c.Spoken,
		Warn: func(text string) {
			c.Reporter.Say(Line{Level: kmsg.Warning, Event: "memory", Text: text})
		},
	}
	if c.Find != nil {
		search.Ask = func(ctx context.Context) (*identity.Identity, error) { return c.persist(ctx, named) }
	}
	outcome, err := search.Run(ctx)
	if err != nil {
		return found, false, err
	}
	if text := outcome.Sentence(); text != "" {
		c.Reporter.Say(Line{Level: kmsg.Warning, Event: "memory", Text: text + remedy.After(outcome.Verdict).See()})
	}
	id := outcome.Identity
	if id == nil {
		return found, false, fmt.Errorf("there is no name: %s", outcome.Verdict)
	}
	found = record.From(id)
	found.BootID = bootID()
	if outcome.Verdict == memory.TakeKnown {
		found.KnownSince = outcome.Recall.Name.Since
	}
	return found, outcome.Verdict == memory.TakeKnown, nil
}

// recall is what the root remembers.
func (c Config) recall() memory.Recall {
	if c.Root == "" {
		return memory.Recall{}
	}
	return memory.RecallFile(string(c.Root), c.Instance)
}

// again is how long to wait before the network is opened again that could not be.
const again = time.Second

// persist asks until there is an answer or the time is up. A boot has nobody to tell of
// a network that cannot be opened at this moment; its policy says how long to wait.
func (c Config) persist(ctx context.Context, named func()) (*identity.Identity, error) {
	observe := func(e identity.Event) {
		if e.Kind == identity.EventNamed {
			named()
		}
		c.tell(e)
	}
	said := ""
	for {
		id, err := c.Find(ctx, c.Line.Policy, observe)
		var timeout *identity.TimeoutError
		var elsewhere *identity.NotPresentError
		if err == nil || errors.As(err, &timeout) || errors.As(err, &elsewhere) || !c.AtBoot {
			return id, err
		}
		if now := err.Error(); now != said {
			said = now
			also := ""
			if _, unproven := errors.AsType[*identity.UnprovenError](err); unproven {
				also = "; " + procfs.Parameter + "=…,id=unproven takes an answer all the same"
			}
			c.Reporter.Say(Line{Level: kmsg.Warning, Event: "failed", Err: err, Text: fmt.Sprintf("%v%s; trying again%s", err, also, remedy.Of(err).See())})
		}
		if !wait.Sleep(ctx, again) {
			return nil, err
		}
	}
}

// put puts the name into effect: the kernel's hostname, the record, and what makes it
// last. The first is what counts; without the others the boot goes on.
func (c Config) put(found record.Record, known bool) error {
	name, err := c.SetHostname(found.Hostname)
	if err != nil {
		return err
	}
	if err := found.Write(c.recordPath()); err != nil {
		c.Reporter.Say(Line{Level: kmsg.Warning, Event: "failed", Err: err, Text: fmt.Sprintf("no record: %v", err)})
	}
	how := c.keep(name, found, known)
	path := found.Path.String()
	c.Reporter.Say(Line{
		Level: kmsg.Notice, Event: "applied", Hostname: name, InstanceID: found.InstanceID, Path: path,
		Text: fmt.Sprintf("%s (instance %s, by %s) is this node's name, %s", name, found.InstanceID, path, how),
	})
	return nil
}

// keep makes the name last, and says how.
func (c Config) keep(name string, found record.Record, known bool) string {
	if c.Root == "" {
		return "in the kernel, until the root is there"
	}
	if !known {
		c.remember(found)
	}
	how, err := c.Root.Keep(name, c.RunDir)
	switch {
	case how == "":
		c.Reporter.Say(Line{Level: kmsg.Warning, Event: "failed", Err: err, Text: fmt.Sprintf("%s may be changed by a lease later: %v", name, err)})
		return "in the kernel"
	case err != nil:
		c.Reporter.Say(Line{Level: kmsg.Warning, Event: "failed", Err: err, Text: fmt.Sprintf("%s is kept for this boot only: %v", name, err)})
	}
	return how.String()
}

// remember writes the name down for later boots. Where the root cannot be written now,
// it is done later in this boot, or there is nothing to remember by.
func (c Config) remember(found record.Record) {
	if found.InstanceID == "" {
		return
	}
	n := memory.Name{Hostname: found.Hostname, InstanceID: found.InstanceID, Since: time.Now()}
	if err := n.Remember(string(c.Root)); err != nil {
		c.Reporter.Say(Line{Level: kmsg.Warning, Event: "failed", Err: err, Text: fmt.Sprintf("the name is not remembered for later boots: %v", err)})
	}
}

// sayAgain is how often a machine that stays says why.
const sayAgain = time.Minute

// ending carries the policy out where this is a boot, as far as the service manager does not.
func (c Config) ending(ctx context.Context, err error) error {
	if ctx.Err() != nil { // whoever stops us does not want an ending
		return err
	}
	then := c.Line.Policy.Then
	ended := &NoNameError{Then: then, Err: err}
	if !c.AtBoot {
		return err
	}
	say := func() {
		c.Reporter.Say(Line{Level: kmsg.Error, Event: "no-name", Then: then.String(), Err: err, Text: ended.Error() + remedy.Of(err).See()})
	}
	say()
	switch {
	case then == procfs.Halt:
		for wait.Sleep(ctx, sayAgain) {
			say()
		}
	case then == procfs.Continue:
		c.withdraw()
	case c.Managed:
	default:
		if err := c.Enforce(ctx, then, err.Error()); err != nil {
			return joined.Errors(ended, err)
		}
	}
	return ended
}

// withdraw takes back the name that nametag wrote on another machine, of whose disk this
// one's is a copy: a boot that goes on without a name must not go on under that one.
func (c Config) withdraw() {
	if c.Root == "" || c.Instance == "" {
		return
	}
	recall := c.recall()
	if !recall.Known() || recall.For(c.Instance).Known() {
		return
	}
	name, err := c.Root.Withdraw(c.RunDir)
	if err != nil {
		c.Reporter.Say(Line{Level: kmsg.Error, Event: "failed", Err: err, Text: fmt.Sprintf("the name of the instance %.64q is still in /etc/hostname: %v", recall.Name.InstanceID, err)})
	}
	if name == "" || err != nil {
		return
	}
	// In a root the service manager has read it before.
	if err := c.UnsetHostname(); err != nil {
		c.Reporter.Say(Line{Level: kmsg.Error, Event: "failed", Err: err, Text: fmt.Sprintf("%s, the name of the instance %.64q, is still the kernel's hostname: %v", name, recall.Name.InstanceID, err)})
	}
	c.Reporter.Say(Line{
		Level: kmsg.Warning, Event: "withdrawn", Hostname: name, InstanceID: recall.Name.InstanceID,
		Text: fmt.Sprintf("%s is the name of the instance %.64q, of whose disk this one is a copy: it is taken out of /etc/hostname", name, recall.Name.InstanceID),
	})
}

// bootID is the kernel's, empty where there is no /proc.
func bootID() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id))
}
