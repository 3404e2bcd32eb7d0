//go:build linux

package talos_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/helpertest"
	"github.com/nametag-boot/nametag/internal/testvm/qemu"
	"github.com/nametag-boot/nametag/internal/testvm/qemu/report"
	"github.com/nametag-boot/nametag/internal/testvm/talos"
)

// The cure on the servers for arm64: UEFI, metadata that is late by two seconds, and the helper as it ships. The
// processor is one without an instruction for random numbers, as Hetzner's are, and nothing else gives the guest any.
func TestOnArm64EtcdJoinsUnderTheServersName(t *testing.T) {
	t.Parallel()
	v := qemu.Boot(t, qemu.Scenario{
		Arch: qemu.ARM64, UEFI: true, NoRDRAND: true,
		OS:     talos.OS{Line: talos.V1_12, Etcd: true},
		Helper: helpertest.Binary(t, string(qemu.ARM64)),
		Args:   waiting,
		Cloud: cloud.Config{
			Server:   cloud.Server{Hostname: server, InstanceID: "4711"},
			Metadata: []cloud.Phase{{Until: 2 * time.Second, Answer: cloud.Unreachable()}},
		},
		Timeout: 3 * time.Minute,
	})
	t.Logf("%v", v.Took)
	if v.Outcome != qemu.Running {
		t.Fatalf("the boot ended: %v", v.Outcome)
	}
	if names := v.Names(); len(names) != 1 || names[0] != server || v.Member() != server {
		t.Errorf("names %q, etcd's member %q; not %s alone", names, v.Member(), server)
	}
	end := v.State(report.Settled)
	if end == nil || len(end.Processes) > 0 || strings.Contains(end.CommandLine, "talos.hostname=") || end.Vendor != "Hetzner" || end.Serial != "4711" {
		t.Errorf("in the end: %+v", end)
	}
	if proc, _ := v.First(report.ProcFS); proc.Text != "ok" {
		t.Errorf("mounting proc in a new user namespace: %q", proc.Text)
	}
}
