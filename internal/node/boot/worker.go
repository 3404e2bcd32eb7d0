//go:build linux

package boot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/dmi"
	"github.com/nametag-boot/nametag/identity/hetzner"
	"github.com/nametag-boot/nametag/internal/node/kmod"
	"github.com/nametag-boot/nametag/internal/node/kmsg"
	"github.com/nametag-boot/nametag/internal/node/links"
	"github.com/nametag-boot/nametag/internal/node/memory"
	"github.com/nametag-boot/nametag/internal/node/remedy"
	"github.com/nametag-boot/nametag/internal/node/wait"
	"github.com/nametag-boot/nametag/internal/safely"
	"github.com/nametag-boot/nametag/procfs"
)

// workerName is what tells the worker from any other use of the binary.
const workerName = "nametag-boot-worker"

// IsWorker reports whether this process was started by [Init], to call [WorkerMain].
func IsWorker() bool { return len(os.Args) == 1 && os.Args[0] == workerName }

// A request is all that the worker is told, as JSON on its standard input.
type request struct {
	Policy      procfs.Policy
	Elapsed     time.Duration // since the boot's clock began: the policy's bound counts from there
	Root        string        // of the mounts
	CommandLine []byte        // it may have any: of those that are no UTF-8, a string of JSON keeps nothing
	OnHetzner   bool          // the command line says so
	NameOnly    bool          // nobody reads the rest
	Talos       bool          // a Talos boots next, which keeps its name on a partition of its own
	// Repair is for a worker that has died: to put back what it has left, and nothing else.
	Repair bool
	// Recall is for a worker that has died, too: to look into the node's memory, and to ask nobody.
	Recall bool
}

// remembers reports whether there may be a memory to look into.
func (r request) remembers() bool {
	_, counts := r.Policy.KnownAfter()
	return counts && (r.Talos || memory.RootNamed(string(r.CommandLine)))
}

// recalls reports whether the memory counts where the worker has died. With rename=stop it may have heard of a rename, with which
// the known name does not count.
func (r request) recalls() bool { return r.remembers() && r.Policy.Rename != procfs.RenameStop }

// recallTime is how long a memory is looked for where nobody is asked: its disk, or the disk's driver, may be late.
const recallTime = time.Minute

// bound ends with the time that the worker has in a boot that began then, and grace.
func (r request) bound(ctx context.Context, began time.Time, grace time.Duration) (context.Context, context.CancelFunc) {
	if r.Recall {
		return context.WithTimeout(ctx, recallTime+grace) // the policy's time may be over
	}
	return r.Policy.WithDeadline(ctx, began.Add(grace))
}

// A result is all that the worker answers, as JSON on its standard output.
type result struct {
	Identity *identity.Identity `json:",omitempty"`
	// KnownSince is when a name was written down that is an earlier boot's; zero: it is not, or nobody knows.
	KnownSince time.Time `json:",omitzero"`
	// BootOn says that the boot is to go on without a name from us: this machine is not the cloud's, or the operator has
	// named it, or the system has a memory of its own.
	BootOn bool
	// Why there is no identity.
	Why string
	// Broken says that a bug has ended the work, so that links may not be as they were.
	Broken bool `json:",omitempty"`
	// Steps are how long what took how long.
	Steps []step
}

// WorkerMain does the worker's work and returns its exit status. What it has to say stands in its result; a status other
// than 0 means that there is none.
func WorkerMain() int {
	var r request
	if err := json.NewDecoder(os.Stdin).Decode(&r); err != nil {
		fmt.Fprintf(os.Stderr, "nametag: the worker was not started by nametag: %v\n", err)
		return 2
	}
	w := worker{request: r, mounts: mounts{r.Root}}
	w.console = kmsg.OpenIn("nametag", w.mounts.dev(), w.mounts.proc())
	defer w.console.Close()
	if r.Repair {
		w.repair(context.Background())
		return 0
	}
	return answer(os.Stdout, w.answer(context.Background()))
}

func answer(out io.Writer, r result) int {
	if err := json.NewEncoder(out).Encode(r); err != nil {
		return 1
	}
	return 0
}

type worker struct {
	request request
	mounts  mounts
	console *kmsg.Console

	watch stopwatch
	began time.Time // the boot
	ends  []func()  // of what goes on beside, see undo

	// Set by one task for those behind it.
	resolver identity.Resolver
	search   memory.Search
	loader   *kmod.Loader
	named    func()      // ends what goes on until there is a name
	disks    atomic.Bool // a controller of disks has its driver
}

