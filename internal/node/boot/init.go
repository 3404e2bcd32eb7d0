//go:build linux

package boot

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/node/handover"
	"github.com/nametag-boot/nametag/internal/node/kmsg"
	"github.com/nametag-boot/nametag/internal/node/record"
	"github.com/nametag-boot/nametag/internal/node/remedy"
	"github.com/nametag-boot/nametag/internal/node/wait"
	"github.com/nametag-boot/nametag/internal/safely"
	"github.com/nametag-boot/nametag/procfs"
)

// Options are what the caller of [Init] may choose. The zero value is right for what the kernel runs.
type Options struct {
	// Next is the init to execute after us. Empty: the one that the kernel argument nametag.init= names, else /init.next
	// where we are /init ourselves, else /init.
	Next string
	// Args are the arguments for it, without its own name.
	Args []string
}

// workerGrace is how long after the policy's bound the worker may still be busy putting the network back, which takes a
// starved machine seconds.
const workerGrace = 20 * time.Second

// Init is the first process' work. It does not return: it ends in the next init, or in what the policy says.
func Init(o Options) {
	b := &boot{options: o, began: time.Now(), next: next{asked: o.Next, self: os.Args[0]}, line: commandLine}
	b.next.us, _ = os.Stat(b.next.self) // before anything is moved
	b.deafen()
	b.guarded(b.run)
}

type boot struct {
	options  Options
	line     func() (string, error) // reads the kernel's
	next     next
	began    time.Time
	decision decision
	mounts   mounts
	handover *handover.Handover // while its processes may be there, and there has been no exec
	console  *kmsg.Console      // nil until there is something to say
}

// deafen catches the signals that would end the process. It does not ignore them: what is ignored stays so across an exec
// (execve(2)), and the next init would not hear it.
func (b *boot) deafen() {
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGPIPE, unix.SIGUSR1, unix.SIGUSR2, unix.SIGPWR)
}

// guarded ends the boot as run says. If anything panics on the way, it carries the policy out, with words and countdown;
// if that panics too, by system calls alone. It does not return.
func (b *boot) guarded(run func() ending) {
	err := safely.Do("the first process", func() error { b.end(run()); return nil })
	err = safely.Do("giving up", func() error {
		b.openConsole()
		report(b.console, err)
		b.end(ending{then: endPolicy, why: "an internal failure", countdown: countdown})
		return nil
	})
	_ = safely.Do("telling", func() error { report(b.console, err); return nil })
	b.lastResort()
}

// report says on the console that nametag has a bug, with the lines by which it is found.
func report(console *kmsg.Console, err error) {
	console.Errorf("%v: this is a bug in nametag, please report it with these lines%s", err, remedy.Bug.See())
	var p *safely.PanicError
	if errors.As(err, &p) {
		for line := range strings.Lines(string(p.Stack)) {
			console.Errorf("%s", strings.TrimSpace(line))
		}
	}
}

// lastResort does what the policy says by system calls alone. It does not return.
func (b *boot) lastResort() {
	then := b.decision.policy.Then
	switch {
	case !b.decision.wait, then == procfs.Continue:
		_ = unix.Exec(b.next.path(), append([]string{b.next.name()}, b.options.Args...), os.Environ())
	case then == procfs.Reboot:
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	case then == procfs.PowerOff:
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}
	b.stay("an internal failure, twice")
}

// run is the boot, in order, up to how it ends.
func (b *boot) run() ending {
	reached(stageBegun)
	line, err := b.line()
	if err != nil {
		b.openConsole()
		b.console.Errorf("cannot read the kernel command line: %v; booting on: nobody asked to wait, as far as I can tell", err)
		return ending{then: endExec}
	}
	d, mistake := decide(line)
	b.decision = d
	b.next.asked = cmp.Or(b.options.Next, d.next)
	reached(stageDecided)
	if !d.wait {
		if d.why != "" {
			b.openConsole()
			b.console.Noticef("%s", d.why)
		}
		return ending{then: endExec}
	}

	b.openConsole()
	if mistake != nil {
		b.console.Errorf("%v; going by the default policy, %s%s", mistake, d.policy, remedy.Argument.See())
	}
	if err := b.next.check(); err != nil {
		return givenUp(err.Error())
	}
	if b.mounts, err = mountOwn(ownRoot); err != nil {
		return givenUp(fmt.Sprintf("cannot mount what is needed: %v", err))
	}
	reached(stageMounted)
	b.console.Noticef("finding out this node's name: %s", d.policy)
	question := b.question(line)
	found, err := b.startWorker(question)
	if err != nil {
		return givenUp(err.Error())
	}
	reached(stageAsked)
	// While the worker waits for the network: what the handover needs before there is a name.
	var noHandover error
	if b.toTalos() {
		b.handover, noHandover = handover.Start(handover.Config{
			CommandLine: line, Then: d.policy.Then, Console: b.console, Executable: b.mounts.self(),
		})
	}
	r, err := found()
	if err != nil || r.Broken {
		b.repair()
		if known, ok := b.recall(question, err); ok {
			r, err = known, nil
		}
	}
	reached(stageAnswered)
	switch {
	case err != nil:
		return givenUp(err.Error())
	case r.Identity != nil && noHandover != nil:
		return notHandedOver(r.Identity.Hostname, noHandover)
	case r.Identity != nil:
		return b.handOver(r)
	case r.BootOn:
		b.endHandover()
		b.console.Noticef("%s", r.Why)
		return ending{then: endExec}
	}
	e := givenUp(r.Why)
	if d.policy.Mode == procfs.Bounded && time.Since(b.began) >= d.policy.Wait {
		e.countdown = 0 // the wait has counted down
	}
	return e
}

