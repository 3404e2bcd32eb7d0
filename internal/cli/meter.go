package cli

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// A Meter shows a person, or a log, how far something has come: one live line on a terminal, a line for each quarter
// elsewhere. The zero value shows nothing. Its methods may be called from several goroutines.
type Meter struct {
	mu      sync.Mutex
	w       io.Writer
	what    string
	live    bool
	drawn   bool
	last    time.Time
	quarter int64
}

// NewMeter returns a Meter for what is being done, such as "pushing ghcr.io/acme/nametag".
func NewMeter(w io.Writer, what string) *Meter {
	m := &Meter{w: w, what: Line(what), live: Terminal(w)}
	if s, ok := w.(*Screen); ok && m.live {
		m.w = s.to // a live line is made of what a Screen lets nobody else print
	}
	return m
}

// Quiet is a Meter that shows nothing but on a terminal: for what takes a second or two, which is nothing for a log.
func Quiet(w io.Writer, what string) *Meter {
	if !Terminal(w) {
		return &Meter{}
	}
	return NewMeter(w, what)
}

// Terminal says whether that is a terminal that can draw over a line. A dumb one cannot.
func Terminal(w io.Writer) bool {
	if s, ok := w.(*Screen); ok {
		w = s.to
	}
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" //nolint:gosec // a descriptor
}

// Update is for Registry.Progress.
func (m *Meter) Update(done, total int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.w == nil || total <= 0 {
		return
	}
	if m.live {
		// Ten times a second is as often as a person can read.
		if now := time.Now(); now.Sub(m.last) >= 100*time.Millisecond || done == total {
			m.last, m.drawn = now, true
			fmt.Fprintf(m.w, "\r\x1b[K%s: %s", m.what, share(done, total))
		}
		return
	}
	if quarter := done * 4 / total; quarter > m.quarter {
		m.quarter = quarter
		fmt.Fprintf(m.w, "%s: %s\n", m.what, share(done, total))
	}
}

// Close takes the live line away.
func (m *Meter) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.drawn {
		fmt.Fprint(m.w, "\r\x1b[K")
	}
	m.w = nil
}

func share(done, total int64) string {
	return fmt.Sprintf("%d %% of %s", done*100/total, Size(total))
}

// Size is a number of bytes in words.
func Size(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}