// answer does the work. A panic is a result without a name.
func (w *worker) answer(ctx context.Context) (r result) {
	err := safely.Do("the worker", func() error {
		r = w.work(ctx)
		return nil
	})
	if err != nil {
		report(w.console, err)
		return result{Why: err.Error(), Broken: true}
	}
	return r
}

// repair puts the links back as they were before another worker used them, which has died.
func (w *worker) repair(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, repairTime)
	defer cancel()
	err := earlynet.Repair(ctx, earlynet.Config{Alone: true, Proc: w.mounts.proc(), Observer: func(e earlynet.Event) { w.console.Debugf("%v", e) }})
	if err != nil {
		w.console.Warnf("the links could not be put back: %v", err)
	}
}

// beside starts what goes on beside the search. Its panic is reported, and ends nothing else.
func (w *worker) beside(g *safely.Group, doing string, fn func()) {
	g.Go(doing, fn, func(err error) { report(w.console, err) })
}

// A task is one part of the worker's work. It returns a result where that is the end.
type task struct {
	step string // that begins with it, for the console's summary; empty: none
	do   func(context.Context) *result
}

// work finds the name, within the policy's bound: one task after the other, until there is a result. The last one has
// several steps, of which it says itself where they begin.
func (w *worker) work(ctx context.Context) result {
	w.began = time.Now().Add(-w.request.Elapsed)
	ctx, cancel := w.request.bound(ctx, w.began, 0)
	defer cancel()
	defer w.undo()
	tasks := []task{{"", w.look}, {stepDrivers, w.drive}}
	if w.request.remembers() {
		tasks = append(tasks, task{stepMemory, w.recall})
	}
	for _, t := range append(tasks, task{"", w.resolve}) {
		if t.step != "" {
			w.watch.begin(t.step)
		}
		if r := t.do(ctx); r != nil {
			return *r
		}
	}
	return result{Why: "the worker has done all and found nothing"} // the last one has a result
}

// undo ends what goes on beside the search, the last begun first. A panic in one end does not keep the others from theirs.
func (w *worker) undo() {
	for _, end := range w.ends {
		defer end()
	}
}

// look finds out what machine this is, and whether there is anything to find out.
func (w *worker) look(context.Context) *result {
	policy := w.request.Policy
	facts, err := dmi.Read(filepath.Join(w.mounts.sys(), "class/dmi/id"))
	if err != nil {
		w.console.Warnf("%v; going on without these facts", err)
	}
	source := hetzner.Source()
	facts, why := w.weigh(source, facts)
	if why != "" {
		return &result{BootOn: true, Why: why + ": nothing to find out"}
	}
	w.resolver, err = links.Resolver(policy, links.Alone)
	if err != nil {
		return &result{Why: err.Error()}
	}
	w.resolver.Source, w.resolver.Facts, w.resolver.Minimal = source, &facts, w.request.NameOnly
	w.resolver.Link.Proc = w.mounts.proc()
	w.search = memory.Search{
		Policy: policy, Instance: facts.Serial, Began: w.began, Warn: func(line string) { w.console.Warnf("%s", line) },
	}
	return nil
}

// drive has the drivers loaded, and waits for the first of them. Loading, and telling how long it all takes, go on beside
// the search and end with the name.
func (w *worker) drive(ctx context.Context) *result {
	beside, stop := context.WithCancel(ctx)
	w.named = stop
	w.loader = kmod.New(kmod.Config{Sys: w.mounts.sys(), Dev: w.mounts.dev(), CommandLine: string(w.request.CommandLine), Disks: w.request.remembers(), FileSystems: w.fileSystems()})
	reached(stageWorking)
	others := new(safely.Group)
	loaded := make(chan struct{})
	w.beside(others, "loading drivers", func() {
		w.loadFirst(beside, loaded)
		w.keepLoading(beside)
	})
	w.beside(others, "telling how long it takes", func() { w.keepTelling(beside, w.began) })
	w.ends = append(w.ends, func() {
		stop()
		others.Wait()
	})
	w.awaitDrivers(beside, loaded, driverPatience)
	return nil
}