// question is what the worker is asked, of the kernel command line.
func (b *boot) question(line string) request {
	return request{
		Policy: b.decision.policy, Elapsed: time.Since(b.began), Root: b.mounts.root, CommandLine: []byte(line), OnHetzner: b.decision.onHetzner,
		NameOnly: b.toTalos(), // Talos finds out the rest by itself; any other system gets the record
		Talos:    b.toTalos(),
	}
}

// recall has another worker look into the node's memory, where the one that asked the service has died. It may die at every
// boot: a node that knows its name is then no worse off than in an outage of the service.
func (b *boot) recall(question request, died error) (r result, ok bool) {
	if !question.recalls() {
		return r, false
	}
	if died != nil { // else it has told its bug itself
		b.console.Errorf("%v", died)
	}
	b.console.Noticef("looking for this node's name in its own memory")
	question.Elapsed, question.Recall = time.Since(b.began), true
	found, err := b.startWorker(question)
	if err == nil {
		r, err = found()
	}
	if err != nil {
		b.console.Warnf("this node's memory cannot be read: %v", err)
		return r, false
	}
	if r.Identity == nil && !r.BootOn {
		b.console.Warnf("%s", r.Why)
		return r, false
	}
	return r, true
}

// startWorker has the worker find the name. What it returns waits for the answer; an error from there means that the
// worker failed, as opposed to the search.
func (b *boot) startWorker(question request) (func() (result, error), error) {
	ctx, cancel := question.bound(context.Background(), b.began, workerGrace)
	worker, complaint, err := b.worker(ctx, question)
	if err != nil {
		cancel()
		return nil, err
	}
	out, in, err := os.Pipe()
	if err != nil {
		cancel()
		return nil, fmt.Errorf("cannot start the worker: %w", err)
	}
	defer in.Close() // the worker's
	worker.Stdout = in
	if err := worker.Start(); err != nil {
		cancel()
		out.Close()
		return nil, fmt.Errorf("cannot start the worker: %w", err)
	}
	return func() (result, error) {
		defer cancel()
		defer out.Close()
		ended := make(chan error, 1)
		said := make(chan string, 1)
		safely.Go("waiting for the worker", func() {
			reached(stageWaiting)
			err := worker.Wait()
			said <- complaint.String()
			ended <- err
		}, func(err error) {
			report(b.console, err)
			ended <- err
		})
		r, err := awaitWorker(ctx, out, ended, func(err error) { report(b.console, err) })
		if err == nil {
			return r, nil
		}
		select {
		case lines := <-said:
			for line := range strings.Lines(lines) {
				b.console.Errorf("worker: %s", strings.TrimSpace(line))
			}
		default: // it has not ended
		}
		return r, err
	}, nil
}

// worker is a worker's process, which is not started yet, and what it will have complained of.
func (b *boot) worker(ctx context.Context, r request) (*exec.Cmd, *bytes.Buffer, error) {
	question, err := json.Marshal(r)
	if err != nil {
		return nil, nil, err
	}
	complaint := new(bytes.Buffer)
	cmd := exec.CommandContext(ctx, b.mounts.self())
	cmd.Args = []string{workerName}
	cmd.Env = []string{"GOTRACEBACK=single"}
	cmd.Stdin, cmd.Stderr = bytes.NewReader(question), complaint
	cmd.WaitDelay = time.Second
	return cmd, complaint, nil
}

// repairTime is how long it may take to put links back.
const repairTime = 20 * time.Second

// repair puts the links back that a worker has left as it used them, which has died. That is done by another one: the first
// process does not meet the network.
func (b *boot) repair() {
	ctx, cancel := context.WithTimeout(context.Background(), repairTime+endGrace)
	defer cancel()
	worker, complaint, err := b.worker(ctx, request{Repair: true, Root: b.mounts.root})
	if err == nil {
		worker.Stdout = complaint // there may be no /dev/null
		err = worker.Start()
	}
	if err != nil {
		b.console.Warnf("the links may not be as they were: %v", err)
		return
	}
	ended := make(chan error, 1)
	safely.Go("waiting for the links", func() {
		err := worker.Wait()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, strings.TrimSpace(complaint.String()))
		}
		ended <- err
	}, func(err error) { ended <- err })
	if err := end(ended, repairTime+2*endGrace); err != nil {
		b.console.Warnf("the links may not be as they were: %v", err)
	}
}

// endGrace is how long a worker may take to end when there is nothing more to expect of it.
const endGrace = 2 * time.Second

