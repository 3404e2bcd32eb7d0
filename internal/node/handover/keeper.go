//go:build linux

package handover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
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
// not, and carries the policy out. There is one in each of the two processes, of a
// [guardian] or of a [standby], and that of the guardian acts and speaks as long as it
// lives. It belongs to one goroutine.
type keeper struct {
	order
	role    role
	console *kmsg.Console // nil in the one that stands by
	own     procRoot
	tree    int
	files   [2]*os.File // what own and tree are descriptors of

	reports <-chan report    // from the tracer; nil when there is none any more
	why     string           // why not strictly
	stale   string           // the mount that was on /proc before the exec
	late    *patience        // with the exec; nil before the caller is ready for it
	beats   <-chan time.Time // heartbeats

	execed   bool     // the next init runs
	bound    bool     // the file is on found's command line
	found    procRoot // the new /proc
	proven   bool     // nobody can have read the command line before
	released bool     // nothing is traced any more
	failure  error    // the tracer could not mount, and holds the first process
}

// A role is what one of the two processes does otherwise than the other: the guardian
// has the tracer for a child, and in the one that stands by it is a thread.
type role interface {
	// tracing is the process that the tracer is in, and child the same, or 0 where that
	// is this one.
	tracing() int
	child() int
	// stops is how often the first process has been stopped.
	stops() uint64
	// sync returns when all is noted that the tracer had reported before.
	sync(w word)
	// heard is told of each report.
	heard(r report)
	// answers reports whether the tracer can be expected to answer.
	answers() bool
	// pulse asks the tracer for a sign of life, and takes over from one that gave none.
	pulse() error
	// say tells the tracer something.
	say(m message)
	// hangs ends a tracer that does not let go.
	hangs()
	// freeze stops the tracer where it is, and with it what it holds; kill ends it.
	freeze()
	kill()
	// reached is for tests.
	reached(at moment)
}

// patient is a patience with processes of ours, or with the first.
func (k *keeper) patient(limit time.Duration, pids ...int) *patience {
	return newPatience(k.own, limit, k.role.stops(), pids...)
}

// note takes into account what a report says, or that there will be no more.
func (k *keeper) note(r report, ok bool) {
	if !ok {
		k.reports = nil
		k.fallBack("the tracer has ended before its time")
		return
	}
	k.role.heard(r)
	switch r.kind {
	case msgRefused:
		k.fallBack(r.text)
	case msgLost:
		k.role.kill() // the kernel lets go of what it holds
		k.fallBack(r.text)
	case msgExeced:
		k.execed = true
	case msgBound:
		k.adopt(r, k.role.child())
		k.proven = true // the first process stood still meanwhile
	case msgReleased:
		k.released = true
		k.console.Debugf("handover: %s", r.text)
	case msgFailed:
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
		if fd, err := k.own.open(link, unix.O_PATH|unix.O_DIRECTORY); err == nil && procRoot(fd).shows(string(k.Text)) {
			k.found = procRoot(fd)
		} else if p, _, ok := k.own.at(k.stale); ok {
			k.found = p
		} // else it is taken away by the tree
	}
	k.role.say(wordHave)
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
	k.late = k.patient(k.Limits.Exec, pid1)
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
	k.role.reached(stageGiving)
	stop := make(chan struct{})
	defer close(stop)
	sights := k.sights(stop)
	looks := time.NewTicker(tick)
	defer looks.Stop()
	strict, mount := k.patient(k.Limits.Strict, pid1), k.patient(k.Limits.Mount, pid1)
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
				silent = k.patient(k.Limits.Silence, k.role.tracing())
			}
		case <-k.beats:
			stops := k.role.stops()
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
				err = k.role.pulse()
			}
		case <-looks.C:
			if h := hostname(); h != string(k.Before) {
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
		k.role.sync(wordSync)
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
	limit := k.patient(k.Limits.Seize, k.role.tracing())
	for !k.released && k.reports != nil {
		select {
		case r, ok := <-k.reports:
			k.note(r, ok)
		case <-k.beats:
			if limit.beat(k.role.stops()) {
				k.role.hangs()
				return nil
			}
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
	if err := p.bind(k.tree, string(k.Text)); err != nil {
		p.close()
		return err
	}
	k.bound, k.found = true, p
	k.role.reached(stageBinding)
	// The system proper is started from the new root, to which /proc is moved before.
	// As long as it is here, that has not happened.
	again, now, ok := k.own.at(k.stale)
	k.proven = ok && now == id
	again.close()
	how := "too late to be sure that nobody has read it"
	if k.proven {
		how = inTime
	}
	k.role.say(report{kind: msgBound, proc: p, text: how})
	k.console.Debugf("handover: the name is on the command line, put there at the sight of the new /proc, %s", how)
	return nil
}

// takeOver does the tracer's work, in the state in which it is found, and ends it.
func (k *keeper) takeOver(why string) error {
	if k.Way == Watch {
		return nil
	}
	var err error
	if k.role.answers() {
		k.role.sync(wordSync) // it may have done it by now
		if k.bound || k.failure != nil {
			return k.failure
		}
	}
	if k.execed {
		k.role.freeze() // so that it is not half done by each
		err = k.look()
	}
	k.role.kill()
	k.fallBack(why)
	return err
}

// finish waits until the system has the name, and takes the mount away.
func (k *keeper) finish() error {
	k.role.reached(stageFinishing)
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
		case h != string(k.Before) && !k.proven:
			return fmt.Errorf("the system has named itself %q before the name was on its command line", h)
		case h != string(k.Before) && !other:
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
		err = k.found.unbind(string(k.Text))
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
	k.role.kill()
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
		k.role.reached(stageWatching)
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
