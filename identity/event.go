package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/internal/safely"
)

// An Event is something that changed while Resolve was at work. Programs go by the
// fields other than Detail; those that do not apply are zero.
type Event struct {
	At   time.Duration // since Resolve began, by the monotonic clock
	Kind EventKind
	Path PathInfo // the card alone for what concerns no method, zero for what concerns no card

	// Try is the number of the path's attempt that begins or has failed, and Next is
	// when the path's next one is due, counted as At is. (A change of the network may
	// bring that forward.) They come with EventTrying, EventFailed and EventAttempt.
	Try  int
	Next time.Duration

	Presence Presence // what the firmware says, with EventPlatform
	Hostname string   // the name, with EventNamed
	Detail   string   // in words, for people
	Err      error    // what went wrong, or nil

	// Link is the event of the network below, with Kind [EventLink] only. It is not
	// part of the JSON form.
	Link *earlynet.Event
}

// EventKind is what an [Event] is about.
type EventKind uint8

// The kinds of events.
const (
	EventPlatform   EventKind = iota + 1 // what the firmware says, and what follows from it
	EventLink                            // the network below: a card, an address, an offer, an undo
	EventTrying                          // a path is there, and its first attempt begins
	EventFailed                          // an attempt failed otherwise than the one before it
	EventAttempt                         // another attempt begins; with Err: it failed as the one before it. No timeline has it
	EventUnproven                        // the id of the answer that counts is not proven to be this machine's
	EventNamed                           // the name is proven; sent at once, while the link still stands
	EventCompleted                       // the rest of the identity is in, or why not all of it
	EventNotKept                         // the link of the path that won could not be kept
	EventUndoFailed                      // the network could not be put back fully
	EventLeftBehind                      // a source's attempt ignores the end of its context and of its connections
	EventObserver                        // a callback of the caller's panicked, and is not called again
	EventFolded                          // stands for events that the timeline has no room for
)

var kindNames = [...]string{
	EventPlatform: "platform", EventLink: "link", EventTrying: "trying", EventFailed: "failed", EventAttempt: "attempt", EventUnproven: "unproven", EventNamed: "named",
	EventCompleted: "completed", EventNotKept: "not-kept", EventUndoFailed: "undo-failed", EventLeftBehind: "left-behind", EventObserver: "observer", EventFolded: "folded",
}

// String returns the kind in one word, as in JSON.
func (k EventKind) String() string {
	if k == 0 || int(k) >= len(kindNames) {
		return fmt.Sprintf("EventKind(%d)", k)
	}
	return kindNames[k]
}

// Level is how much an operator should know of it: an Info is a step that
// counts, a Debug what goes well in between, a Warn what may need a remedy.
func (e Event) Level() slog.Level {
	switch e.Kind {
	case EventFailed, EventUnproven, EventNotKept, EventUndoFailed, EventObserver:
		return slog.LevelWarn
	case EventNamed:
		return slog.LevelInfo
	}
	if e.Link == nil {
		return slog.LevelDebug
	}
	switch e.Link.Kind {
	case earlynet.NICFound, earlynet.NICIgnored, earlynet.NoNIC, earlynet.NICGone, earlynet.NICRenamed, earlynet.PathReady, earlynet.Kept:
		return slog.LevelInfo
	case earlynet.CarrierLost, earlynet.Conflict, earlynet.DHCPNak, earlynet.PathFailed, earlynet.UndoFailed, earlynet.LinkLeftUp,
		earlynet.LinkBusy, earlynet.LinkSetDown, earlynet.TakenOver, earlynet.NextHop, earlynet.SettingFailed:
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// String is one line with the time: "0.012s eth0/linklocal: named: my-server".
func (e Event) String() string { return fmt.Sprintf("%.3fs %s", e.At.Seconds(), e.Sentence()) }

// Sentence is the event in words: "eth0/linklocal: named: my-server".
func (e Event) Sentence() string {
	if e.Link != nil { // the network's own words name its path already
		return e.Link.String()
	}
	words := []string{e.Path.String(), e.Kind.String(), e.Detail}
	switch {
	case e.Kind == EventAttempt:
		words[1] = fmt.Sprintf("attempt %d", e.Try)
	case e.Kind == EventFailed && e.Try > 1:
		words[1] = fmt.Sprintf("failed: try %d", e.Try)
	case e.Kind == EventNamed && e.Detail == "":
		words[2] = e.Hostname
	}
	if e.Err != nil {
		words = append(words, e.Err.Error())
	}
	return strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), ": ")
}

// eventJSON is an event's stable form.
type eventJSON struct {
	AtMS     float64 `json:"at_ms"`
	Kind     string  `json:"kind"`
	Path     string  `json:"path,omitempty"`
	Try      int     `json:"try,omitempty"`
	NextMS   float64 `json:"next_ms,omitempty"`
	Presence string  `json:"presence,omitempty"`
	Hostname string  `json:"hostname,omitempty"`
	Detail   string  `json:"detail,omitempty"`
	Err      string  `json:"error,omitempty"`
}

// MarshalJSON gives times in milliseconds, the kind as a word, the path by its name
// and the error as its text.
func (e Event) MarshalJSON() ([]byte, error) {
	out := eventJSON{
		AtMS: milliseconds(e.At), Kind: e.Kind.String(), Path: e.Path.String(),
		Try: e.Try, NextMS: milliseconds(e.Next), Hostname: e.Hostname, Detail: e.Detail,
	}
	if e.Kind == EventPlatform {
		out.Presence = e.Presence.String()
	}
	if e.Err != nil {
		out.Err = e.Err.Error()
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads what MarshalJSON wrote. Of the path, interface and method are
// left, and of the error the text.
func (e *Event) UnmarshalJSON(b []byte) error {
	var in eventJSON
	if err := json.Unmarshal(b, &in); err != nil {
		return err
	}
	*e = Event{
		At: duration(in.AtMS), Path: pathNamed(in.Path), Try: in.Try, Next: duration(in.NextMS),
		Hostname: in.Hostname, Detail: in.Detail,
	}
	for k, name := range kindNames {
		if name != "" && name == in.Kind {
			e.Kind = EventKind(k)
		}
	}
	for _, p := range []Presence{PresenceYes, PresenceNo} {
		if in.Presence == p.String() {
			e.Presence = p
		}
	}
	if in.Err != "" {
		e.Err = errors.New(in.Err)
	}
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func duration(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }

// keepFirst and keepLast bound a timeline: a flood loses its middle.
const (
	keepFirst = 96
	keepLast  = 96
)

// A timeline collects events and tells the observer, one at a time and in order.
type timeline struct {
	start    time.Time
	observer func(Event)

	mu     sync.Mutex
	first  []Event
	last   []Event // a ring once it is full
	oldest int     // the ring's oldest
	folded int
	closed bool
	broken []error // panics of callbacks
}

// add completes e with the time, records it and tells the observer.
func (t *timeline) add(e Event) { t.addAt(time.Now(), e) }

func (t *timeline) addAt(at time.Time, e Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return // from an attempt that was left behind
	}
	e.At = max(0, at.Sub(t.start))
	switch {
	case e.Kind == EventAttempt: // for progress, and too many to keep
	case len(t.first) < keepFirst:
		t.first = append(t.first, e)
	case len(t.last) < keepLast:
		t.last = append(t.last, e)
	default:
		t.last[t.oldest] = e
		t.oldest = (t.oldest + 1) % keepLast
		t.folded++
	}
	t.tell(e)
}

// tell calls the observer. One that panics is not called again: the process
// may be PID 1, and a broken console must not end it. The timeline says so.
func (t *timeline) tell(e Event) {
	observer := t.observer
	if observer == nil {
		return
	}
	if err := safely.Do("OnEvent", func() error { observer(e); return nil }); err != nil {
		t.observer = nil
		t.broken = append(t.broken, err)
		t.first = append(t.first, Event{At: e.At, Kind: EventObserver, Err: err})
	}
}

// call calls another callback of the caller's, in turn with the observer, and
// reports whether it may be called again.
func (t *timeline) call(name string, fn func()) (again bool) {
	err := t.inTurn(name, fn)
	if err != nil {
		t.add(Event{Kind: EventObserver, Err: err})
	}
	return err == nil
}

func (t *timeline) inTurn(name string, fn func()) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	err := safely.Do(name, func() error { fn(); return nil })
	if err != nil {
		t.broken = append(t.broken, err)
	}
	return err
}

// panics are those of the caller's callbacks.
func (t *timeline) panics() []error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.broken)
}

// link records an event of the network below.
func (t *timeline) link(e earlynet.Event) {
	path := PathInfo{Interface: e.Interface}
	if e.Method != 0 {
		path.Method = e.Method.String()
	}
	at := e.Time
	if at.IsZero() {
		at = time.Now()
	}
	detail := e.Kind.String()
	if e.Detail != "" {
		detail += ": " + e.Detail
	}
	t.addAt(at, Event{Kind: EventLink, Path: path, Detail: detail, Err: e.Err, Link: &e})
}

// close ends the record and returns it. The observer hears nothing afterwards.
func (t *timeline) close() []Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	events := append([]Event(nil), t.first...)
	if t.folded > 0 {
		oldest := t.last[t.oldest]
		events = append(events, Event{At: oldest.At, Kind: EventFolded, Detail: fmt.Sprintf("%d events left out", t.folded)})
	}
	events = append(events, t.last[t.oldest:]...)
	return append(events, t.last[:t.oldest]...)
}
