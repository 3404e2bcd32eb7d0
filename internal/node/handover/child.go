//go:build linux

package handover

import (
	"os"
	"os/signal"
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
		return newStandby(k).run(k.hear(in), out, k.hear(life))
	}
	reached(stageGuards)
	g := newGuardian(k)
	if err := g.startTracer(executable, life); err != nil {
		tell(out, answer{text: err.Error()})
		return 1
	}
	life.Close() // the tracer's
	status = g.run(k.hear(in), out)
	g.dismiss() // not after a panic: then it has work to do
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
	safely.Go(doing, fn, k.dies)
}

// dies ends this process.
func (k *keeper) dies(err error) { os.Exit(k.died(err)) }

// hear is [hear] for what goes down, and its panic is the end of this process.
func (k *keeper) hear(f *os.File) <-chan message { return hear(f, parseDown, k.dies) }

// accept takes the order, which is the first message. Its absence is an order to
// leave: there was no name, or no exec.
func (k *keeper) accept(m message) (ok bool) {
	if o, ordered := m.(order); ordered {
		k.order, ok = o, true
	}
	return ok
}

// file takes over a descriptor that this process was born with.
func file(fd int, name string) *os.File {
	unix.CloseOnExec(fd)
	_ = unix.SetNonblock(fd, true) // waited for together, not by a thread each
	return os.NewFile(uintptr(fd), name)
}
