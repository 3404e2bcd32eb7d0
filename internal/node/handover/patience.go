//go:build linux

package handover

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/joined"
)

// A patience is how long something is waited for that other processes have to do. The clock is no measure of that: on a
// slow or busy machine it runs on while nobody gets to anything. What counts is what they do. A beat in which they did
// nothing, though nobody kept them from it, counts against the limit. A beat in which one of them worked, or waited for a
// processor, or was stopped once more by our tracer, does not. Processor time of their own counts against eight times the
// limit: where the machine's own processor is taken away from it, by a busy host, that is counted as theirs.
type patience struct {
	proc  procRoot
	pids  []int
	limit time.Duration

	idle  time.Duration
	began work // what had been done in the beginning
	last  work
}

// A work is how far processes have come.
type work struct {
	cpu   time.Duration
	stops uint64
	ready bool // one of their threads runs, or waits for a processor
	gone  bool // not one of them is there
}

// stolen is by how much the processor time that a machine counts may be more than what it had.
const stolen = 8

// heartbeat is how often a patience is asked, and how often the guardian asks whether the tracer is there.
const heartbeat = 500 * time.Millisecond

// busy is the processor time within a beat from which on it was not an idle one: a tenth.
const busy = heartbeat / 10

func newPatience(proc procRoot, limit time.Duration, stops uint64, pids ...int) *patience {
	p := &patience{proc: proc, pids: pids, limit: limit}
	p.began = p.look(stops)
	p.last = p.began
	return p
}

// String says why it is at its end.
func (p *patience) String() string {
	if p.idle >= p.limit {
		return fmt.Sprintf("nothing has happened for %v", p.idle)
	}
	return fmt.Sprintf("%v of processor time were not enough", p.last.cpu-p.began.cpu)
}

// beat takes one more heartbeat into account, and reports whether the patience is at its end. stops is how often the
// tracer has stopped the first process.
func (p *patience) beat(stops uint64) bool {
	now := p.look(stops)
	if now.gone || now.stops == p.last.stops && !now.ready && now.cpu-p.last.cpu < busy {
		p.idle += heartbeat
	}
	p.last = now
	return p.idle >= p.limit || p.spent(now)
}

// spent reports whether they have had too much of the processor's time.
func (p *patience) spent(now work) bool { return now.cpu-p.began.cpu >= stolen*p.limit }

func (p *patience) look(stops uint64) work {
	w := work{stops: stops, gone: true}
	for _, pid := range p.pids {
		cpu, ready, err := p.proc.work(pid)
		if err != nil {
			continue
		}
		w.gone, w.cpu, w.ready = false, w.cpu+cpu, w.ready || ready
	}
	return w
}

// clockTick is the unit of times in /proc/PID/stat: USER_HZ, 100 a second on every architecture that Go runs on.
const clockTick = time.Second / 100

// work is the processor time that a process has used, and whether one of its threads runs or waits for a processor.
func (p procRoot) work(pid int) (cpu time.Duration, ready bool, err error) {
	_, cpu, err = p.stat(strconv.Itoa(pid))
	if err != nil {
		return 0, false, err
	}
	tids, err := p.threads(pid)
	if err != nil {
		return 0, false, err
	}
	for _, tid := range tids {
		if state, _, err := p.stat(fmt.Sprintf("%d/task/%d", pid, tid)); err == nil && state == 'R' {
			return cpu, true, nil
		}
	}
	return cpu, false, nil
}

// errStat is for a stat that is not what proc(5) says.
var errStat = errors.New("not a stat")

// stat reads the state and the processor time out of a stat file.
func (p procRoot) stat(dir string) (state byte, cpu time.Duration, err error) {
	text, err := p.read(dir + "/stat")
	if err != nil {
		return 0, 0, err
	}
	// The name may have any bytes in it, brackets too. Behind it: state, and as the 12th and 13th utime and stime.
	i := bytes.LastIndexByte(text, ')')
	f := bytes.Fields(text[i+1:])
	if i < 0 || len(f) < 13 {
		return 0, 0, fmt.Errorf("%s: %w", dir, errStat)
	}
	user, err1 := strconv.ParseInt(string(f[11]), 10, 64)
	system, err2 := strconv.ParseInt(string(f[12]), 10, 64)
	if err := joined.Errors(err1, err2); err != nil {
		return 0, 0, fmt.Errorf("%s: %w", dir, err)
	}
	if f[0][0] == 'Z' {
		return 'Z', 0, fmt.Errorf("%s: %w", dir, unix.ESRCH)
	}
	return f[0][0], time.Duration(user+system) * clockTick, nil
}

// await waits until done is closed, with patience. It reports whether it was.
func await(done <-chan struct{}, p *patience) bool {
	beats := time.NewTicker(heartbeat)
	defer beats.Stop()
	for {
		select {
		case <-done:
			return true
		case <-beats.C:
			if p.beat(0) {
				return false
			}
		}
	}
}
