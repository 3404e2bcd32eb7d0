//go:build linux

package main

import (
	"debug/elf"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/helpertest"
	"github.com/nametag-boot/nametag/internal/testvm/netns"
)

// What the binary that ships on a node may cost.
const (
	maxBinary     = 9 << 20  // bytes
	maxCompressed = 3 << 20  // bytes, as zstd
	maxResident   = 24 << 20 // bytes, at the peak of a resolve
)

func TestTheBinaryIsStaticAndSmall(t *testing.T) {
	path := helpertest.Binary(t, runtime.GOARCH)
	file, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("it is dynamically linked: it has a %v segment", p.Type)
		}
	}
	if file.Section(".symtab") != nil || file.Section(".debug_info") != nil {
		t.Error("it is not stripped")
	}

	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	compress := exec.Command("zstd", "-19", "-q", "-c", path)
	packed, err := compress.Output()
	if errors.Is(err, exec.ErrNotFound) {
		netns.Missing(t, "zstd is not installed; apt-get install zstd")
	} else if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.2f MiB, as zstd %.2f MiB", mib(len(content)), mib(len(packed)))
	if len(content) > maxBinary {
		t.Errorf("it has %.2f MiB, more than %d", mib(len(content)), maxBinary>>20)
	}
	if len(packed) > maxCompressed {
		t.Errorf("as zstd it has %.2f MiB, more than %d", mib(len(packed)), maxCompressed>>20)
	}
}

// The service fails in every way for a while, so that all that grows has time to grow.
func TestAResolveStaysSmallInMemory(t *testing.T) {
	lab := testvm.Start(t, cloud.Config{Metadata: []cloud.Phase{
		{Until: 500 * time.Millisecond, Answer: cloud.Silent()},
		{Until: 1500 * time.Millisecond, Answer: cloud.Endless()},
		{Until: time.Hour, Answer: cloud.Status(503)},
	}})
	cmd := lab.Command(helpertest.Binary(t, runtime.GOARCH), "resolve", "--nic", "eth0")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, stderr, "503")
	peak := peakResident(t, cmd.Process.Pid)
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, stderr)
	if got := exitOf(t, cmd.Wait()); got != exitInterrupted {
		t.Errorf("exit status %d, want %d", got, exitInterrupted)
	}
	t.Logf("peak resident memory: %.1f MiB", mib(peak))
	if peak > maxResident {
		t.Errorf("it took %.1f MiB, more than %d", mib(peak), maxResident>>20)
	}
}

// peakResident is a process' VmHWM in bytes. The rusage of wait4 would include what its parent had before the exec.
func peakResident(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^VmHWM:\s+(\d+) kB$`).FindSubmatch(status)
	if m == nil {
		t.Fatalf("no VmHWM in %s", status)
	}
	kib, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

func mib(bytes int) float64 { return float64(bytes) / (1 << 20) }
