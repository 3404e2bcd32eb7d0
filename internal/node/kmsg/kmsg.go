//go:build linux

// Package kmsg writes a boot's progress to the kernel log, for a program that
// runs before there is anything else to log to.
//
// The kernel has three rules for a writer of /dev/kmsg (kernel/printk/printk.c,
// devkmsg_write), and a [Console] is built around them:
//
//   - One write is one record, and a record that is too long is refused whole.
//     Lines are cut.
//   - Unless printk.devkmsg=on, each open file gets 10 records in 5 seconds, and
//     what is above is dropped in silence. A Console keeps the count itself,
//     saves the last records of a period for what is grave, and says how much it
//     left out. A line that repeats is folded. A flood is cut off in any case.
//   - The text goes to the serial line as it is. Names and errors come from a
//     network, so everything that is not printable is escaped.
//
// Where there is no /dev/kmsg, the lines go to the console or to standard error.
package kmsg

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Level is a line's severity, with syslog's numbers. The kernel shows on its
// console what is below its own level: all but Debug by default, only Error with
// "quiet" on the command line.
type Level uint8

// The levels in use.
const (
	Error   Level = 3 // it went wrong, and something drastic follows
	Warning Level = 4 // it went wrong, and the boot goes on
	Notice  Level = 5 // what an operator wants to see of a boot that went well
	Info    Level = 6 // the steps between
	Debug   Level = 7 // how we did it: in the kernel log, on no console
)

// daemon is syslog's facility for system services. The kernel keeps it as given.
const daemon = 3

const (
	// maxRecord is what every kernel takes as one record, priority included:
	// LOG_LINE_MAX, which was 1024 less a prefix of 32 or 48 bytes before it grew.
	maxRecord = 976
	// period and burst are the kernel's DEFAULT_RATELIMIT_INTERVAL and _BURST
	// (include/linux/ratelimit_types.h). The period is a little longer than the
	// kernel's 5 s, so that ours never ends before its.
	period = 5100 * time.Millisecond
	burst  = 10
	// ample is the burst where the kernel drops nothing. Lines are told of what others
	// on a network do; a serial line that is busy with them stops the boot.
	ample = 100
	// fold is how long a line that was said is not said again.
	fold = 30 * time.Second
	// remembered bounds the lines that are kept for folding.
	remembered = 32
)

// Format says how a console's lines look. It can be handed to another process
// together with the descriptor (see [Console.Spare]).
type Format struct {
	// Prefix stands before each line, with a colon. Empty: none.
	Prefix string
	// Kernel asks for /dev/kmsg's form, "<29>prefix: text\n". Without it, lines
	// are plain text.
	Kernel bool
	// Unlimited says that the reader drops nothing: lines are left out of a flood only.
	Unlimited bool
}

// A Console writes lines. Its methods may be called from several goroutines; each
// line is one write. Nothing it does fails: there is nobody left to tell. A nil
// Console says nothing.
type Console struct {
	format Format
	path   string // what it was opened by, or empty
	now    func() time.Time

	mu      sync.Mutex
	w       io.Writer
	closer  io.Closer
	started time.Time // of the period
	written int       // records in the period
	left    int       // lines left out since the last word on it
	said    []line    // the newest last
}

type line struct {
	text    string
	at      time.Time
	repeats int
}

// Open returns a console on the kernel log; on the console device where that
// cannot be opened; else on standard error. Close it when done.
func Open(prefix string) *Console { return OpenIn(prefix, "/dev", "/proc") }

// OpenIn is [Open] where devtmpfs and procfs are mounted elsewhere than on /dev and
// /proc. Neither has to stay.
func OpenIn(prefix, dev, proc string) *Console {
	setting, _ := os.ReadFile(proc + "/sys/kernel/printk_devkmsg")
	return open(prefix, dev, strings.TrimSpace(string(setting)) == "on")
}

