//go:build linux

package qemu

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm/qemu/report"
)

// A watch is a boot that is looked at: what has happened so far, and what is known of its end.
type watch struct {
	*machine
	verdict *Verdict
	end     Outcome // what has come of it, as far as is known
	clock   bool    // the schedule's clock runs
}

// watch takes down what happens until the boot has ended, and ends the machine.
func (m *machine) watch() *Verdict {
	w := &watch{machine: m, verdict: &Verdict{}, end: Died}
	timeUp, stop := m.timeUp()
	defer stop()
	m.ask(m.atFirst()...)
	for over := false; !over; {
		select {
		case n := <-m.notes:
			w.verdict.take(n)
			over = w.happened(n)
		case <-timeUp:
			w.end, over = TimedOut, true
		}
	}
	return w.conclude()
}

// atFirst is what the monitor is told before anything else.
func (m *machine) atFirst() []command {
	first := []command{{"qmp_capabilities", nil}} // before that QEMU takes no other
	for i, nic := range m.scenario.NICs {
		if nic.Cable > 0 {
			first = append(first, command{"set_link", map[string]any{"name": fmt.Sprintf("net%d", i), "up": false}})
		}
	}
	return first
}

// happened says what follows from a note: it sets the clock going, or the end. It reports whether that has come.
func (w *watch) happened(n note) (over bool) {
	switch {
	case n.event != nil:
		if n.event.Kind == w.scenario.Clock && !w.clock {
			w.clock = true
			w.cloud.Restart()
			w.plugLater()
			w.cableLater()
			w.disksLater()
		}
	case n.line != nil:
		if strings.Contains(n.line.Text, "reboot: System halted") {
			w.end = Halted
			return true
		}
	case n.qmp != "":
		return w.told(n.qmp, n.reason)
	case n.gone:
		return true // as is known
	case n.err != nil:
		w.end = Died
		return true
	}
	if (n.line != nil || n.event != nil) && w.scenario.Until(w.verdict) {
		w.end = Running
		return true
	}
	return false
}

// told takes an event of QEMU's monitor. It reports whether the boot has ended with it.
func (w *watch) told(event, reason string) (over bool) {
	switch {
	case event == "SHUTDOWN" && reason == "guest-shutdown":
		w.end = PoweredOff
	case event == "RESET" && reason == "guest-reset":
		// SeaBIOS answers a reset with one of its own, which is not the guest's (its src/fw/shadow.c, qemu_reboot):
		// between two that count a first process must have run.
		booted := len(w.verdict.All(report.First)) > w.verdict.Resets
		if w.scenario.Resets == 0 || booted && w.verdict.Resets == w.scenario.Resets {
			w.end = Reset
			return true
		}
		if booted {
			w.verdict.Resets++
		}
	}
	return false
}

// conclude ends the machine, takes down what was under way, and says what came of it all.
func (w *watch) conclude() *Verdict {
	v := w.verdict
	v.Took = time.Since(w.started)
	w.stopTimers()
	_ = w.qemu.Process.Kill() // or it has ended
	go func() {
		w.work.Wait()
		close(w.notes)
	}()
	for n := range w.notes {
		v.take(n)
		if w.end == Died { // its last word may come behind the news that it has ended
			w.told(n.qmp, n.reason)
		}
	}
	if w.end == Reset && panicked(v.Console) {
		w.end = Panicked
	}
	v.Outcome = w.end
	return v
}

func (v *Verdict) take(n note) {
	switch {
	case n.line != nil:
		v.Console = append(v.Console, *n.line)
	case n.event != nil:
		v.Events = append(v.Events, *n.event)
	case n.err != nil:
		v.Console = append(v.Console, Line{Guest: -1, Text: n.err.Error()})
	}
}

func panicked(console []Line) bool {
	for _, l := range console {
		if strings.Contains(l.Text, "Kernel panic - not syncing") {
			return true
		}
	}
	return false
}

// plugLater plugs in the NICs that come later, each at its time.
func (m *machine) plugLater() {
	for i, nic := range m.scenario.NICs {
		if nic.After == 0 {
			continue
		}
		m.after(nic.After, command{"device_add", map[string]string{
			"driver": "virtio-net-pci", "id": fmt.Sprintf("nic%d", i), "bus": fmt.Sprintf("slot%d", i),
			"netdev": fmt.Sprintf("net%d", i), "mac": nic.MAC.String(), "romfile": "",
		}})
	}
}

// disksLater plugs in the disks that come later, each at its time.
func (m *machine) disksLater() {
	for i, disk := range m.scenario.Disks {
		if disk.After > 0 {
			m.after(disk.After, disk.plug(i)...)
		}
	}
}

// cableLater puts in the cables that are put in later, each at its time.
func (m *machine) cableLater() {
	for i, nic := range m.scenario.NICs {
		if nic.Cable > 0 {
			m.after(nic.Cable, command{"set_link", map[string]any{"name": fmt.Sprintf("net%d", i), "up": true}})
		}
	}
}

// after gives the monitor commands when the time has come.
func (m *machine) after(d time.Duration, commands ...command) {
	m.work.Add(1)
	m.timers = append(m.timers, time.AfterFunc(d, func() {
		defer m.work.Done()
		m.ask(commands...)
	}))
}

func (m *machine) stopTimers() {
	for _, t := range m.timers {
		if t.Stop() {
			m.work.Done() // it will not run any more
		}
	}
}

// command is one for the monitor.
type command struct {
	name      string
	arguments any
}

// ask gives the monitor commands, one after the other, without waiting for what comes of them: QEMU may send events before
// its answer.
func (m *machine) ask(commands ...command) {
	m.work.Add(1)
	go func() {
		defer m.work.Done()
		for _, c := range commands {
			if err := m.monitor.do(c.name, c.arguments); err != nil {
				if !errors.Is(err, errMonitorGone) {
					m.notes <- note{err: err}
				}
				return
			}
		}
	}()
}

// close ends what is left of the machine.
func (m *machine) close() {
	if m.qemu != nil && m.qemu.Process != nil {
		_ = m.qemu.Process.Kill()
	}
	for _, c := range m.theirs {
		_ = c.Close()
	}
	for _, c := range m.ours {
		_ = c.Close()
	}
	if m.cloud != nil {
		_ = m.cloud.Close() // no pcap of our own
	}
}
