//go:build linux

package handover

// The protocol. Three processes talk by lines over pipes: words go down, reports and
// answers come up. An exec closes the first process' ends, and that is what it tells.
//
//	first process                 guardian                        tracer (standby)
//
//	  the order ────────────────▶ take ─────────────────────────▶ take
//	                                        ◀─────────── standing   it can take over
//	                              settle    ◀───── seized, refused   or nothing for Watch
//	  await ◀──────────── ready (the way, why)
//	  go ───────────────────────▶ commit ── go ──────────────────▶ commit
//	                                        ◀────────────── alive
//	  await ◀──────────── ready
//	  exec: both pipes end ─────▶ keep                             (life ends) execed
//	                              give      ◀─────────────── exec    the next init runs
//	                                        ◀─────── bound, failed   /proc is there
//	                                 have ──────────────────────▶ adopt
//	                                        ◀─────────── released    nothing is traced
//	                              finish       the name is set: uncover
//	                                 done ──────────────────────▶ the end
//
//	each heartbeat (ping), and before a takeover (sync):
//	                             ping, sync ────────────────────▶
//	                                        ◀────────────── alive    behind all that was to be told
//	where only the end of the tracer helps:
//	                              kill      ◀─────────────── lost
//	where the guardian mounts:       bound ─────────────────────▶ adopt
//	where there is no exec:
//	  stop ─────────────────────▶ the end
//	  stop ──────────────────────────────────(life)─────────────▶ the end
//
// The phases of a keeper are its methods, in this order: settle (which way it goes),
// commit (the exec is next), give (the file is on the new /proc, nothing is traced),
// finish (the name is set, the file is taken away); fail is the other end of each. Where
// the guardian's pipe ends before, the tracer goes on from the phase that it knows of.

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/nametag-boot/nametag/internal/safely"
)

// A report is what the tracer tells of its work: to the keeper of its own process
// directly, to the guardian as a line "kind descriptor stops text".
type report struct {
	kind  kind
	proc  procRoot // with bound: the new procfs, a descriptor of the sender's process
	stops uint64   // with alive: how often the first process has been stopped
	text  string
}

type kind string

const (
	standing kind = "standing" // the process is there and can take over
	alive    kind = "alive"    // the answer to a word, which is its text
	seized   kind = "seized"   // all threads are traced
	refused  kind = "refused"  // tracing is not to be had, or no longer; nothing is traced
	execed   kind = "exec"     // the next init runs
	bound    kind = "bound"    // the file is on the new /proc and reads right
	released kind = "released" // nothing is traced any more
	failed   kind = "failed"   // the new /proc is there, the file is not; the thread is held
	lost     kind = "lost"     // something may still be traced, and only the end of the process helps
)

func (r report) String() string {
	return fmt.Sprintf("%s %d %d %s", r.kind, r.proc, r.stops, strings.ReplaceAll(r.text, "\n", "; "))
}

func parseReport(line string) (report, error) {
	word, rest, _ := strings.Cut(line, " ")
	fd, rest, _ := strings.Cut(rest, " ")
	stops, text, _ := strings.Cut(rest, " ")
	n, err1 := strconv.Atoi(fd)
	m, err2 := strconv.ParseUint(stops, 10, 64)
	if errors.Join(err1, err2) != nil {
		return report{}, fmt.Errorf("handover: not a report: %q", line)
	}
	return report{kind: kind(word), proc: procRoot(n), stops: m, text: text}, nil
}

// inTime is the text of bound where the guardian has mounted, and proven that nobody
// read the command line before.
const inTime = "in time"

// The words that go the other way.
const (
	wordGo   = "go"   // the exec is next
	wordStop = "stop" // it is not; undo and leave
	wordDone = "done" // guardian to tracer: all is done, leave
	wordPing = "ping" // guardian to tracer: are you there?
	wordSync = "sync" // guardian to tracer: is there anything that I do not know?
	wordHave = "have" // guardian to tracer: the new /proc is mine too
	// Answers to the first process: a word, the way, and why it is that way.
	wordReady  = "ready"
	wordFailed = "failed"
)

// tell writes one line. The other end may be gone, which shows elsewhere.
func tell(f *os.File, words ...string) {
	_, _ = f.WriteString(strings.ReplaceAll(strings.Join(words, " "), "\n", "; ") + "\n")
}

// hear returns the lines that come from f, closed when its other end is. The
// goroutine lives as long as f. died is told of its panic; that the lines end may mean
// something else.
func hear(f *os.File, died func(error)) <-chan string {
	lines := make(chan string, 16)
	safely.Go("hearing from "+f.Name(), func() {
		reached(stageHearing)
		s := bufio.NewScanner(f)
		s.Buffer(nil, 1<<20) // an order carries a command line
		for s.Scan() {
			lines <- s.Text()
		}
		close(lines)
	}, died)
	return lines
}
