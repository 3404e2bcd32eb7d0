//go:build linux

package handover

import (
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/node/kmsg"
	"github.com/nametag-boot/nametag/internal/safely"
)

// IsChild reports whether this process was started by [Start]. A main function
// asks before it does anything else:
//
//	if handover.IsChild() {
//		os.Exit(handover.ChildMain())
//	}
func IsChild() bool { return len(os.Args) == 3 && os.Args[0] == childName }

// ChildMain does what the process was started for and returns its exit status: 0
// when all was done or nothing was to do.
func ChildMain() (status int) {
	// A shutdown meanwhile asks every process to end. That is no reason to leave the
	// mount behind; the machine goes down with or without us.
	signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGPIPE)
	role, executable := os.Args[1], os.Args[2]
	in, out, life := file(fdIn, "in"), file(fdOut, "out"), file(fdLife, "life")
	k := &keeper{
		own:   procRoot(fdProc),
		tree:  fdTree,
		files: [2]*os.File{file(fdTree, target), file(fdProc, procPath)},
		found: -1,
		beats: time.NewTicker(heartbeat).C,
	}
	// The other process does the rest: it sees this one end.
	defer func() {
		if p := recover(); p != nil {
			status = k.died(&safely.PanicError{Doing: role, Value: p})
		}
	}()
	if role == roleTracer {
		return standBy(k, k.hear(in), out, k.hear(life))
	}
	reached(stageGuards)
	if err := k.startTracer(executable, life); err != nil {
		tell(out, wordFailed, err.Error())
		return 1
	}
	life.Close() // the tracer's
	status = guard(k, k.hear(in), out)
	k.dismiss() // not after a panic: then it has work to do
	return status
}

// statusPanic is the exit status of a process of ours that has met a bug.
const statusPanic = 3

// died says that this process has met a bug, and returns its exit status.
func (k *keeper) died(err error) int {
	kmsg.New(os.Stderr, k.Console).Errorf("handover: %v; this is a bug, please report it", err)
	return statusPanic
}

// start runs what goes on beside, whose panic is the end of this process: the other one does the rest.
func (k *keeper) start(doing string, fn func()) {
	safely.Go(doing, fn, func(err error) { os.Exit(k.died(err)) })
}

// hear is [hear], whose panic is the end of this process.
func (k *keeper) hear(f *os.File) <-chan string {
	return hear(f, func(err error) { os.Exit(k.died(err)) })
}

// take takes the order, whose line is the first one. Its absence is an order to
// leave: there was no name, or no exec.
func (k *keeper) take(line string) bool {
	return json.Unmarshal([]byte(line), &k.order) == nil
}

// file takes over a descriptor that this process was born with.
func file(fd int, name string) *os.File {
	unix.CloseOnExec(fd)
	_ = unix.SetNonblock(fd, true) // waited for together, not by a thread each
	return os.NewFile(uintptr(fd), name)
}

// guard is the guardian's life.
func guard(k *keeper, orders <-chan string, out *os.File) int {
	line := <-orders
	if !k.take(line) {
		return 0
	}
	k.console = kmsg.New(os.Stderr, k.Console)
	reached(stageOrdered)
	k.start("telling the tracer", func() { tell(k.other, line) })
	// Out of memory, these few megabytes are not worth a boot. Not every caller may.
	for _, pid := range []string{"self", strconv.Itoa(k.tracer.Pid)} {
		if fd, err := k.own.open(pid+"/oom_score_adj", unix.O_WRONLY); err == nil {
			_, _ = unix.Write(fd, []byte("-1000"))
			closeFD(fd)
		}
	}
	k.settle()
	reached(stageSettled)
	tell(out, wordReady, k.Way.String(), k.why)
	for !k.execed {
		select {
		case word, ok := <-orders:
			switch {
			case !ok: // closed by the exec
				k.execed = true
			case word == wordGo:
				k.commit()
				k.ask(wordGo)
				reached(stageCommitted)
				tell(out, wordReady, k.Way.String(), k.why)
			default:
				return 0
			}
		case r, ok := <-k.reports:
			k.note(r, ok)
		case <-k.beats:
			if k.late != nil && k.late.beat(k.stops()) {
				return k.fail(fmt.Errorf("the first process has not executed the next init, and %s", k.late))
			}
			if err := k.pulse(); err != nil {
				return k.fail(err)
			}
		}
	}
	return k.keep()
}

// adoption is how long the first process is held for a guardian that does nothing.
const adoption = time.Second

// standBy is the tracer's life: it traces, passes on what comes of it, and is there
// in case that the guardian is not.
func standBy(k *keeper, orders <-chan string, out *os.File, life <-chan string) int {
	reached(stageStands)
	guardian := os.Getppid() // later it may be another, who takes in orphans
	select {
	case line := <-orders:
		if !k.take(line) {
			return 0
		}
	case <-life:
		return 0
	}
	reports := make(chan report, 16)
	k.reports = reports
	adopted := make(chan struct{})
	adopt := sync.OnceFunc(func() { close(adopted) })
	k.count = new(atomic.Uint64)
	if k.Way == Strict {
		k.start("tracing", func() {
			runtime.LockOSThread() // and never unlocked: the thread ends with it
			t := tracer{private: k.own, tree: k.tree, text: k.Text, stops: k.count, say: func(r report) { reports <- r }}
			// A guardian that stands still, for whatever reason, must not keep the first process. It finds the new /proc later
			// by ours.
			t.adopted = func() { await(adopted, newPatience(k.own, adoption, 0, guardian)) }
			t.run()
		})
	}
	pass := func(r report) {
		k.note(r, true)
		tell(out, r.String())
	}
	tell(out, report{kind: standing, proc: -1}.String())
	for guarded := true; guarded || !k.execed; {
		select {
		case r := <-reports:
			pass(r)
		case line, ok := <-orders:
			switch {
			case !ok:
				guarded, orders = false, nil
				adopt()
			case line == wordHave:
				adopt()
			case line == wordDone:
				return 0
			case line == wordPing, line == wordSync, line == wordGo:
				if line == wordGo {
					k.commit()
				}
				for len(reports) > 0 { // the answer comes after what was to be told
					pass(<-reports)
				}
				tell(out, report{kind: alive, proc: -1, stops: k.stops(), text: line}.String())
			default: // what the guardian has mounted itself
				if r, err := parseReport(line); err == nil {
					k.adopt(r, guardian)
					k.proven = r.text == inTime
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
				k.late = k.patient(k.Limits.Exec, first) // it is the guardian's to say so
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
