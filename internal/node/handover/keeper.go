//go:build linux

package handover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/node/kmsg"
	"github.com/nametag-boot/nametag/internal/node/remedy"
)

const (
	// tick is how often the hostname is looked at; a change gives no event that could
	// be waited for without opening a file that a security policy guards.
	tick = 20 * time.Millisecond
	// manyStops is how often the first process is stopped at most. Talos' has been seen to
	// need 1,600; one that has another /proc, or none, must not be traced for good.
	manyStops = 100_000
)

// A keeper keeps the order: it knows how far things are, does what the tracer does
// not, and carries the policy out. There is one in each of the two processes, and
// that of the guardian acts and speaks as long as it lives. It belongs to one
// goroutine.
type keeper struct {
	order
	console *kmsg.Console // nil in the one that stands by
	own     procRoot
	tree    int
	files   [2]*os.File // what own and tree are descriptors of

	reports <-chan report    // from the tracer; nil when there is none any more
	why     string           // why not strictly
	stale   string           // the mount that was on /proc before the exec
	late    *patience        // with the exec; nil before the caller is ready for it
	beats   <-chan time.Time // heartbeats
	told    uint64           // how often the tracer has stopped the first process, as it told last
	count   *atomic.Uint64   // the same, where the tracer is a thread of this process

	execed   bool     // the next init runs
	bound    bool     // the file is on found's command line
	found    procRoot // the new /proc
	proven   bool     // nobody can have read the command line before
	released bool     // nothing is traced any more
	failure  error    // the tracer could not mount, and holds the first process

	tracer *os.Process // the guardian's child, nil in the tracer's own keeper
	ended  chan struct{}
	other  *os.File  // words for the tracer
	missed int       // words that the tracer has not answered
	mute   *patience // with its answer; nil when none is due
}

// startTracer starts the second process.
func (k *keeper) startTracer(executable string, life *os.File) error {
	in, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer in.Close()
	r, out, err := os.Pipe()
	if err != nil {
		w.Close()
		return err
	}
	defer out.Close()
	k.tracer, err = spawn(executable, roleTracer, os.Stderr, in, out, life, k.files[0], k.files[1])
	if err != nil {
		w.Close()
		r.Close()
		return err
	}
	k.other, k.ended = w, make(chan struct{})
	tracer := k.tracer
	k.start("waiting for the tracer", func() {
		defer close(k.ended)
		_, _ = tracer.Wait()
	})
	lines, reports := k.hear(r), make(chan report, 16)
	k.reports = reports
	k.start("hearing the tracer", func() {
		defer close(reports)
		for line := range lines {
			if r, err := parseReport(line); err == nil {
				reports <- r
			}
		}
	})
	return nil
}

// settle waits until it is clear which way it goes.
func (k *keeper) settle() {
	limit := k.patient(k.Limits.Seize, k.tracer.Pid)
	for k.reports != nil {
		select {
		case r, ok := <-k.reports:
			k.note(r, ok)
			if r.kind != standing || k.Way == Watch {
				return
			}
		case <-k.beats:
			if limit.beat(k.stops()) {
				k.kill()
				k.fallBack("the tracer has said nothing, and " + limit.String())
				return
			}
		}
	}
}

// ask waits until the tracer has answered a word, and so until all that it reported
// before has been noted.
func (k *keeper) ask(word string) {
	if k.tracer == nil { // a thread of this process: what it reported is here
		for {
			select {
			case r, ok := <-k.reports:
				k.note(r, ok)
			default:
				return
			}
		}
	}
	tell(k.other, word)
	limit := k.patient(k.Limits.Silence, k.tracer.Pid)
	for k.reports != nil {
		select {
		case r, ok := <-k.reports:
			k.note(r, ok)
			if r.kind == alive && r.text == word {
				return
			}
		case <-k.beats:
			if limit.beat(k.stops()) {
				k.kill()
				k.fallBack("the tracer has said nothing, and " + limit.String())
			}
		}
	}
}

// stops is how often the first process has been stopped.
func (k *keeper) stops() uint64 {
	if k.count != nil {
		return k.count.Load()
	}
	return k.told
}

