//go:build linux

package handover

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/node/kmsg"
)

// A guardian is the first of the two processes: it keeps the order, with the tracer as
// its child.
type guardian struct {
	*keeper

	tracer *os.Process
	ended  chan struct{}
	other  *os.File // words for the tracer

	told   uint64    // how often the tracer has stopped the first process, as it told last
	missed int       // words that the tracer has not answered
	mute   *patience // with its answer; nil when none is due
}

func newGuardian(k *keeper) *guardian {
	g := &guardian{keeper: k}
	k.role = g
	return g
}

func (k *guardian) tracing() int      { return k.tracer.Pid }
func (k *guardian) child() int        { return k.tracer.Pid }
func (k *guardian) stops() uint64     { return k.told }
func (k *guardian) answers() bool     { return k.missed == 0 }
func (k *guardian) say(m message)     { tell(k.other, m) }
func (k *guardian) reached(at moment) { reached(at) }

// heard takes a report for the sign of life that it is.
func (k *guardian) heard(r report) {
	k.missed, k.mute = 0, nil
	if r.kind == msgAlive {
		k.told = max(k.told, r.stops)
	}
}

// hangs ends the tracer, of which the kernel lets go then.
func (k *guardian) hangs() {
	k.console.Warnf("handover: the tracer hangs; ending it")
	k.kill()
}

// run is the guardian's life.
func (k *guardian) run(orders <-chan message, out *os.File) int {
	if !k.accept(<-orders) {
		return 0
	}
	k.console = kmsg.New(os.Stderr, k.Console)
	reached(stageOrdered)
	ordered := k.order // as it was taken: it may be changed by the time it is written
	k.start("telling the tracer", func() { tell(k.other, ordered) })
	// Out of memory, these few megabytes are not worth a boot. Not every caller may.
	for _, pid := range []string{"self", strconv.Itoa(k.tracer.Pid)} {
		if fd, err := k.own.open(pid+"/oom_score_adj", unix.O_WRONLY); err == nil {
			_, _ = unix.Write(fd, []byte("-1000"))
			closeFD(fd)
		}
	}
	k.settle()
	reached(stageSettled)
	tell(out, answer{ready: true, way: k.Way, text: k.why})
	for !k.execed {
		select {
		case m, ok := <-orders:
			switch {
			case !ok: // closed by the exec
				k.execed = true
			case m == wordGo:
				k.commit()
				k.sync(wordGo)
				reached(stageCommitted)
				tell(out, answer{ready: true, way: k.Way, text: k.why})
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

// startTracer starts the second process.
func (k *guardian) startTracer(executable string, life *os.File) error {
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
	k.reports = hear(r, parseReport, k.dies)
	return nil
}

// settle waits until it is clear which way it goes.
func (k *guardian) settle() {
	limit := k.patient(k.Limits.Seize, k.tracer.Pid)
	for k.reports != nil {
		select {
		case r, ok := <-k.reports:
			k.note(r, ok)
			if r.kind != msgStanding || k.Way == Watch {
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

// sync waits until the tracer has answered a word, and so until all that it reported
// before has been noted.
func (k *guardian) sync(w word) {
	tell(k.other, w)
	limit := k.patient(k.Limits.Silence, k.tracer.Pid)
	for k.reports != nil {
		select {
		case r, ok := <-k.reports:
			k.note(r, ok)
			if r.kind == msgAlive && r.text == string(w) {
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

// pulse asks the tracer for a sign of life, and takes over from one that gave none.
// A stuck tracer would hold the first process for good.
func (k *guardian) pulse() error {
	if k.reports == nil || k.bound && k.released {
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

// freeze stops the tracer where it is, and with it what it holds.
func (k *guardian) freeze() {
	if k.tracer.Signal(unix.SIGSTOP) != nil {
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
func (k *guardian) kill() {
	k.reports = nil
	_ = k.tracer.Kill()
	await(k.ended, k.patient(k.Limits.Seize, k.tracer.Pid))
}

// dismiss sends the tracer home.
func (k *guardian) dismiss() {
	tell(k.other, wordDone)
	if !await(k.ended, k.patient(k.Limits.Seize, k.tracer.Pid)) {
		k.kill()
	}
}
