//go:build linux

package handover

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/joined"
)

// pid1 is the process that the next init is executed in.
const pid1 = 1

// unknown is the number of a system call whose entry was not seen.
const unknown = ^uint64(0)

// A tracer follows the threads of the first process to the return of the call that
// mounts /proc. All its methods belong to one thread, locked to its goroutine.
// Whatever goes wrong, the end of that thread makes the kernel let go of them all.
type tracer struct {
	own     procRoot
	tree    int
	text    string
	say     func(report) // tells the keeper
	adopted func()       // waits until whoever takes the mount away again holds the new /proc

	threads map[int]uint64 // those that are traced, and the call that each is in
	stale   string         // the mount that was on /proc at the exec
	stops   *atomic.Uint64 // how often one of them has been stopped

	// Of the next init, where it is a program of Go's. Its first thread makes some 170 calls before there is a second one,
	// and mounts nothing (runtime·rt0_go to runtime.main, which starts sysmon). The second is sysmon, which runs none of the
	// program's code, and makes a call every 20 µs to 10 ms (runtime/proc.go). Neither is stopped for its calls.
	goes   bool
	sysmon int // 0 before there is one
}

// run seizes, follows, mounts and lets go. It returns when nothing is traced any
// more, and never while the first process has to be held: that is for whoever ends
// this process.
func (t *tracer) run() {
	t.threads = map[int]uint64{}
	reached(stageSeizing)
	if err := t.seize(); err != nil {
		t.giveUp(err, 0)
		return
	}
	t.say(report{kind: msgSeized, text: fmt.Sprintf("%d threads", len(t.threads))})
	found, at, detail, err := t.follow()
	if errors.Is(err, errNoMount) {
		t.giveUp(err, at)
		return
	}
	if err != nil {
		// The thread that mounted stands still. It may go on when the policy says so.
		t.say(report{kind: msgFailed, text: err.Error()})
		select {}
	}
	t.say(report{kind: msgBound, proc: found, text: detail})
	t.adopted()
	reached(stageReleasing)
	start := time.Now()
	n := len(t.threads)
	if err := t.release(at); err != nil {
		t.say(report{kind: msgLost, text: err.Error()})
		return
	}
	t.say(report{kind: msgReleased, text: fmt.Sprintf("let go of %d threads in %v", n, time.Since(start).Round(10*time.Microsecond))})
}

// giveUp lets go, last of a thread that stands still if last is not 0, and says so.
func (t *tracer) giveUp(why error, last int) {
	if err := t.release(last); err != nil {
		t.say(report{kind: msgLost, text: joined.Errors(why, err).Error()})
		return
	}
	t.say(report{kind: msgRefused, text: why.Error()})
}

// seize takes every thread of the first process. A thread that an untraced one
// makes meanwhile is seen in the next round; one that a traced one makes is traced
// from its birth.
func (t *tracer) seize() error {
	const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEEXEC
	for fresh := true; fresh; {
		fresh = false
		tids, err := t.own.threads(pid1)
		if err != nil {
			return err
		}
		for _, tid := range tids {
			if _, ok := t.threads[tid]; ok {
				continue
			}
			switch errno := ptrace(unix.PTRACE_SEIZE, tid, options); errno {
			case 0:
			case unix.ESRCH:
				continue
			default:
				if by, err := t.own.tracerOf(pid1, tid); err != nil || by != unix.Gettid() {
					return fmt.Errorf("ptrace of the first process: thread %d: %w", tid, errno)
				}
			}
			t.threads[tid] = unknown
			fresh = true
		}
	}
	return nil
}

// errNoMount means that the first process cannot be followed any further.
var errNoMount = errors.New("the first process was lost sight of before it mounted /proc")

// follow lets the first process run up to the return of the call, by whichever of
// its threads, that makes /proc a procfs, mounts the tree there and returns with
// that thread still stopped.
func (t *tracer) follow() (found procRoot, at int, detail string, err error) {
	var exec time.Time
	for {
		tid, status, err := waitTracee(-1)
		if err != nil {
			return -1, 0, "", fmt.Errorf("%w: %w", errNoMount, err)
		}
		if !status.Stopped() {
			delete(t.threads, tid)
			continue
		}
		if _, ok := t.threads[tid]; !ok {
			t.threads[tid] = unknown
		}
		t.stops.Add(1)
		switch event(status) {
		case unix.PTRACE_EVENT_CLONE:
			if child, errno := eventMessage(tid); errno == 0 && t.goes && t.sysmon == 0 {
				t.sysmon = child
			}
		case unix.PTRACE_EVENT_EXEC:
			if tid != pid1 {
				break
			}
			// The exec has ended the other threads, whatever thread it was made by.
			clear(t.threads)
			t.threads[tid] = unknown
			if exec.IsZero() {
				exec = time.Now()
				reached(stageFollowing)
				t.stale, t.goes = t.own.stale(), t.own.isGo(pid1)
				t.say(report{kind: msgExeced})
			}
		case unix.PTRACE_EVENT_STOP:
			switch status.StopSignal() {
			case unix.SIGSTOP, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU: // stopped by its own: leave it so
				ptrace(unix.PTRACE_LISTEN, tid, 0)
				continue
			}
		}
		if status.StopSignal() == callStop && event(status) == 0 && !exec.IsZero() {
			mounted, err := t.mounted(tid)
			if err != nil {
				return -1, tid, "", err
			}
			if mounted {
				if p, _, ok := t.own.at(t.stale); ok {
					took := time.Since(exec)
					reached(stageMounted)
					if err := p.bind(t.tree, t.text); err != nil {
						p.close()
						return -1, tid, "", err
					}
					return p, tid, fmt.Sprintf("%v after the exec, at the return of the mount by thread %d, %d stops", took.Round(10*time.Microsecond), tid, t.stops.Load()), nil
				}
			}
		}
		// ESRCH: killed meanwhile, which wait will tell.
		ptrace(t.resume(tid, !exec.IsZero()), tid, pending(status))
	}
}

// resume is how a thread goes on: up to its next call, or up to the next event.
func (t *tracer) resume(tid int, execed bool) int {
	switch {
	case !execed: // our own code, and nothing to see
		return unix.PTRACE_CONT
	case !t.goes:
		return unix.PTRACE_SYSCALL
	case t.sysmon == 0 && tid != pid1: // its birth may be seen before the event that tells of it
		t.sysmon = tid
	}
	if t.sysmon == 0 || t.sysmon == tid {
		return unix.PTRACE_CONT
	}
	return unix.PTRACE_SYSCALL
}

// mounted reports whether a thread that is stopped at a system call returns from
// one that may have mounted something: mount or move_mount, or one whose entry was
// not seen.
func (t *tracer) mounted(tid int) (bool, error) {
	info, errno := call(tid)
	switch {
	case errno == unix.ESRCH: // killed meanwhile
		return false, nil
	case errno != 0: // EIO before Linux 5.3
		return false, fmt.Errorf("%w: PTRACE_GET_SYSCALL_INFO: %w", errNoMount, errno)
	case info.op == unix.PTRACE_SYSCALL_INFO_ENTRY:
		t.threads[tid] = info.payload[0]
		return false, nil
	}
	nr := t.threads[tid]
	t.threads[tid] = unknown
	return info.succeeded() && (nr == unix.SYS_MOUNT || nr == unix.SYS_MOVE_MOUNT || nr == unknown), nil
}

// release lets go of every thread, and of the one that stands still last, so that
// it cannot run on, towards an exec that a security policy would refuse to a traced
// process, while others are still held. It then makes sure that nobody is traced.
func (t *tracer) release(last int) error {
	asked := map[int]bool{last: true}
	for again := true; again; {
		again = false
		// Threads that were born traced may not have been seen by wait yet.
		if tids, err := t.own.threads(pid1); err == nil {
			for _, tid := range tids {
				if _, ok := t.threads[tid]; !ok {
					t.threads[tid] = unknown
				}
			}
		}
		for tid := range t.threads {
			if !asked[tid] {
				asked[tid], again = true, true
				t.letGo(tid)
			}
		}
	}
	if last != 0 {
		ptrace(unix.PTRACE_DETACH, last, 0)
	}
	clear(t.threads)
	return t.alone()
}

// letGo stops a thread, since only a stopped one can be detached, and detaches it
// with the signal that it was about to get.
func (t *tracer) letGo(tid int) {
	if ptrace(unix.PTRACE_INTERRUPT, tid, 0) != 0 {
		return // gone, or never ours
	}
	_, status, err := waitTracee(tid)
	if err != nil || !status.Stopped() {
		return // gone
	}
	if event(status) == unix.PTRACE_EVENT_CLONE {
		if child, errno := eventMessage(tid); errno == 0 {
			if _, ok := t.threads[child]; !ok {
				t.threads[child] = unknown
			}
		}
	}
	ptrace(unix.PTRACE_DETACH, tid, pending(status))
}

// alone returns an error if a thread of the first process is still traced by us.
func (t *tracer) alone() error {
	tids, err := t.own.threads(pid1)
	if err != nil {
		return err
	}
	for _, tid := range tids {
		by, err := t.own.tracerOf(pid1, tid)
		if err != nil {
			return err
		}
		if by == unix.Gettid() {
			return fmt.Errorf("thread %d of the first process is still traced", tid)
		}
	}
	return nil
}
