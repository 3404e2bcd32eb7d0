//go:build linux

package handover

import (
	"encoding/base64"
	"time"

	"github.com/nametag-boot/nametag/internal/node/kmsg"
	"github.com/nametag-boot/nametag/procfs"
)

// Way is how the file gets onto the next init's /proc/cmdline.
type Way uint8

// The ways.
const (
	// Strict stops the thread that mounts /proc at the return of its call. Nothing
	// can read the command line before the name is on it.
	Strict Way = iota
	// Watch waits on the mount table. There is a moment between the mount and ours;
	// that it was not too long is proven afterwards.
	Watch
)

// String returns "strict" or "watch".
func (w Way) String() string {
	if w == Watch {
		return "watch"
	}
	return "strict"
}

// Limits bounds the waits. A field that is zero stands for its default. What is waited for is the work of other
// processes, and a slow machine gives them little time to do it: so the limits are for time in which they do nothing, and
// not for the clock (see patience).
type Limits struct {
	Seize     time.Duration // until every thread is traced, and for each answer: 5 s
	Silence   time.Duration // without a sign of life, until the tracer is ended: 5 s
	Exec      time.Duration // from Commit until the exec: 30 s
	Strict    time.Duration // from the exec until the tracer is given up for Watch: 20 s
	Mount     time.Duration // from the exec until the next init is given up: 1 min
	Name      time.Duration // from the mount until the name is set or the mount is taken away: 5 min
	Grace     time.Duration // from another name until the mount is taken away: 30 s
	Countdown time.Duration // before a reboot, power-off or halt: 3 s, by the clock; a negative one means none
}

func (l Limits) orDefaults() Limits {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&l.Seize, 5 * time.Second},
		{&l.Silence, 5 * time.Second},
		{&l.Exec, 30 * time.Second},
		{&l.Strict, 20 * time.Second},
		{&l.Mount, time.Minute},
		{&l.Name, 5 * time.Minute},
		{&l.Grace, 30 * time.Second}, // the command line has been read by then, and pods may want a procfs of their own
		{&l.Countdown, 3 * time.Second},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	return l
}

// An order is all that the two processes are told, as one line of JSON on their
// first pipe. Nothing in it is secret.
type order struct {
	Name    string // as it stands on the line
	Text    raw    // the amended command line
	Before  raw    // the kernel's hostname now
	Then    procfs.Then
	Way     Way
	Limits  Limits
	Console kmsg.Format
}

// raw is text as the kernel has it, which may be any bytes. A string of JSON is UTF-8: of other bytes nothing is left
// there, and what is compared afterwards would be another text.
type raw string

// MarshalText is for encoding/json.
func (r raw) MarshalText() ([]byte, error) {
	return base64.StdEncoding.AppendEncode(nil, []byte(r)), nil
}

// UnmarshalText is for encoding/json.
func (r *raw) UnmarshalText(text []byte) error {
	b, err := base64.StdEncoding.AppendDecode(nil, text)
	*r = raw(b)
	return err
}

// The descriptors that both processes are born with, beside the console on 0, 1
// and 2. From 3 on a broken pipe is an error and not a SIGPIPE that kills.
const (
	fdIn   = 3 + iota // the order, then words: from the first process, or from the guardian
	fdOut             // the answers to them
	fdLife            // the tracer's own line from the first process; the guardian passes it on
	fdTree            // the file, as a mount
	fdProc            // a procfs that is mounted nowhere
)

// childName is what tells these processes from any other use of the binary.
const childName = "nametag-handover"

// The roles, which are the processes' first argument; the second is this program's
// path, for the guardian to start the tracer by.
const (
	roleGuardian = "guardian"
	roleTracer   = "tracer"
)
