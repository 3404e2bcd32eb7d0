//go:build linux

// Package report is how a guest tells the test what it saw: one JSON object a line, on the second serial port. The
// first one is the console, where the kernel's lines may cut any other in two; nobody but the stand-ins writes here,
// and the kernel keeps one write(2) to a terminal in one piece (drivers/tty/tty_io.c, atomic_write_lock).
package report

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// device is the guest's end of the line: behind the console's port, which is another kind of device on arm64.
func device() string {
	if runtime.GOARCH == "arm64" {
		return "/dev/ttyS0"
	}
	return "/dev/ttyS1"
}

// Kind says what happened.
type Kind string

// What a guest reports, in the order of a boot.
const (
	Clock    Kind = "clock"    // the wall clock was set; Name: to what
	First    Kind = "first"    // the first process was about to start; Text: its path
	Started  Kind = "started"  // an /init began; State: what it found
	Mounted  Kind = "mounted"  // /init mounted a pseudo file system; Name: which; Text: by which call on which thread
	Exec     Kind = "exec"     // /init was about to become machined; State: what it leaves
	Switched Kind = "switched" // machined began, in the new root; State: what the initramfs left to it
	Named    Kind = "named"    // the kernel's hostname was set to another name; Name: the name; Text: the layer
	Metadata Kind = "metadata" // one attempt at the platform's metadata ended; Name: the hostname, Text: the error
	Network  Kind = "network"  // an interface was configured; Name: which; Text: the lease
	Config   Kind = "config"   // the machine's configuration arrived
	Service  Kind = "service"  // services were started; Name: the node's name as they got it; State
	Stored   Kind = "stored"   // the platform's answer was written to the disk; Name: the name
	Member   Kind = "member"   // etcd answered; Name: its member's name
	ProcFS   Kind = "procfs"   // a mount -t proc in a new user namespace; Text: "ok" or the error
	Given    Kind = "given"    // an /init was given something by the kernel; Name: what; Text
	Compared Kind = "compared" // an init was started without the helper and with it; Name: which, how; Text: the differences
	Settled  Kind = "settled"  // the boot is over; State: what is left
	Fatal    Kind = "fatal"    // the stand-in cannot go on; Text: why
)

// Event is one thing a guest saw.
type Event struct {
	At    time.Duration `json:"at"` // since the kernel started (CLOCK_BOOTTIME), as the console's timestamps
	From  string        `json:"from"`
	Kind  Kind          `json:"kind"`
	Name  string        `json:"name,omitempty"`
	Text  string        `json:"text,omitempty"`
	State *State        `json:"state,omitempty"`
}

// String is the event as one line.
func (e Event) String() string {
	s := fmt.Sprintf("[%10.6f] %s: %s", e.At.Seconds(), e.From, e.Kind)
	for _, part := range []string{e.Name, e.Text} {
		if part != "" {
			s += " " + part
		}
	}
	if e.State != nil {
		s += " " + e.State.String()
	}
	return s
}

// Writer writes a guest's events. Its zero value drops them.
type Writer struct {
	from string
	file *os.File
}

// Open is the line for the program named from. A guest without the port reports nothing: its own work goes on.
func Open(from string) *Writer {
	f, err := os.OpenFile(device(), os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return &Writer{from: from}
	}
	return &Writer{from: from, file: f}
}

// Write stamps the event with the time and the program, and sends it. Safe for use by several goroutines.
func (w *Writer) Write(e Event) {
	if w.file == nil {
		return
	}
	e.At, e.From = Now(), w.from
	line, err := json.Marshal(e)
	if err != nil {
		return // no field of Event can fail
	}
	_, _ = w.file.Write(append(line, '\n')) // nobody to tell
}

// Now is the time since the kernel started.
func Now() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// Parse reads one line. Lines of anybody else are refused.
func Parse(line []byte) (Event, error) {
	var e Event
	if err := json.Unmarshal(line, &e); err != nil {
		return Event{}, fmt.Errorf("report: %w in %q", err, line)
	}
	return e, nil
}
