//go:build linux

package handover

// The protocol. Three processes talk by lines over pipes: words go down, reports and
// answers come up. An exec closes the first process' ends, and that is what it tells.
//
//	first process                 guardian                        tracer (standby)
//
//	  the order ────────────────▶ accept ───────────────────────▶ accept
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
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/nametag-boot/nametag/internal/joined"
	"github.com/nametag-boot/nametag/internal/safely"
)

// A message is one line on one of the pipes. Down go an [order], the first of each pipe, then words, and to the tracer also a
// report, of what the guardian has mounted; up go reports to the guardian and answers to the first process.
type message interface{ line() string }

// A word goes down.
type word string

const (
	wordGo   word = "go"   // the exec is next
	wordStop word = "stop" // it is not; undo and leave
	wordDone word = "done" // guardian to tracer: all is done, leave
	wordPing word = "ping" // guardian to tracer: are you there?
	wordSync word = "sync" // guardian to tracer: is there anything that I do not know?
	wordHave word = "have" // guardian to tracer: the new /proc is mine too
)

func (w word) line() string { return string(w) }

func (o order) line() string {
	text, _ := json.Marshal(o) // it has nothing in it that JSON has not
	return string(text)
}

// parseDown reads what goes down. What is neither an order nor a report is a word, of which each process knows some.
func parseDown(line string) (message, error) {
	var o order
	if json.Unmarshal([]byte(line), &o) == nil {
		return o, nil
	}
	if r, err := parseReport(line); err == nil {
		return r, nil
	}
	return word(line), nil
}

// A report is what the tracer tells of its work: to the keeper of its own process
// directly, to the guardian as a line "kind descriptor stops text".
type report struct {
	kind  kind
	proc  procRoot // with msgBound: the new procfs, a descriptor of the sender's process
	stops uint64   // with msgAlive: how often the first process has been stopped
	text  string
}

type kind string

const (
	msgStanding kind = "standing" // the process is there and can take over
	msgAlive    kind = "alive"    // the answer to a word, which is its text
	msgSeized   kind = "seized"   // all threads are traced
	msgRefused  kind = "refused"  // tracing is not to be had, or no longer; nothing is traced
	msgExeced   kind = "exec"     // the next init runs
	msgBound    kind = "bound"    // the file is on the new /proc and reads right
	msgReleased kind = "released" // nothing is traced any more
	msgFailed   kind = "failed"   // the new /proc is there, the file is not; the thread is held
	msgLost     kind = "lost"     // something may still be traced, and only the end of the process helps
)

// inTime is the text of msgBound where the guardian has mounted, and proven that nobody
// read the command line before.
const inTime = "in time"

func (r report) line() string { return fmt.Sprintf("%s %d %d %s", r.kind, r.proc, r.stops, r.text) }

func parseReport(line string) (report, error) {
	word, rest, _ := strings.Cut(line, " ")
	fd, rest, _ := strings.Cut(rest, " ")
	stops, text, _ := strings.Cut(rest, " ")
	n, err1 := strconv.Atoi(fd)
	m, err2 := strconv.ParseUint(stops, 10, 64)
	if joined.Errors(err1, err2) != nil {
		return report{}, fmt.Errorf("handover: not a report: %q", line)
	}
	return report{kind: kind(word), proc: procRoot(n), stops: m, text: text}, nil
}

// An answer is what the guardian tells the first process: that it is ready, which way it
// goes, and why not strictly; or that it cannot be.
type answer struct {
	ready bool
	way   Way
	text  string // why
}

// answerReady is how an answer begins that says so.
const answerReady = "ready"

func (a answer) line() string {
	if !a.ready {
		return "failed " + a.text
	}
	return answerReady + " " + a.way.String() + " " + a.text
}

// parseAnswer takes whatever is not understood for the trouble that it tells of.
func parseAnswer(line string) (answer, error) {
	word, rest, _ := strings.Cut(line, " ")
	if word != answerReady {
		return answer{text: line}, nil
	}
	a := answer{ready: true}
	way, why, _ := strings.Cut(rest, " ")
	if way == Watch.String() {
		a.way = Watch
	}
	a.text = why
	return a, nil
}

// tell sends a message, whose text may have had several lines. The other end may be gone, which shows elsewhere.
func tell(f *os.File, m message) {
	_, _ = f.WriteString(strings.ReplaceAll(m.line(), "\n", "; ") + "\n")
}

// hear returns the messages that come from f, closed when its other end is. One that is not understood is none. The
// goroutine lives as long as f. died is told of its panic; that the messages end may mean
// something else.
func hear[M message](f *os.File, parse func(line string) (M, error), died func(error)) <-chan M {
	messages := make(chan M, 16)
	safely.Go("hearing from "+f.Name(), func() {
		reached(stageHearing)
		s := bufio.NewScanner(f)
		s.Buffer(nil, 1<<20) // an order carries a command line
		for s.Scan() {
			if m, err := parse(s.Text()); err == nil {
				messages <- m
			}
		}
		close(messages)
	}, died)
	return messages
}
