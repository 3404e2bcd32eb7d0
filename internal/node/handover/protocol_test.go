//go:build linux

package handover

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/procfs"
)

// through sends a message over a pipe, and returns what is heard of it.
func through[M message](t *testing.T, m message, parse func(string) (M, error)) (heard []M) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() {
		tell(w, m)
		w.Close()
	}()
	for m := range hear(r, parse, func(err error) { t.Error(err) }) {
		heard = append(heard, m)
	}
	return heard
}

func TestWhatIsToldIsHeard(t *testing.T) {
	for _, m := range []message{
		order{Name: "my-server", Text: "a \"b\xff\" talos.hostname=my-server\n", Before: "(none)", Then: procfs.PowerOff, Way: Watch, Limits: Limits{Exec: time.Second}},
		wordGo, wordStop, wordDone, wordPing, wordSync, wordHave,
		report{kind: msgBound, proc: 9, text: inTime},
	} {
		if got := through(t, m, parseDown); len(got) != 1 || got[0] != m {
			t.Errorf("down: %#v came as %#v", m, got)
		}
	}
	for _, r := range []report{
		{kind: msgBound, proc: 9, text: "3ms after the exec, by thread 1"},
		{kind: msgAlive, proc: -1, stops: 1 << 40, text: string(wordPing)},
		{kind: msgReleased, proc: -1},
		{kind: msgFailed, proc: 0, text: "no such file"},
	} {
		if got := through(t, r, parseReport); len(got) != 1 || got[0] != r {
			t.Errorf("up: %#v came as %#v", r, got)
		}
	}
	for _, a := range []answer{{ready: true}, {ready: true, way: Watch, text: "ptrace of the first process: thread 1: operation not permitted"}} {
		if got := through(t, a, parseAnswer); len(got) != 1 || got[0] != a {
			t.Errorf("to the first process: %#v came as %#v", a, got)
		}
	}
}

func TestAMessageIsOneLine(t *testing.T) {
	err := errors.Join(errors.New("one"), errors.New("two"))
	if got := through(t, report{kind: msgFailed, text: err.Error()}, parseReport); len(got) != 1 || got[0].text != "one; two" {
		t.Errorf("a report came as %#v", got)
	}
	if got := through(t, answer{text: err.Error()}, parseAnswer); len(got) != 1 || got[0].ready || got[0].text != "failed one; two" {
		t.Errorf("an answer came as %#v", got)
	}
}

func TestWhatIsNoMessage(t *testing.T) {
	for _, line := range []string{"", "bound", "bound x y", "bound 1 -1 text"} {
		if got := through(t, word(line), parseReport); len(got) != 0 {
			t.Errorf("%q was taken for %#v", line, got)
		}
		// Whoever hears a word that it does not know goes by that, and so does whoever waits for an order.
		for _, m := range through(t, word(line), parseDown) {
			if m != word(line) || new(keeper).accept(m) {
				t.Errorf("%q was taken for %#v", line, m)
			}
		}
		for _, a := range through(t, word(line), parseAnswer) {
			if a.ready {
				t.Errorf("%q was taken for %#v", line, a)
			}
		}
	}
}
