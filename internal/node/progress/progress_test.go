//go:build linux

package progress

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
)

var path = identity.PathInfo{Interface: "eth0", Method: "dhcp"}

func TestAnEventIsOneSentence(t *testing.T) {
	ack := earlynet.Event{Interface: "eth0", Method: earlynet.DHCP, Kind: earlynet.DHCPAck, Detail: "10.0.0.2/32"}
	for _, c := range []struct {
		event identity.Event
		says  string
	}{
		{identity.Event{Kind: identity.EventTrying, Path: path}, "eth0/dhcp: trying"},
		{identity.Event{Kind: identity.EventAttempt, Path: path, Try: 3}, "eth0/dhcp: attempt 3"},
		{identity.Event{Kind: identity.EventAttempt, Path: path, Try: 3, Err: errors.New("connection refused")}, "eth0/dhcp: attempt 3: connection refused"},
		{identity.Event{Kind: identity.EventFailed, Path: path, Try: 3, Err: errors.New("connection refused")}, "eth0/dhcp: failed: try 3: connection refused"},
		{identity.Event{Kind: identity.EventNamed, Path: path, Hostname: "my-server"}, "eth0/dhcp: named: my-server"},
		{identity.Event{Kind: identity.EventNamed, Path: path, Detail: "my-server"}, "eth0/dhcp: named: my-server"},
		{identity.Event{Kind: identity.EventFailed, Path: path, Err: errors.New("connection refused")}, "eth0/dhcp: failed: connection refused"},
		{identity.Event{Kind: identity.EventPlatform, Detail: "a server of Hetzner Cloud"}, "platform: a server of Hetzner Cloud"},
		{identity.Event{Kind: identity.EventLink, Path: path, Detail: "ack: 10.0.0.2/32", Link: &ack}, "eth0 (dhcp): ack: 10.0.0.2/32"},
	} {
		if got := c.event.Sentence(); got != c.says {
			t.Errorf("it says %q, not %q", got, c.says)
		}
	}
}

// terminal is a pseudo-terminal: what is written to the second end is read at the first.
func terminal(t *testing.T) (screen, tty *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	if err := unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	return screen, tty
}

func TestATerminalThatTakesNoLineBackGetsPlainLines(t *testing.T) {
	for kind, live := range map[string]bool{"xterm": true, "dumb": false} {
		t.Setenv("TERM", kind)
		screen, tty := terminal(t)
		line := New(tty, Auto)
		line.Show(identity.Event{Kind: identity.EventTrying, Path: path})
		line.Close()
		tty.WriteString("the end\n")
		var said strings.Builder
		for b := make([]byte, 256); !strings.Contains(said.String(), "the end"); {
			n, err := screen.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			said.Write(b[:n])
		}
		if text := said.String(); strings.Contains(text, "\x1b") != live || !live && !strings.Contains(text, "trying") {
			t.Errorf("%s: it is sent %q", kind, text)
		}
	}
}

func TestALiveLineCountsDownToTheNextAttempt(t *testing.T) {
	var screen strings.Builder
	l := &Line{w: &screen, format: Live, began: time.Now(), width: 80}
	l.Show(identity.Event{Kind: identity.EventFailed, Path: path, Try: 1, At: time.Second, Next: 100 * time.Hour, Err: errors.New("connection refused")})
	if text := screen.String(); !strings.Contains(text, "connection refused, again in 3599") {
		t.Errorf("it says %q", text)
	}
	screen.Reset()
	l.Show(identity.Event{Kind: identity.EventAttempt, Path: path, Try: 2, At: 2 * time.Second, Next: time.Second}) // overdue already
	if text := screen.String(); !strings.Contains(text, "attempt 2") || strings.Contains(text, "again in") {
		t.Errorf("it says %q", text)
	}
}

func TestPlainLinesAreNoProgressBar(t *testing.T) {
	var said strings.Builder
	l := New(&said, Plain)
	defer l.Close()
	l.Show(identity.Event{Kind: identity.EventAttempt, Path: path, Try: 2})
	if said.Len() > 0 {
		t.Errorf("it says %q", said.String())
	}
}