// end is how a worker has ended. What hangs in the kernel does not end when it is killed.
func end(ended <-chan error, atMost time.Duration) error {
	err, came := wait.For(ended, atMost)
	if !came {
		return errors.New("it does not end")
	}
	return err
}

// awaitWorker waits for the worker's answer, and then for its end, but no longer than endGrace: a worker with a thread that
// loads a driver does not end before the kernel has done that, even when it is killed. died is told of a panic while the
// answer is read.
func awaitWorker(ctx context.Context, answer *os.File, ended <-chan error, died func(error)) (result, error) {
	answers := make(chan result, 1)
	safely.Go("reading the worker's answer", func() {
		defer close(answers)
		reached(stageReading)
		var r result
		if err := json.NewDecoder(answer).Decode(&r); err == nil && (r.Identity != nil || r.Why != "") {
			answers <- r
		}
	}, died)
	var r result
	var answered bool
	select {
	case r, answered = <-answers:
	case <-ctx.Done(): // it is being killed
	}
	err := end(ended, endGrace)
	if !answered { // until the end of the time it may have
		select {
		case r, answered = <-answers:
		default:
		}
	}
	if answered {
		return r, nil
	}
	if err == nil {
		err = errors.New("it says that all is well")
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	return r, fmt.Errorf("the worker ended without an answer: %w%s", err, remedy.WorkerEnded.See())
}

// toTalos reports whether the system that boots next is a Talos: by its own argument, or by its image.
func (b *boot) toTalos() bool { return b.decision.talos || exists(talosImage) }

// handOver gives the name to the operating system that is executed then. The worker is not trusted: package handover looks
// at the name before it takes effect.
func (b *boot) handOver(r result) ending {
	id, h := r.Identity, b.handover
	began := time.Now()
	give := func() error { return b.giveToAnyOS(r) }
	if h != nil {
		give = func() error { return h.Prepare(context.Background(), id.Hostname) }
	}
	if err := give(); err != nil {
		return notHandedOver(id.Hostname, err)
	}
	how := "as the kernel's hostname and in " + record.Path
	if h != nil {
		way, why := h.Way()
		how = fmt.Sprintf("on Talos' command line (%s)", way)
		if why != "" {
			b.console.Debugf("the strict way is not to be had: %s", why) // the other one proves itself
		}
	}
	total, handing := time.Since(b.began), time.Since(began)
	b.console.Noticef("%s (instance %s, by %s) goes %s after %s: %s",
		id.Hostname, id.InstanceID, id.Path, how, ms(total),
		summary(total, append(r.Steps, step{"handover", handing})))
	return ending{then: endExec, name: id.Hostname}
}

// giveToAnyOS sets the kernel's hostname and writes the record. The hostname is what counts: without the record the boot
// goes on.
func (b *boot) giveToAnyOS(r result) error {
	if _, err := handover.SetHostname(r.Identity.Hostname); err != nil {
		return err
	}
	_, err := record.MountRun("/run")
	if err == nil {
		err = recordOf(r).Write(record.Path)
	}
	if err != nil {
		b.console.Warnf("no record: %v", err)
	}
	return nil
}

// recordOf is the record of a result, with the boot's id: there is no /proc yet, where it would be looked for.
func recordOf(r result) record.Record {
	rec := record.From(r.Identity)
	rec.KnownSince = r.KnownSince
	if boot, err := readProc("sys/kernel/random/boot_id"); err == nil {
		rec.BootID = strings.TrimSpace(boot)
	}
	return rec
}

// talosImage is the root file system that a Talos initramfs carries.
const talosImage = "/rootfs.sqsh"

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// endHandover ends the handover's processes, where there will be no exec that they wait for.
func (b *boot) endHandover() {
	h := b.handover
	b.handover = nil
	if h == nil {
		return
	}
	if err := h.Close(); err != nil {
		b.console.Warnf("%v", err)
	}
}

// leave takes away what was mounted.
func (b *boot) leave() error {
	if b.mounts.root == "" {
		return nil
	}
	err := b.mounts.unmount()
	b.mounts = mounts{}
	return err
}

// openConsole opens the console, without anything being mounted, if it is not open yet.
func (b *boot) openConsole() {
	if b.console != nil {
		return
	}
	if dev, err := nowhere("devtmpfs"); err == nil {
		defer unix.Close(dev) //nolint:errcheck // not a file with content
		if fd, err := unix.Openat(dev, "kmsg", unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOCTTY, 0); err == nil {
			b.console = kmsg.New(os.NewFile(uintptr(fd), "/dev/kmsg"), kmsg.Format{Prefix: "nametag", Kernel: true, Unlimited: unlimited()})
			return
		}
	}
	b.console = kmsg.Open("nametag")
}

// unlimited reports whether the kernel drops no lines of ours: printk.devkmsg=on, which Talos has on its command line.
func unlimited() bool {
	setting, err := readProc("sys/kernel/printk_devkmsg")
	return err == nil && strings.TrimSpace(setting) == "on"
}

func ms(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }
