package handover

import (
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/kmsg"
)

// IsChild reports whether this process was started by [Prepare]. A main function
// asks before it does anything else:
//
//	if handover.IsChild() {
//		os.Exit(handover.ChildMain())
//	}
func IsChild() bool { return len(os.Args) == 2 && os.Args[0] == childName }

// ChildMain does what the process was started for and returns its exit status: 0
// when all was done or nothing was to do.
func ChildMain() (status int) {
	// A shutdown meanwhile asks every process to end. That is no reason to leave the
	// mount behind; the machine goes down with or without us.
	signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGPIPE)
	in, out, life := file(fdIn, "in"), file(fdOut, "out"), file(fdLife, "life")
	orders := hear(in)
	var o order
	if err := json.Unmarshal([]byte(<-orders), &o); err != nil {
		fmt.Fprintf(os.Stderr, "%s: not started by nametag: %v\n", childName, err)
		return 2
	}
	k := &keeper{
		order:   o,
		console: kmsg.New(os.Stderr, o.Console),
		own:     procRoot(fdProc),
		tree:    fdTree,
		files:   [2]*os.File{file(fdTree, target), file(fdProc, procPath)},
		found:   -1,
	}
	console := k.console
	defer func() {
		// The other process does the rest: it sees this one end.
		if p := recover(); p != nil {
			console.Errorf("handover: %s: %v; this is a bug, please report it", os.Args[1], p)
			status = 3
		}
	}()
	if os.Args[1] == roleTracer {
		return standBy(k, orders, out, hear(life))
	}
	status = guard(k, orders, out, life)
	k.dismiss() // not after a panic: then it has work to do
	return status
}

// file takes over a descriptor that this process was born with.
func file(fd int, name string) *os.File {
	unix.CloseOnExec(fd)
	_ = unix.SetNonblock(fd, true) // waited for together, not by a thread each
	return os.NewFile(uintptr(fd), name)
}

// guard is the guardian's life.
func guard(k *keeper, orders <-chan string, out, life *os.File) int {
	// Out of memory, these few megabytes are not worth a boot. Not every caller may.
	if fd, err := k.own.open("self/oom_score_adj", unix.O_WRONLY); err == nil {
		_, _ = unix.Write(fd, []byte("-1000"))
		closeFD(fd)
	}
	if err := k.startTracer(life); err != nil {
		tell(out, wordFailed, err.Error())
		return 1
	}
	life.Close() // the tracer's
	k.settle()
	tell(out, wordReady, k.Way.String(), k.why)
	for !k.execed {
		select {
		case word, ok := <-orders:
			switch {
			case !ok: // closed by the exec
				k.execed = true
			case word == wordGo:
				k.commit()
				tell(out, wordReady, k.Way.String(), k.why)
			default:
				return 0
			}
		case r, ok := <-k.reports:
			k.note(r, ok)
		case <-k.late:
			return k.fail(fmt.Errorf("the first process has not executed the next init within %v", k.Limits.Exec))
		}
	}
	return k.keep()
}

// standBy is the tracer's life: it traces, passes on what comes of it, and is there
// in case that the guardian is not.
func standBy(k *keeper, orders <-chan string, out *os.File, life <-chan string) int {
	console := k.console
	k.console = nil
	reports := make(chan report, 16)
	k.reports = reports
	if k.Way == Strict {
		go func() {
			runtime.LockOSThread() // and never unlocked: the thread ends with it
			t := tracer{private: k.own, tree: k.tree, text: k.Text, say: func(r report) { reports <- r }}
			t.run()
		}()
	}
	tell(out, report{kind: standing, proc: -1}.String())
	for guarded := true; guarded || !k.execed; {
		select {
		case r := <-reports:
			k.note(r, true)
			tell(out, r.String())
		case line, ok := <-orders:
			switch {
			case !ok:
				guarded, orders = false, nil
			case line == wordDone:
				return 0
			default: // what the guardian has mounted itself
				if r, err := parseReport(line); err == nil {
					k.adopt(r, os.Getppid())
				}
			}
		case word, ok := <-life:
			switch {
			case !ok:
				k.execed, life = true, nil
			case word == wordGo:
				k.commit()
			default:
				return 0
			}
		case <-k.late:
			if !guarded {
				k.console = console
				return k.fail(fmt.Errorf("the first process has not executed the next init within %v", k.Limits.Exec))
			}
			k.late = nil
		}
	}
	k.console = console
	k.console.Warnf("handover: the guardian has ended before its time; the tracer does the rest")
	return k.keep()
}

// after is a timer's channel, for waits that end with the process.
func after(d time.Duration) <-chan time.Time { return time.NewTimer(d).C }