// recall begins to look into the memory of the system. It goes on beside the asking.
func (w *worker) recall(ctx context.Context) *result {
	w.ends = append(w.ends, w.lookBack(ctx))
	return nil
}

// resolve asks the service, and counts what the memory says, where recall looks into one.
func (w *worker) resolve(ctx context.Context) *result {
	path, up := make(chan struct{}), new(sync.Once)
	w.resolver.OnEvent = func(e identity.Event) {
		w.watch.follow(e, w.request.NameOnly)
		switch e.Kind {
		case identity.EventTrying:
			up.Do(func() { close(path) })
		case identity.EventNamed:
			if w.request.Policy.Rename != procfs.RenameStop { // which may have to ask again
				w.named()
			}
		}
		tell(w.console, e)
	}
	w.search.Path = path
	if !w.request.Recall {
		w.search.Ask = func(ctx context.Context) (*identity.Identity, error) {
			reached(stageSearching)
			w.watch.begin(stepNetwork)
			return w.persist(ctx, openAgain, func() (*identity.Identity, error) { return w.resolver.Resolve(ctx) })
		}
	}
	outcome, err := w.search.Run(ctx)
	r := result{Steps: w.watch.end()}
	if err != nil {
		r.Why = err.Error() + remedy.Of(err).See()
		return &r
	}
	r = w.conclude(outcome, r)
	return &r
}

// weigh holds what the command line says of the platform against what the firmware says, and returns the facts to go by. A
// vendor that is known to be another cloud wins over the line, so that one image serves every cloud; of one that is
// not, the operator knows more. Then the firmware's serial number is a proof if the answer has it, and no contradiction else.
func (w *worker) weigh(source identity.Source, facts dmi.Facts) (goBy dmi.Facts, elsewhere string) {
	line := platformParameter + "=" + platformHetzner
	switch {
	case source.Present(facts) != identity.PresenceNo:
		return facts, ""
	case !w.request.OnHetzner:
		return facts, (&identity.NotPresentError{Source: source.Name(), Facts: facts}).Error()
	case facts.Cloud() != "":
		return facts, fmt.Sprintf("the command line says %s, but this machine is one of %s (DMI vendor %q)", line, facts.Cloud(), facts.Vendor)
	}
	w.console.Warnf("the command line says %s, the firmware's vendor is %q: going by the command line", line, facts.Vendor)
	facts.Vendor = ""
	return facts, ""
}

// conclude makes the result of what the search came to, and tells what is worth telling.
func (w *worker) conclude(outcome memory.Outcome, r result) result {
	said := outcome.Sentence()
	if said != "" {
		said += remedy.After(outcome.Verdict).See()
	}
	if r.Identity = outcome.Identity; r.Identity == nil {
		r.BootOn, r.Why = true, said
		return r
	}
	if said != "" {
		w.console.Warnf("%s", said)
	}
	if outcome.Verdict == memory.TakeKnown {
		r.KnownSince = outcome.Recall.Name.Since
	}
	r.Identity.Timeline = nil // the console has told it
	return r
}

// fileSystems are those that a node's memory may be on.
func (w *worker) fileSystems() []string {
	if w.request.Talos {
		return []string{"xfs"}
	}
	return []string{"ext4", "xfs"}
}

// unmountTime bounds how long the end of a look is waited for. What a disk that does not answer holds up, ends with the
// worker.
const unmountTime = time.Second

// lookBack looks into the memory of the system beside the search. What it returns ends that, and waits until nothing is
// mounted any longer.
func (w *worker) lookBack(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	config := memory.Config{Sys: w.mounts.sys(), Dev: w.mounts.dev(), Instance: w.search.Instance, Disks: w.disks.Load}
	var looking *memory.Looking
	if w.request.Talos {
		looking = memory.Look(ctx, config)
	} else {
		looking = memory.LookRoot(ctx, config, string(w.request.CommandLine))
	}
	if looking == nil { // there is no root that can be looked into here
		return cancel
	}
	w.search.Memory, w.search.Ready, w.search.Reading = looking.Recall, looking.Ready, looking.Reading
	return func() {
		cancel()
		_, _ = wait.For(looking.Done(), unmountTime)
	}
}

// openAgain is how long to wait before the network is opened again that could not be.
const openAgain = time.Second

