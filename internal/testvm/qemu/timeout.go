//go:build linux

package qemu

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// look is how often it is seen how long the machine has waited for a processor, and mostStretched by how much a boot may
// take longer for that: something that hangs must end.
const (
	look          = 250 * time.Millisecond
	mostStretched = 10
)

// timeUp closes a channel when the machine has had its time. What it spent waiting for a processor, because others kept
// the host busy, is not its own.
func (m *machine) timeUp() (up <-chan struct{}, stop func()) {
	over, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		ticks := time.NewTicker(look)
		defer ticks.Stop()
		waits := make(waits)
		var had time.Duration
		for last := m.started; ; {
			select {
			case <-stopped:
				return
			case <-ticks.C:
			}
			now := time.Now()
			passed := now.Sub(last)
			last = now
			had += passed - min(passed, waits.since(m.qemu.Process.Pid))
			if had >= m.scenario.Timeout || now.Sub(m.started) >= mostStretched*m.scenario.Timeout {
				close(over)
				return
			}
		}
	}()
	return over, func() { close(stopped) }
}

// waits are how long each thread of a process has waited for a processor so far.
type waits map[string]time.Duration

// since is how long the thread that waited longest has waited since it was last asked: an emulated processor is one
// thread, and it is that one that works. Nothing where the kernel does not tell.
func (w waits) since(pid int) time.Duration {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0
	}
	var most time.Duration
	for _, path := range threads {
		// Time on a processor, time in a run queue, both in ns, and how often (Documentation/scheduler/sched-stats.rst).
		text, err := os.ReadFile(path)
		fields := strings.Fields(string(text))
		if err != nil || len(fields) != 3 {
			continue
		}
		ns, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			continue
		}
		waited := time.Duration(ns)
		most = max(most, waited-w[path])
		w[path] = waited
	}
	return most
}
