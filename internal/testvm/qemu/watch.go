//go:build linux

package qemu

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm/qemu/report"
)

// watch takes down what happens until the boot has ended, and ends the machine.
func (m *machine) watch() *Verdict {
	v := &Verdict{}
	timeout := time.NewTimer(m.scenario.Timeout)
	defer timeout.Stop()
	end, clock := Died, false                     // what is known of the end so far; whether the schedule's clock runs
	first := []command{{"qmp_capabilities", nil}} // before that QEMU takes no other
	for i, nic := range m.scenario.NICs {
		if nic.Cable > 0 {
			first = append(first, command{"set_link", map[string]any{"name": fmt.Sprintf("net%d", i), "up": false}})
		}
	}
	m.ask(first...)
	for done := false; !done; {
		var n note
		select {
		case n = <-m.notes:
		case <-timeout.C:
			end, done = TimedOut, true
			continue
		}
		v.take(n)
		switch {
		case n.event != nil && n.event.Kind == m.scenario.Clock && !clock:
			clock = true
			m.cloud.Restart()
			m.plugLater()
			m.cableLater()
			m.disksLater()
		case n.qmp == "SHUTDOWN" && n.reason == "guest-shutdown":
			end = PoweredOff
		case n.qmp == "RESET" && n.reason == "guest-reset":
			// SeaBIOS answers a reset with one of its own, which is not the guest's (its src/fw/shadow.c, qemu_reboot):
			// between two that count a first process must have run.
			switch booted := len(v.All(report.First)) > v.Resets; {
			case m.scenario.Resets == 0, booted && v.Resets == m.scenario.Resets:
				end, done = Reset, true
			case booted:
				v.Resets++
			}
		case n.line != nil && strings.Contains(n.line.Text, "reboot: System halted"):
			end, done = Halted, true
		case n.gone:
			done = true
		case n.err != nil:
			end, done = Died, true
		}
		if !done && (n.line != nil || n.event != nil) && m.scenario.Until(v) {
			end, done = Running, true
		}
	}
	v.Took = time.Since(m.started)
	m.stopTimers()
	_ = m.qemu.Process.Kill() // or it has ended
	go func() {
		m.work.Wait()
		close(m.notes)
	}()
	for n := range m.notes { // what was under way
		v.take(n)
	}
	if end == Reset && panicked(v.Console) {
		end = Panicked
	}
	v.Outcome = end
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