// persist resolves until there is a name or the policy's time is up. Whoever calls [identity.Resolve] at a shell wants to
// know at once of a network that this kernel does not let them open. A boot has nobody to tell, and its policy says how
// long to wait: for ever, perhaps.
func (w *worker) persist(ctx context.Context, pause time.Duration, resolve func() (*identity.Identity, error)) (*identity.Identity, error) {
	said := ""
	for {
		id, err := resolve()
		var timeout *identity.TimeoutError
		var elsewhere *identity.NotPresentError
		if err == nil || errors.As(err, &timeout) || errors.As(err, &elsewhere) {
			return id, err
		}
		if again := err.Error(); again != said {
			said = again
			also := ""
			if _, unproven := errors.AsType[*identity.UnprovenError](err); unproven {
				also = fmt.Sprintf("; %s=…,id=unproven on the command line takes an answer all the same", procfs.Parameter)
			}
			w.console.Warnf("%v%s; trying again%s", err, also, remedy.Of(err).See())
		}
		if !wait.Sleep(ctx, pause) {
			return nil, err
		}
	}
}

// driverPatience is how long the first look at the NICs waits for the drivers. They take a fraction of it; one that waits
// for firmware, or for a device that does not answer, may take a minute, and another NIC may be there already.
const driverPatience = 5 * time.Second

// awaitDrivers waits until the drivers are loaded, or for so long as they deserve.
func (w *worker) awaitDrivers(ctx context.Context, loaded <-chan struct{}, patience time.Duration) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-loaded:
	case <-ctx.Done():
	case <-timer.C:
		w.console.Warnf("a driver has been loading for %s; going on with the NICs that are there", patience)
	}
}

// reload is how often a device without a driver is looked for: one may be plugged in while we wait.
const reload = 500 * time.Millisecond

// loadFirst loads what is there, and closes loaded whatever comes of it.
func (w *worker) loadFirst(ctx context.Context, loaded chan<- struct{}) {
	defer close(loaded)
	reached(stageLoading)
	w.loadDrivers(ctx)
}

func (w *worker) keepLoading(ctx context.Context) {
	every(ctx, reload, func() { w.loadDrivers(ctx) })
}

// loadDrivers loads what the network devices ask for, and tells what came of it. What cannot be loaded now is no reason
// to give up: another NIC may do.
func (w *worker) loadDrivers(ctx context.Context) {
	began := time.Now()
	loading, err := w.loader.Load(ctx)
	if slices.ContainsFunc(loading.Devices, kmod.Device.HasDisks) {
		w.disks.Store(true)
	}
	if len(loading.Loaded) > 0 {
		names := make([]string, 0, len(loading.Loaded))
		for _, m := range loading.Loaded {
			names = append(names, m.Name)
		}
		w.console.Noticef("loaded %s in %s", strings.Join(names, ", "), time.Since(began).Round(time.Millisecond))
	}
	if _, panicked := errors.AsType[*safely.PanicError](err); panicked {
		report(w.console, err)
	} else if err != nil && ctx.Err() == nil {
		w.console.Warnf("%v%s", err, remedy.Of(err).See())
	}
}

// countFrom is when the waiting becomes a countdown.
const countFrom = 10 * time.Second

// keepTelling says from time to time that there is no name yet, and what comes when the time is up, which is when ctx ends
// at the latest.
func (w *worker) keepTelling(ctx context.Context, began time.Time) {
	reached(stageTelling)
	policy := w.request.Policy
	consequence := func() string { return "waiting for ever, as the command line says" }
	quiet, cancel := context.WithCancel(ctx)
	defer cancel()
	end, bounded := ctx.Deadline()
	if bounded {
		consequence = func() string {
			return fmt.Sprintf("%s in %s", policy.Then, time.Until(end).Round(time.Second))
		}
		quiet, cancel = context.WithDeadline(ctx, end.Add(-countFrom))
		defer cancel()
	}
	every(quiet, 30*time.Second, func() {
		w.console.Noticef("no name yet after %s; %s", time.Since(began).Round(time.Second), consequence())
	})
	if ctx.Err() == nil { // so it is the last seconds of a bound
		_ = w.console.Countdown(ctx, time.Until(end).Round(time.Second), "no name yet", policy.Then.String())
	}
}

// every calls f again and again until the context ends.
func every(ctx context.Context, interval time.Duration, f func()) {
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			f()
		case <-ctx.Done():
			return
		}
	}
}