// patient is a patience with processes of ours, or with the first.
func (k *keeper) patient(limit time.Duration, pids ...int) *patience {
	return newPatience(k.own, limit, k.stops(), pids...)
}

// pulse asks the tracer for a sign of life, and takes over from one that gave none.
// A stuck tracer would hold the first process for good.
func (k *keeper) pulse() error {
	if k.tracer == nil || k.reports == nil || k.bound && k.released {
		return nil
	}
	if k.mute == nil {
		k.mute = k.patient(k.Limits.Silence, k.tracer.Pid)
	} else if k.mute.beat(k.stops()) {
		return k.takeOver(fmt.Sprintf("the tracer gives no sign of life, asked %d times", k.missed))
	}
	k.missed++
	tell(k.other, wordPing)
	return nil
}

// note takes a report, or the end of them, to the books.
func (k *keeper) note(r report, ok bool) {
	if !ok {
		k.reports = nil
		k.fallBack("the tracer has ended before its time")
		return
	}
	k.missed, k.mute = 0, nil
	switch r.kind {
	case alive:
		k.told = max(k.told, r.stops)
	case refused:
		k.fallBack(r.text)
	case lost:
		k.kill() // the kernel lets go of what it holds
		k.fallBack(r.text)
	case execed:
		k.execed = true
	case bound:
		pid := 0
		if k.tracer != nil {
			pid = k.tracer.Pid
		}
		k.adopt(r, pid)
		k.proven = true // the first process stood still meanwhile
	case released:
		k.released = true
		k.console.Debugf("handover: %s", r.text)
	case failed:
		k.failure = errors.New(r.text)
	}
}

// adopt takes over the new /proc that another process of ours, or with pid 0 a
// thread of this one, has mounted the file on.
func (k *keeper) adopt(r report, pid int) {
	k.bound, k.found = true, r.proc
	if pid != 0 {
		// The link leads to the same mount, wherever that is.
		k.found = -1
		link := strconv.Itoa(pid) + "/fd/" + strconv.Itoa(int(r.proc))
		if fd, err := k.own.open(link, unix.O_PATH|unix.O_DIRECTORY); err == nil && procRoot(fd).shows(k.Text) {
			k.found = procRoot(fd)
		} else if p, _, ok := k.own.at(k.stale); ok {
			k.found = p
		} // else it is taken away by the tree
	}
	if k.other != nil {
		tell(k.other, wordHave)
	}
	k.console.Debugf("handover: the name is on the command line, %s", r.text)
}

// fallBack gives the strict way up.
func (k *keeper) fallBack(why string) {
	if k.Way == Watch || k.bound {
		return
	}
	k.Way, k.why = Watch, why
	if k.late != nil || k.execed { // before, the caller is told
		k.console.Debugf("handover: %s; watching the mount table instead", why)
	}
}

// commit is for the moment before the exec.
func (k *keeper) commit() {
	k.stale = k.own.stale()
	k.late = k.patient(k.Limits.Exec, first)
}

// keep does all that comes after the exec and returns the exit status.
func (k *keeper) keep() int {
	if err := k.give(); err != nil {
		return k.fail(err)
	}
	if err := k.finish(); err != nil {
		return k.fail(err)
	}
	return 0
}

