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
	count atomic.Uint64 // how often the tracer has stopped the first process
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
	guardian := os.Getppid() // later it may be another, who takes in orphans
	select {
	case m := <-orders:
		if !k.accept(m) {
			return 0
		}
	case <-life:
		return 0
	}
	reports := make(chan report, 16)
	k.reports = reports
	adopted := make(chan struct{})
	adopt := sync.OnceFunc(func() { close(adopted) })
	if k.Way == Strict {
		k.start("tracing", func() {
			runtime.LockOSThread() // and never unlocked: the thread ends with it
			t := tracer{own: k.own, tree: k.tree, text: string(k.Text), stops: &k.count, say: func(r report) { reports <- r }}
			// A guardian that stands still, for whatever reason, must not keep the first process. It finds the new /proc later
			// by ours.
			t.adopted = func() { await(adopted, newPatience(k.own, adoption, 0, guardian)) }
			t.run()
		})
	}
	pass := func(r report) {
		k.note(r, true)
		tell(out, r)
	}
	tell(out, report{kind: msgStanding, proc: -1})
	for guarded := true; guarded || !k.execed; {
		select {
		case r := <-reports:
			pass(r)
		case m, ok := <-orders:
			if !ok {
				guarded, orders = false, nil
				adopt()
				break
			}
			switch m := m.(type) {
			case report: // of what the guardian has mounted itself
				k.adopt(m, guardian)
				k.proven = m.text == inTime
			case word:
				switch m {
				case wordHave:
					adopt()
				case wordDone:
					return 0
				case wordGo, wordPing, wordSync:
					if m == wordGo {
						k.commit()
					}
					for len(reports) > 0 { // the answer comes after what was to be told
						pass(<-reports)
					}
					tell(out, report{kind: msgAlive, proc: -1, stops: k.stops(), text: string(m)})
				}
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
