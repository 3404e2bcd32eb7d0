//go:build linux

package talos_test

import (
	"testing"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm/qemu"
	"github.com/nametag-boot/nametag/internal/testvm/qemu/report"
	"github.com/nametag-boot/nametag/internal/testvm/talos"
)

// How a boot ended is what the scenarios of then= stand on.
func TestHowABootEndsIsSeen(t *testing.T) {
	t.Parallel()
	helper := careless(t)
	for _, c := range []struct {
		name, argument string
		resets         int
		outcome        qemu.Outcome
	}{
		{name: "a guest that reboots has reset the machine", argument: "careless=reboot", outcome: qemu.Reset},
		{name: "a guest that may reboot once boots twice", argument: "careless=reboot", resets: 1, outcome: qemu.Reset},
		{name: "a guest that powers off has switched the machine off", argument: "careless=poweroff", outcome: qemu.PoweredOff},
		{name: "a guest that halts is still there and halted", argument: "careless=halt", outcome: qemu.Halted},
		{name: "a first process that ends is a panic and not a reboot", argument: "careless=panic", outcome: qemu.Panicked},
		{name: "a guest that does nothing runs into its time-out", argument: "standin_at=init:stop", outcome: qemu.TimedOut},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			timeout := time.Duration(0)
			if c.outcome == qemu.TimedOut {
				timeout = 3 * time.Second
			}
			v := qemu.Boot(t, qemu.Scenario{
				OS: talos.Plain{}, Helper: helper, Args: []string{c.argument},
				Resets: c.resets, Timeout: timeout,
			})
			if v.Outcome != c.outcome || v.Resets != c.resets {
				t.Errorf("%v, %d resets; not %v, %d", v.Outcome, v.Resets, c.outcome, c.resets)
			}
			if boots := len(v.All(report.First)); c.outcome != qemu.TimedOut && boots != c.resets+1 {
				t.Errorf("%d boots", boots)
			}
		})
	}
}