// give sees to it that the file is on the new /proc, and that nothing is traced.
func (k *keeper) give() error {
	if k.tracer != nil {
		reached(stageGiving)
	}
	stop := make(chan struct{})
	defer close(stop)
	sights := k.sights(stop)
	looks := time.NewTicker(tick)
	defer looks.Stop()
	strict, mount := k.patient(k.Limits.Strict, first), k.patient(k.Limits.Mount, first)
	var silent *patience // with the tracer, once /proc is seen
	for !k.bound {
		if k.failure != nil {
			return k.failure
		}
		if k.Way == Watch {
			if err := k.look(); err != nil || k.bound {
				return err
			}
		}
		var err error
		select {
		case r, ok := <-k.reports:
			k.note(r, ok)
		case <-sights:
			if k.Way == Strict && silent == nil && k.sees() {
				tracer := os.Getpid() // a thread of this process
				if k.tracer != nil {
					tracer = k.tracer.Pid
				}
				silent = k.patient(k.Limits.Silence, tracer)
			}
		case <-k.beats:
			stops := k.stops()
			hangs, tooLong, never := silent != nil && silent.beat(stops), strict.beat(stops), mount.beat(stops)
			switch {
			case never:
				if err = k.takeOver("the tracer has not come to the mount of /proc"); err == nil && !k.bound {
					return fmt.Errorf("the next init has not mounted /proc, and %s", mount)
				}
			case hangs:
				err = k.takeOver("the tracer has not seen that /proc was mounted, and " + silent.String())
			case tooLong:
				err = k.takeOver("the next init has not mounted /proc yet, and " + strict.String())
			case stops > manyStops:
				err = k.takeOver(fmt.Sprintf("the next init has not mounted /proc in %d stops", stops))
			default:
				err = k.pulse()
			}
		case <-looks.C:
			if h := hostname(); h != k.Before {
				return k.tooLate(h)
			}
		}
		if err != nil {
			return err
		}
	}
	return k.letGo()
}

// tooLate is for a system that has set a hostname before we know of the mount. We
// may just be slow to hear of it.
func (k *keeper) tooLate(h string) error {
	if k.Way == Strict {
		k.ask(wordSync)
	}
	switch {
	case k.bound:
		return k.letGo()
	case named(h, k.Name):
		// It has read the line, so the mount was there, and nobody told: the tracer was
		// killed right after it.
		k.bound, k.proven = true, true
		return nil
	default:
		return fmt.Errorf("the system has named itself %q already", h)
	}
}

// letGo waits until nothing is traced any more.
func (k *keeper) letGo() error {
	if k.Way != Strict || k.released || k.reports == nil {
		return nil
	}
	tracer := os.Getpid()
	if k.tracer != nil {
		tracer = k.tracer.Pid
	}
	limit := k.patient(k.Limits.Seize, tracer)
	for !k.released && k.reports != nil {
		select {
		case r, ok := <-k.reports:
			k.note(r, ok)
		case <-k.beats:
			if !limit.beat(k.stops()) {
				continue
			}
			if k.tracer == nil {
				// It is a thread of this process, and only our end makes the kernel let go. The
				// name is given; the mount stays.
				k.console.Errorf("handover: the tracer hangs; leaving with the command line still covered")
				os.Exit(1)
			}
			k.console.Warnf("handover: the tracer hangs; ending it")
			k.kill()
			return nil
		}
	}
	return nil
}

// sees reports whether the next init has mounted its /proc.
func (k *keeper) sees() bool {
	p, _, ok := k.own.at(k.stale)
	p.close()
	return ok
}

// look mounts the file if the new /proc is there.
func (k *keeper) look() error {
	p, id, ok := k.own.at(k.stale)
	if !ok {
		return nil
	}
	if err := p.bind(k.tree, k.Text); err != nil {
		p.close()
		return err
	}
	k.bound, k.found = true, p
	if k.tracer != nil {
		reached(stageBinding)
	}
	// The system proper is started from the new root, to which /proc is moved before.
	// As long as it is here, that has not happened.
	again, now, ok := k.own.at(k.stale)
	k.proven = ok && now == id
	again.close()
	how := "too late to be sure that nobody has read it"
	if k.proven {
		how = inTime
	}
	if k.other != nil {
		tell(k.other, report{kind: bound, proc: p, text: how}.String())
	}
	k.console.Debugf("handover: the name is on the command line, put there at the sight of the new /proc, %s", how)
	return nil
}

// takeOver does the tracer's work, in the state in which it is found, and ends it.
func (k *keeper) takeOver(why string) error {
	if k.Way == Watch {
		return nil
	}
	var err error
	if k.missed == 0 || k.tracer == nil {
		k.ask(wordSync) // it may have done it by now
		if k.bound || k.failure != nil {
			return k.failure
		}
	}
	if k.execed {
		k.freeze() // so that it is not half done by each
		err = k.look()
	}
	k.kill()
	k.fallBack(why)
	return err
}

