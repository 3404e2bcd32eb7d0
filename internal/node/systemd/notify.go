//go:build linux

package systemd

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/nametag-boot/nametag/internal/safely"
)

// Managed reports whether systemd started this process as a service: whether it
// hears of the exit status, and acts on it.
func Managed() bool { return os.Getenv("INVOCATION_ID") != "" && os.Getenv("NOTIFY_SOCKET") != "" }

// Ready says that the service's start is complete.
func Ready() { notify(daemon.SdNotifyReady) }

// Status is the line that `systemctl status` and a slow boot's console show.
func Status(text string) { notify("STATUS=" + oneLine(text)) }

// extension is how much longer a start may take from each call of [KeepStarting] on.
// A process that hangs is ended after that.
const (
	extension  = 30 * time.Second
	extendEach = 10 * time.Second
)

// KeepStarting keeps systemd, from the background, from ending the start for taking
// too long, until the context ends. TimeoutStartSec= then says how long this process
// may show no sign of life, and not how long the network may take.
func KeepStarting(ctx context.Context) {
	extend := func() { notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", extension.Microseconds())) }
	extend()
	safely.Go("keeping systemd informed", func() {
		t := time.NewTicker(extendEach)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				extend()
			case <-ctx.Done():
				return
			}
		}
	}, func(error) {}) // systemd ends the start then, and acts by the policy
}

// notify tells systemd, which may not be there. Nothing hangs on its being heard.
func notify(state string) { _, _ = daemon.SdNotify(false, state) }

// oneLine keeps a text from being two assignments.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}