func open(prefix, dev string, unlimited bool) *Console {
	for _, to := range []struct {
		path   string
		format Format
	}{
		{dev + "/kmsg", Format{Prefix: prefix, Kernel: true, Unlimited: unlimited}},
		{dev + "/console", Format{Prefix: prefix, Unlimited: true}},
	} {
		// Without O_NOCTTY a first process would make the console its own terminal.
		fd, err := unix.Open(to.path, unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
		if err == nil {
			c := New(os.NewFile(uintptr(fd), to.path), to.format)
			c.path = to.path
			return c
		}
	}
	c := New(os.Stderr, Format{Prefix: prefix, Unlimited: true})
	c.closer = nil // not ours to close
	return c
}

// New returns a console that writes to w. If w is an [io.Closer], Close closes it.
func New(w io.Writer, f Format) *Console {
	closer, _ := w.(io.Closer)
	return &Console{w: w, closer: closer, format: f, now: time.Now}
}

// Spare opens the console a second time, for another process. The kernel counts
// records per open file, so a spare has a count of its own; a duplicate would
// share it. The caller closes the file.
func (c *Console) Spare() (*os.File, Format, error) {
	if c == nil {
		return nil, Format{}, errors.New("kmsg: no console")
	}
	if c.path != "" {
		fd, err := unix.Open(c.path, unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
		if err == nil {
			return os.NewFile(uintptr(fd), c.path), c.format, nil
		}
	}
	f, ok := c.w.(*os.File)
	if !ok {
		return nil, Format{}, fmt.Errorf("kmsg: console %T is not a file", c.w)
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, Format{}, fmt.Errorf("kmsg: %s: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), c.format, nil
}

// Close says how much was left out, if anything was, and closes the file.
func (c *Console) Close() error {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.admitLeft(Error, 0)
	c.w = io.Discard
	if c.closer == nil {
		return nil
	}
	closer := c.closer
	c.closer = nil
	return closer.Close()
}

// Errorf says a line of level [Error].
func (c *Console) Errorf(format string, args ...any) { c.Say(Error, fmt.Sprintf(format, args...)) }

// Warnf says a line of level [Warning].
func (c *Console) Warnf(format string, args ...any) { c.Say(Warning, fmt.Sprintf(format, args...)) }

// Noticef says a line of level [Notice].
func (c *Console) Noticef(format string, args ...any) { c.Say(Notice, fmt.Sprintf(format, args...)) }

// Infof says a line of level [Info].
func (c *Console) Infof(format string, args ...any) { c.Say(Info, fmt.Sprintf(format, args...)) }

// Debugf says a line of level [Debug].
func (c *Console) Debugf(format string, args ...any) { c.Say(Debug, fmt.Sprintf(format, args...)) }

// Say writes one line. The same text within half a minute is counted, not
// written; when it comes again after that, it carries the count.
func (c *Console) Say(level Level, text string) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	suffix, again := c.folded(text)
	if again {
		return
	}
	c.admitLeft(level, 1)
	if c.room(level) <= 0 {
		c.left++
		c.forget(text) // it was not said
		return
	}
	c.write(level, text+suffix)
}

// folded reports whether text was said a moment ago; if it was said longer ago
// than that and kept coming, suffix says how often.
func (c *Console) folded(text string) (suffix string, again bool) {
	now := c.now()
	for i := range c.said {
		l := &c.said[i]
		if l.text != text {
			continue
		}
		if now.Sub(l.at) < fold {
			l.repeats++
			return "", true
		}
		if l.repeats > 0 {
			suffix = fmt.Sprintf(" (%d times in %v)", l.repeats+1, now.Sub(l.at).Round(time.Second))
		}
		c.said = append(c.said[:i], c.said[i+1:]...)
		break
	}
	if len(c.said) == remembered {
		c.said = append(c.said[:0], c.said[1:]...)
	}
	c.said = append(c.said, line{text: text, at: now})
	return suffix, false
}

func (c *Console) forget(text string) {
	if n := len(c.said); n > 0 && c.said[n-1].text == text {
		c.said = c.said[:n-1]
	}
}

// room is how many records of a level the period's allowance has left. The graver the
// line, the deeper it may dig: an error finds room where the steps of a boot used up
// theirs.
func (c *Console) room(level Level) int {
	if now := c.now(); c.written == 0 || now.Sub(c.started) >= period {
		c.started, c.written = now, 0
	}
	return c.burst() - max(0, int(level)-int(Error)) - c.written
}

// burst is how many records a period takes.
func (c *Console) burst() int {
	if c.format.Unlimited {
		return ample
	}
	return burst
}

// admitLeft says how many lines were left out, once there is room for it and for so
// many lines more, to which it gives way.
func (c *Console) admitLeft(level Level, more int) {
	if c.left == 0 || c.room(level) <= more {
		return
	}
	why := fmt.Sprintf("the kernel's log takes %d in 5s (printk.devkmsg=on lifts this)", burst)
	if c.format.Unlimited {
		why = fmt.Sprintf("more than %d in 5s are a flood", ample)
	}
	c.write(Warning, fmt.Sprintf("… %d lines left out, %s", c.left, why))
	c.left = 0
}

func (c *Console) write(level Level, text string) {
	c.written++
	b := make([]byte, 0, 128)
	if c.format.Kernel {
		b = fmt.Appendf(b, "<%d>", daemon<<3|int(level))
	}
	if c.format.Prefix != "" {
		b = append(b, c.format.Prefix+": "...)
	}
	b = escape(b, text, maxRecord-1)
	_, _ = c.w.Write(append(b, '\n')) // one call, one record
}