// freeze stops the tracer where it is, and with it what it holds.
func (k *keeper) freeze() {
	if k.tracer == nil || k.tracer.Signal(unix.SIGSTOP) != nil {
		return
	}
	for range 200 {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, k.tracer.Pid, &info, unix.WSTOPPED|unix.WNOHANG|unix.WNOWAIT, nil)
		if err != nil || info.Signo != 0 { // gone, or every thread of it stands
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// kill ends the tracer. The kernel lets go of all that it traced.
func (k *keeper) kill() {
	if k.tracer == nil {
		return
	}
	k.reports = nil
	_ = k.tracer.Kill()
	await(k.ended, k.patient(k.Limits.Seize, k.tracer.Pid))
}

// dismiss sends the tracer home.
func (k *keeper) dismiss() {
	if k.tracer == nil {
		return
	}
	tell(k.other, wordDone)
	if !await(k.ended, k.patient(k.Limits.Seize, k.tracer.Pid)) {
		k.kill()
	}
}

// finish waits until the system has the name, and takes the mount away.
func (k *keeper) finish() error {
	if k.tracer != nil {
		reached(stageFinishing)
	}
	looks := time.NewTicker(tick)
	defer looks.Stop()
	// By our own looks, not by the clock: what counts is the system's time to run, and where we get none, it gets none.
	var waited time.Duration
	for limit, other := k.Limits.Name, false; ; {
		switch h := hostname(); {
		case named(h, k.Name):
			k.console.Noticef("handover: the system has its name, %s, %v after it could read it", h, waited)
			k.uncover()
			return nil
		case h != k.Before && !k.proven:
			return fmt.Errorf("the system has named itself %q before the name was on its command line", h)
		case h != k.Before && !other:
			// A machine config may outrank the command line: the operator's choice.
			k.console.Warnf("handover: the system has named itself %q although %q is on its command line: its configuration may say so%s", h, k.Name, remedy.NamedItself.See())
			other, limit = true, min(limit, waited+k.Limits.Grace)
		case waited >= limit:
			k.console.Warnf("handover: the system has not taken the name %q within %v; its hostname is %q%s", k.Name, waited, h, remedy.NamedItself.See())
			k.uncover()
			return nil
		}
		select {
		case <-looks.C:
			waited += tick
		case r, ok := <-k.reports:
			k.note(r, ok)
		}
	}
}

// uncover takes the mount away. Where that is not to be had, the system runs with
// the right name all the same, and an operator must know.
func (k *keeper) uncover() {
	var err error
	if k.found >= 0 {
		err = k.found.unbind(k.Text)
	} else { // whoever has mounted it was killed before we had the new /proc
		err = k.own.detach(k.tree)
	}
	if err != nil {
		k.console.Errorf("handover: /proc/cmdline stays covered: %v; pods with hostUsers: false will fail to mount /proc until the next boot%s", err, remedy.StaysCovered.See())
	}
}

// fail carries the policy out and returns the exit status, if it returns.
func (k *keeper) fail(err error) int {
	why := fmt.Sprintf("the name %s could not be given to the next init: %v%s", k.Name, err, remedy.NotHandedOver.See())
	countdown := max(0, k.Limits.Countdown)
	// What is held stays held until the machine goes down: no service starts unnamed.
	if Enforce(context.Background(), k.Then, k.console, countdown, why) != nil {
		k.console.Errorf("handover: booting on without the name")
	}
	k.kill()
	if k.bound {
		k.uncover()
	}
	return 1
}

// sights tells when the mount table has changed, and now and then without. The
// goroutine ends soon after stop is closed.
func (k *keeper) sights(stop <-chan struct{}) <-chan struct{} {
	seen := make(chan struct{}, 1)
	fd, err := k.own.open("self/mountinfo", unix.O_RDONLY)
	k.start("watching the mount table", func() {
		defer func() {
			if err == nil {
				closeFD(fd)
			}
		}()
		if k.tracer != nil {
			reached(stageWatching)
		}
		for {
			select {
			case <-stop:
				return
			case seen <- struct{}{}:
			default:
			}
			if err != nil {
				time.Sleep(time.Millisecond)
				continue
			}
			// The kernel reports a change as an exceptional condition (mounts_poll in
			// fs/proc_namespace.c).
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}, 50)
		}
	})
	return seen
}
