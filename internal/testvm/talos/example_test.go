//go:build linux

package talos_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/internal/release/ship"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/qemu"
	"github.com/nametag-boot/nametag/internal/testvm/qemu/report"
	"github.com/nametag-boot/nametag/internal/testvm/talos"
)

// The example of an init of one's own, as the first process of a machine whose kernel has the drivers.
func TestTheExampleOfAnInit(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "init")
	if err := (ship.Build{Command: "examples/init", Arch: string(qemu.AMD64), Output: out}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	boot := func(t *testing.T, argument string, answer cloud.Behaviour, until time.Duration) *qemu.Verdict {
		t.Helper()
		return qemu.Boot(t, qemu.Scenario{
			OS: talos.Plain{BuiltIn: []string{"virtio_pci", "virtio_net"}}, Helper: out, Way: qemu.AsInit, Args: []string{argument},
			Cloud: cloud.Config{Server: cloud.Server{Hostname: "web-1"}, Metadata: []cloud.Phase{{Until: until, Answer: answer}}},
		})
	}
	t.Run("gives the name, that comes late, and ends in the next", func(t *testing.T) {
		t.Parallel()
		v := boot(t, "nametag.wait=5m", cloud.Refused(), 3*time.Second)
		if s := v.State(report.Started); s == nil || s.Hostname != "web-1" {
			t.Errorf("%v: %v", v.Outcome, s)
		}
	})
	t.Run("starts again where there is none in time", func(t *testing.T) {
		t.Parallel()
		if v := boot(t, "nametag.wait=1s", cloud.Refused(), time.Hour); v.Outcome != qemu.Reset || v.State(report.Started) != nil {
			t.Errorf("%v", v.Outcome)
		}
	})
}
