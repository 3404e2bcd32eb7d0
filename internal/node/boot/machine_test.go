//go:build linux

package boot_test

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/qemu"
	"github.com/nametag-boot/nametag/internal/testvm/qemu/report"
	"github.com/nametag-boot/nametag/internal/testvm/talos"
)

// little is the smallest memory, in MiB, with which Debian's cloud kernel comes up at all with an initramfs of the helper
// and a minimal /init. 44 of them are the kernel's image (the segments of its ELF file), so that 52 are left for all the
// rest: the kernel's own tables, the initramfs packed and unpacked, the helper twice. With 64 the kernel runs out of
// memory before it has unpacked anything. What the command needs of it the scenarios in namespaces hold to 64 MiB.
const little = 96

// A machine with little memory finds its name, and keeps to that memory whatever the metadata service sends.
func TestAMachineWithLittleMemory(t *testing.T) {
	t.Parallel()
	hundred := cloud.Handler(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "104857600")
		chunk := bytes.Repeat([]byte("a"), 1<<16)
		for range 1600 {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	for _, scenario := range []struct {
		name     string
		metadata cloud.Behaviour
		says     string
	}{
		{"a service that answers", cloud.Right(), ""},
		{"100 MiB and endless answers at first", cloud.InTurn(hundred, cloud.Endless(), hundred, cloud.Endless(), cloud.Right()), "too large"},
	} {
		t.Run(scenario.name, func(t *testing.T) {
			t.Parallel()
			v := boot(t, qemu.Scenario{
				OS: talos.Plain{}, Memory: little, Packed: true,
				Args:  []string{"talos.hostname.wait=2m"},
				Cloud: cloud.Config{Metadata: until(time.Hour, scenario.metadata)},
			})
			plain(t, v)
			if v.Said("oom-killer") {
				t.Error("the machine ran out of memory")
			}
			if scenario.says != "" {
				says(t, v, scenario.says)
			}
		})
	}
}

// plain checks what an OS that is not Talos finds: the name, and no trace.
func plain(t *testing.T, v *qemu.Verdict) {
	t.Helper()
	found := v.State(report.Started)
	if found == nil {
		t.Fatal("the next init did not start")
	}
	if found.Hostname != server {
		t.Errorf("the kernel's hostname is %q, not %s", found.Hostname, server)
	}
	if len(found.Addresses)+len(found.Routes)+len(found.Processes) > 0 || slices.ContainsFunc(found.Links, func(l string) bool { return strings.HasSuffix(l, " up") }) {
		t.Errorf("something is left: %v", found)
	}
}

// jumps is a clock that is set to 1970, a century on and in between, ten times a second, for longer than the wait below.
const jumps = "standin_clock=150"

// A clock that is wrong, or jumps, changes neither the name nor when the time is up.
func TestTheClock(t *testing.T) {
	t.Parallel()
	t.Run("begins in 1970", func(t *testing.T) {
		t.Parallel()
		v := boot(t, qemu.Scenario{
			RTC:   "1970-01-01T00:00:00",
			Args:  []string{"talos.hostname.wait=2m"},
			Cloud: cloud.Config{Metadata: until(3*time.Second, cloud.Unreachable())},
		})
		onlyEver(t, v, server)
		noTrace(t, v)
	})
	t.Run("jumps while the service is late", func(t *testing.T) {
		t.Parallel()
		v := boot(t, qemu.Scenario{
			Args: []string{"talos.hostname.wait=2m", jumps},
			// A time to come back at that is a date, in the middle of it: read by the service's own clock.
			Cloud: cloud.Config{Metadata: []cloud.Phase{
				{Until: 3 * time.Second, Answer: cloud.Unreachable()},
				{Until: 6 * time.Second, Answer: cloud.Status(429, "Date", "Thu, 26 Nov 2026 12:00:00 GMT", "Retry-After", "Thu, 26 Nov 2026 12:00:01 GMT")},
			}},
		})
		onlyEver(t, v, server)
		noTrace(t, v)
		jumped(t, v)
	})
	for _, scenario := range []struct {
		then    string
		outcome qemu.Outcome
		until   func(*qemu.Verdict) bool
		ends    string
	}{
		{"poweroff", qemu.PoweredOff, nil, "poweroff now"},
		{"halt", qemu.Running, func(v *qemu.Verdict) bool { return v.Said("staying here") }, "staying here"},
	} {
		t.Run("jumps until the time is up: "+scenario.then, func(t *testing.T) {
			t.Parallel()
			const wait = 8 * time.Second
			v := boot(t, qemu.Scenario{
				OS: talos.Plain{}, Args: []string{"talos.hostname.wait=" + wait.String() + ",then=" + scenario.then, jumps},
				Cloud: cloud.Config{Metadata: until(time.Hour, cloud.Refused())},
				Until: scenario.until,
			})
			if v.Outcome != scenario.outcome {
				t.Errorf("the boot ended: %v, want %v", v.Outcome, scenario.outcome)
			}
			says(t, v, "no valid name from hetzner") // why, depends on how far it came in that time
			jumped(t, v)
			within(t, v, wait, scenario.ends)
		})
	}
}

// jumped checks that the clock did jump while the helper was at work.
func jumped(t *testing.T, v *qemu.Verdict) {
	t.Helper()
	began, _ := said(v, "finding out this node's name")
	n := 0
	for _, e := range v.All(report.Clock) {
		if e.At > began {
			n++
		}
	}
	if n < 10 {
		t.Errorf("the clock jumped %d times during the boot", n)
	}
}

// slack is what an emulated machine on a busy one may be late by.
const slack = 15 * time.Second

// within checks that the policy's outcome came when the wait was over, by the guest's own clock that never jumps.
func within(t *testing.T, v *qemu.Verdict, wait time.Duration, outcome string) {
	t.Helper()
	began, ok := said(v, "finding out this node's name")
	ended, both := said(v, outcome)
	if !ok || !both {
		t.Errorf("the console does not tell the beginning or does not say %q", outcome)
		return
	}
	// The wait counts from the helper's first moment, which is before its first line.
	if took := ended - began; took < wait-slack/4 || took > wait+slack {
		t.Errorf("%q came %v after the beginning, the wait was %v", outcome, took, wait)
	}
}

// said is when the console first said something, by the kernel's clock.
func said(v *qemu.Verdict, text string) (at time.Duration, ok bool) {
	i := slices.IndexFunc(v.Console, func(l qemu.Line) bool { return l.Guest >= 0 && strings.Contains(l.Text, text) })
	if i < 0 {
		return 0, false
	}
	return v.Console[i].Guest, true
}
