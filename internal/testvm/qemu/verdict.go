//go:build linux

package qemu

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/qemu/report"
)

// Outcome is how a boot ended.
type Outcome uint8

// The ends that there are.
const (
	Running    Outcome = iota // it still ran when Until was satisfied, or has not ended yet
	TimedOut                  // it still ran at its time-out
	Reset                     // the guest reset the machine, once more than Scenario.Resets
	PoweredOff                // the guest switched it off
	Halted                    // the kernel stopped: System halted
	Panicked                  // the kernel panicked
	Died                      // QEMU ended by itself
)

func (o Outcome) String() string {
	names := [...]string{"running", "timed out", "reset", "powered off", "halted", "panicked", "died"}
	if int(o) < len(names) {
		return names[o]
	}
	return "outcome " + strconv.Itoa(int(o))
}

// Line is one of the console.
type Line struct {
	Host  time.Duration // when it was complete, since QEMU was started
	Guest time.Duration // the kernel's own timestamp; -1 where it has none
	Text  string        // without the timestamp
}

// String is the line with both times.
func (l Line) String() string {
	guest := strings.Repeat(" ", 12)
	if l.Guest >= 0 {
		guest = fmt.Sprintf("[%10.6f]", l.Guest.Seconds())
	}
	return fmt.Sprintf("%8.3f %s %s", l.Host.Seconds(), guest, l.Text)
}

// printk is the kernel's timestamp (kernel/printk/printk.c, print_time).
var printk = regexp.MustCompile(`^\[ *(\d+)\.(\d{6})\] ?`)

func parseLine(host time.Duration, text string) Line {
	l := Line{Host: host, Guest: -1, Text: text}
	if m := printk.FindStringSubmatch(text); m != nil {
		s, err1 := strconv.ParseInt(m[1], 10, 32)
		us, err2 := strconv.ParseInt(m[2], 10, 32)
		if err1 == nil && err2 == nil {
			l.Guest = time.Duration(s)*time.Second + time.Duration(us)*time.Microsecond
			l.Text = text[len(m[0]):]
		}
	}
	return l
}

// Verdict is what a boot came to.
type Verdict struct {
	Outcome  Outcome
	Took     time.Duration // on the host, from the start of QEMU
	Resets   int           // how often the guest reset the machine and it booted again
	Console  []Line
	Events   []report.Event
	Requests []cloud.Request // what the metadata service was asked
}

// All is the events of a kind, in order.
func (v *Verdict) All(kind report.Kind) []report.Event {
	var found []report.Event
	for _, e := range v.Events {
		if e.Kind == kind {
			found = append(found, e)
		}
	}
	return found
}

// First is the first event of a kind; ok is false where there is none.
func (v *Verdict) First(kind report.Kind) (e report.Event, ok bool) {
	i := slices.IndexFunc(v.Events, func(e report.Event) bool { return e.Kind == kind })
	if i < 0 {
		return report.Event{}, false
	}
	return v.Events[i], true
}

// State is what the first report of a kind found; nil where there is none.
func (v *Verdict) State(kind report.Kind) *report.State {
	e, _ := v.First(kind)
	return e.State
}

// Names is every name that the OS gave the kernel, in order: one, where all went well.
func (v *Verdict) Names() []string {
	var names []string
	for _, e := range v.All(report.Named) {
		names = append(names, e.Name)
	}
	return names
}

// Member is what etcd calls its member; "" where it never answered.
func (v *Verdict) Member() string {
	e, _ := v.First(report.Member)
	return e.Name
}

// Service is the name under which services started; "" where none did.
func (v *Verdict) Service() string {
	e, _ := v.First(report.Service)
	return e.Name
}

// Said says whether a line of the console contains the text.
func (v *Verdict) Said(text string) bool {
	return slices.ContainsFunc(v.Console, func(l Line) bool { return strings.Contains(l.Text, text) })
}

// Log is all of it as text: what stands in the log of a test that failed.
func (v *Verdict) Log() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v after %.1fs, %d resets\n-- reports --\n", v.Outcome, v.Took.Seconds(), v.Resets)
	for _, e := range v.Events {
		fmt.Fprintln(&b, e)
	}
	b.WriteString("-- metadata --\n")
	for _, r := range v.Requests {
		fmt.Fprintf(&b, "%+v\n", r)
	}
	b.WriteString("-- console: seconds on the host, the kernel's --\n")
	for _, l := range v.Console {
		fmt.Fprintln(&b, l)
	}
	return b.String()
}
