//go:build linux

package handover

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nametag-boot/nametag/internal/node/kmsg"
)

// A standby is the second of the two processes: the tracer is a thread of it, and where
// the guardian is gone, it keeps the order.
type standby struct {
	*keeper
	count    atomic.Uint64 // how often the tracer has stopped the first process
	out      *os.File      // to the guardian
	guardian int           // its process; when it is gone, ours has another parent, who takes in orphans
	adopted  func()        // lets the tracer go on, which holds the first process until the mount has an owner
}

func newStandby(k *keeper) *standby {
	s := &standby{keeper: k}
	k.role = s
	return s
}

func (k *standby) tracing() int  { return os.Getpid() }
func (k *standby) child() int    { return 0 }
func (k *standby) stops() uint64 { return k.count.Load() }
func (k *standby) answers() bool { return true }

// The tracer is no process of its own that could be talked to, asked for a sign of life,
// or ended.
func (k *standby) say(message)    {}
func (k *standby) heard(report)   {}
func (k *standby) pulse() error   { return nil }
func (k *standby) freeze()        {}
func (k *standby) kill()          {}
func (k *standby) reached(moment) {}

// sync takes what is there: what the thread has reported.
func (k *standby) sync(word) {
	for {
		select {
		case r, ok := <-k.reports:
			k.note(r, ok)
		default:
			return
		}
	}
}

// hangs ends this process: only that makes the kernel let go. The name is given; the
// mount stays.
func (k *standby) hangs() {
	k.console.Errorf("handover: the tracer hangs; leaving with the command line still covered")
	os.Exit(1)
}

// adoption is how long the first process is held for a guardian that does nothing.
const adoption = time.Second

// run is the tracer's life: it traces, passes on what comes of it, and is there
// in case that the guardian is not.
func (k *standby) run(orders <-chan message, out *os.File, life <-chan message) int {
	reached(stageStands)
	k.out, k.guardian = out, os.Getppid()
	select {
	case m := <-orders:
		if !k.accept(m) {
			return 0
		}
	case <-life:
		return 0
	}
	adopted := make(chan struct{})
	k.adopted = sync.OnceFunc(func() { close(adopted) })
	k.trace(adopted)
	tell(out, report{kind: msgStanding, proc: -1})
	for guarded := true; guarded || !k.execed; {
		select {
		case r := <-k.reports:
			k.pass(r)
		case m, ok := <-orders:
			switch {
			case !ok:
				guarded, orders = false, nil
				k.adopted()
			case k.heed(m):
				return 0
			}
		case _, ok := <-life:
			if ok { // stop, the only word there is
				return 0
			}
			k.execed, life = true, nil
		case <-k.beats:
			switch {
			case k.late == nil || !k.late.beat(k.stops()):
			case guarded:
				k.late = k.patient(k.Limits.Exec, pid1) // it is the guardian's to say so
			default:
				k.console = kmsg.New(os.Stderr, k.Console)
				return k.fail(fmt.Errorf("the first process has not executed the next init, and %s", k.late))
			}
		}
	}
	k.console = kmsg.New(os.Stderr, k.Console)
	k.console.Warnf("handover: the guardian has ended before its time; the tracer does the rest")
	return k.keep()
}

// trace starts the thread that traces, where that is the way.
func (k *standby) trace(adopted <-chan struct{}) {
	reports := make(chan report, 16)
	k.reports = reports
	if k.Way != Strict {
		return
	}
	k.start("tracing", func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with it
		t := tracer{own: k.own, tree: k.tree, text: string(k.Text), stops: &k.count, say: func(r report) { reports <- r }}
		// A guardian that stands still, for whatever reason, must not keep the first process. It finds the new /proc later
		// by ours.
		t.adopted = func() { await(adopted, newPatience(k.own, adoption, 0, k.guardian)) }
		t.run()
	})
}

// pass notes a report of the thread, and passes it on.
func (k *standby) pass(r report) {
	k.note(r, true)
	tell(k.out, r)
}

// heed does what the guardian says, and reports whether that is to leave.
func (k *standby) heed(m message) (leave bool) {
	switch m := m.(type) {
	case report: // of what the guardian has mounted itself
		k.adopt(m, k.guardian)
		k.proven = m.text == inTime
	case word:
		switch m {
		case wordDone:
			return true
		case wordHave:
			k.adopted()
		case wordGo, wordPing, wordSync:
			if m == wordGo {
				k.commit()
			}
			for len(k.reports) > 0 { // the answer comes after what was to be told
				k.pass(<-k.reports)
			}
			tell(k.out, report{kind: msgAlive, proc: -1, stops: k.stops(), text: string(m)})
		}
	}
	return false
}
