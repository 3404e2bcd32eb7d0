//go:build linux

package talos_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/nametag-boot/nametag/internal/testvm/qemu"
	"github.com/nametag-boot/nametag/internal/testvm/qemu/report"
	"github.com/nametag-boot/nametag/internal/testvm/talos"
)

// What a helper must not do, this OS must not take: a test of the tests.
func TestACarelessHelperIsFoundOut(t *testing.T) {
	t.Parallel()
	helper := careless(t)
	t.Run("/dev left mounted: the next mount is busy", func(t *testing.T) {
		t.Parallel()
		v := qemu.Boot(t, qemu.Scenario{OS: talos.OS{}, Helper: helper, Args: []string{"careless=dev"}})
		fatal(t, v, "error mounting devtmpfs: busy")
	})
	t.Run("a tracer that stays: /sbin/init may not be executed", func(t *testing.T) {
		t.Parallel()
		v := qemu.Boot(t, qemu.Scenario{OS: talos.OS{}, Helper: helper, Way: qemu.AsInit, Args: []string{"careless=tracer"}})
		fatal(t, v, "error executing /sbin/init: permission denied")
	})
	t.Run("a tracer that stays on a plain system is seen in machined", func(t *testing.T) {
		t.Parallel()
		v := qemu.Boot(t, qemu.Scenario{OS: talos.OS{}, Helper: helper, Args: []string{"careless=tracer", "standin_traced=allow"}})
		s := v.State(report.Settled)
		if s == nil || len(s.Tracers) != 1 || len(s.Processes) != 1 || !strings.HasSuffix(s.Processes[0], " nametag") {
			t.Errorf("in the end: %v", s)
		}
	})
	t.Run("a tracer that is killed leaves a boot without a trace", func(t *testing.T) {
		t.Parallel()
		v := qemu.Boot(t, qemu.Scenario{OS: talos.OS{}, Helper: helper, Args: []string{"careless=tracer", "standin_at=mounted:kill"}})
		s := v.State(report.Settled)
		if s == nil || len(s.Tracers) > 0 || len(s.Processes) > 0 {
			t.Errorf("in the end: %v", s)
		}
	})
	t.Run("a tracer under yama scope 3: refused", func(t *testing.T) {
		t.Parallel()
		v := qemu.Boot(t, qemu.Scenario{
			OS: talos.OS{}, Helper: helper, Args: []string{"careless=tracer", "sysctl.kernel.yama.ptrace_scope=3"},
		})
		fatal(t, v, "operation not permitted")
	})
	t.Run("a mount left over /proc/cmdline: no /proc in a user namespace", func(t *testing.T) {
		t.Parallel()
		v := qemu.Boot(t, qemu.Scenario{OS: talos.OS{}, Helper: helper, Args: []string{"careless=cmdline", "standin_at=mounted:500ms"}})
		if names := v.Names(); !slices.Contains(names, "careless") {
			t.Errorf("names %q", names)
		}
		if s := v.State(report.Settled); s == nil || !s.Mounted("/proc/cmdline") {
			t.Errorf("in the end: %v", s)
		}
		if e, _ := v.First(report.ProcFS); e.Text != "operation not permitted" {
			t.Errorf("mount -t proc: %q", e.Text)
		}
	})
}

func fatal(t *testing.T, v *qemu.Verdict, want string) {
	t.Helper()
	if e, _ := v.First(report.Fatal); !strings.Contains(e.Text, want) {
		t.Errorf("the boot ended as %v with %q, not with %q", v.Outcome, e.Text, want)
	}
	if !v.Said(want) {
		t.Errorf("the console does not say %q", want)
	}
}
