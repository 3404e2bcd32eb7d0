//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm/cloud"
)

// memory measures the peak resident memory of every client's largest process, apart from the runs that are timed: looking
// takes a processor. The rusage of wait4 would not do, since it counts what the parent had before the exec, and this
// program is large.
func memory(ctx context.Context, all []client, f *figures) error {
	where := condition{shape: cloud.Public, rtt: 20 * time.Millisecond} // slow enough that every process is seen
	for i, c := range all {
		if c.missing != "" {
			continue
		}
		runs := 5
		if c.patient {
			runs = 1
		}
		for n := range runs {
			var peak int
			r, err := once(ctx, c, where, uint64(n), func(pid int) func() { return watch(pid, &peak) })
			if err != nil {
				return err
			}
			if r.failed == "" {
				f.Clients[i].Peak = max(f.Clients[i].Peak, peak)
			}
		}
	}
	return nil
}

// watch notes in peak, until it is stopped, the most that a process or one of its descendants held, in bytes.
func watch(pid int, peak *int) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			*peak = max(*peak, largest(pid))
			select {
			case <-done:
				return
			case <-time.After(500 * time.Microsecond):
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

// largest is the highest high-water mark of a process and its descendants. Orphans are children of the first process of
// their PID namespace, so none is missed.
func largest(pid int) int {
	dir := fmt.Sprintf("/proc/%d/", pid)
	most := highWater(dir + "status")
	tasks, err := os.ReadDir(dir + "task")
	if err != nil {
		return most
	}
	for _, t := range tasks {
		children, err := os.ReadFile(dir + "task/" + t.Name() + "/children")
		if err != nil {
			continue
		}
		for _, child := range strings.Fields(string(children)) {
			if n, err := strconv.Atoi(child); err == nil {
				most = max(most, largest(n))
			}
		}
	}
	return most
}

// highWater is VmHWM of a status file, in bytes; 0 when the process is gone.
func highWater(path string) int {
	status, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	_, rest, ok := bytes.Cut(status, []byte("\nVmHWM:"))
	if !ok {
		return 0
	}
	kib, _, _ := bytes.Cut(bytes.TrimSpace(rest), []byte(" "))
	n, err := strconv.Atoi(string(kib))
	if err != nil {
		return 0
	}
	return n << 10
}
