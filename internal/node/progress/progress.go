//go:build linux

// Package progress shows a person, or a log, how far a resolve has come: one line per change of state.
//
// It renders the events of package identity in three ways: a single live line that keeps itself up to date on a
// terminal, plain lines, or one JSON object per line. What goes to the writer is progress only, never the answer.
package progress

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/internal/safely"
)

// A Format is a way to show progress.
type Format string

// The formats. Auto is Live on a terminal that can take a line back, and Plain elsewhere.
const (
	Auto  Format = "auto"
	Live  Format = "live"
	Plain Format = "plain"
	JSON  Format = "json"
	Off   Format = "off"
)

// ParseFormat returns the format of that name; the error lists the names.
func ParseFormat(s string) (Format, error) {
	switch f := Format(s); f {
	case Auto, Live, Plain, JSON, Off:
		return f, nil
	}
	return Off, fmt.Errorf("%q is no format; choose auto, live, plain, json or off", s)
}

// tick is how often the live line renews its clock.
const tick = 100 * time.Millisecond

// A Line shows events on a writer. Its methods may be called from several goroutines.
type Line struct {
	format Format
	began  time.Time
	stop   chan struct{}
	done   chan struct{}

	mu    sync.Mutex
	w     io.Writer
	width int       // columns of the terminal, with Live
	last  string    // what the live line says
	next  time.Time // when the next attempt is due that it counts down to; zero: none
	shown bool      // the live line stands on the terminal
}

// New returns a Line that shows events on w. Close it, so that the terminal is left clean.
func New(w io.Writer, f Format) *Line {
	l := &Line{w: w, format: f, began: time.Now(), stop: make(chan struct{}), done: make(chan struct{})}
	file, isFile := w.(*os.File)
	if f == Auto {
		l.format = Plain
		if isFile && term.IsTerminal(int(file.Fd())) && os.Getenv("TERM") != "dumb" {
			l.format = Live
		}
	}
	if l.format != Live {
		close(l.done)
		return l
	}
	l.width = 80
	if isFile {
		if cols, _, err := term.GetSize(int(file.Fd())); err == nil && cols > 0 {
			l.width = cols
		}
	}
	safely.Go("keeping the time of the live line", l.keepTime, func(error) {}) // the line stands still then; its events still come
	return l
}

// keepTime renews the live line's clock until Close.
func (l *Line) keepTime() {
	defer close(l.done)
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-t.C:
			l.renew()
		}
	}
}

func (l *Line) renew() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.draw()
}

// Show shows one event.
func (l *Line) Show(e identity.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch l.format {
	case Live:
		l.last, l.next = e.Sentence(), time.Time{}
		if e.Next > 0 {
			l.next = time.Now().Add(e.Next - e.At)
		}
		if e.Kind == identity.EventNamed { // worth keeping: it scrolls away like any line
			l.clear()
			fmt.Fprintf(l.w, "%s %s\n", clock(e.At), l.last)
			l.last = "putting the network back"
			return
		}
		l.draw()
	case Plain:
		if e.Kind == identity.EventAttempt {
			return // no change of state
		}
		fmt.Fprintf(l.w, "%s %s\n", clock(e.At), e.Sentence())
	case JSON:
		l.writeJSON(e)
	}
}

// Pause takes the live line away, so that something else can be printed; the next event brings it back.
func (l *Line) Pause() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clear()
}

// Close ends the live line. Nothing is written afterwards.
func (l *Line) Close() {
	l.mu.Lock()
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.clear()
	l.format = Off
	l.mu.Unlock()
	<-l.done
}

// draw writes the live line in place. The caller holds the lock.
func (l *Line) draw() {
	if l.format != Live || l.last == "" {
		return
	}
	text := clock(time.Since(l.began)) + " " + l.last
	if left := time.Until(l.next); left > 0 {
		text += fmt.Sprintf(", again in %.1fs", left.Seconds())
	}
	line := []rune(text)
	if len(line) >= l.width {
		line = append(line[:l.width-2], '…')
	}
	fmt.Fprintf(l.w, "\r\x1b[K%s", string(line))
	l.shown = true
}

// clear takes the live line away. The caller holds the lock.
func (l *Line) clear() {
	if l.shown {
		fmt.Fprint(l.w, "\r\x1b[K")
		l.shown = false
	}
}

// writeJSON writes the event's own JSON, as it stands in an identity's timeline.
func (l *Line) writeJSON(e identity.Event) {
	if line, err := json.Marshal(e); err == nil {
		fmt.Fprintf(l.w, "%s\n", line)
	}
}

// clock is the time since the beginning, in a column of fixed width.
func clock(d time.Duration) string {
	return fmt.Sprintf("[%8.3fs]", d.Seconds())
}
