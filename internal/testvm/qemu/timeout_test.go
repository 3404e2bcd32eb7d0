//go:build linux

package qemu

import (
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"
)

// A process that shares its processor with others has waited, and one that sleeps has not.
func TestTheWaitForAProcessorIsSeen(t *testing.T) {
	if _, err := os.Stat("/proc/self/schedstat"); err != nil {
		t.Skipf("NOT TESTED: this kernel does not tell how long a process waits: %v", err)
	}
	var all []*exec.Cmd
	for range 1 + 3*runtime.NumCPU() {
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", "while :; do :; done")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		all = append(all, cmd)
	}
	defer func() {
		for _, cmd := range all {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}()
	sleeper := exec.CommandContext(t.Context(), "sleep", "1000")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sleeper.Process.Kill(); _ = sleeper.Wait() }()
	busy, idle := make(waits), make(waits)
	for began := time.Now(); busy.since(all[0].Process.Pid) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatal("one of many that keep the processors busy has not waited for a minute")
		}
	}
	idle.since(sleeper.Process.Pid) // what its start took
	for began := time.Now(); ; {
		time.Sleep(50 * time.Millisecond)
		if idle.since(sleeper.Process.Pid) == 0 {
			break
		}
		if time.Since(began) > time.Minute {
			t.Fatal("one that sleeps waits for a processor again and again")
		}
	}
}
