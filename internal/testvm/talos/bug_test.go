//go:build linux

package talos_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/qemu"
	"github.com/nametag-boot/nametag/internal/testvm/qemu/report"
	"github.com/nametag-boot/nametag/internal/testvm/talos"
)

const server = "example-controlplane-3d3d26d1-69c5k"

var (
	// late is the cloud of the bug: for two seconds its metadata cannot be reached.
	late = cloud.Config{
		Server:   cloud.Server{Hostname: server},
		Metadata: []cloud.Phase{{Until: 2 * time.Second, Answer: cloud.Unreachable()}},
	}
	// waiting makes the helper wait, and shows its notices on the console.
	waiting = []string{"talos.hostname.wait=2m", "loglevel=6", "printk.devkmsg=on"}
)

// The bug that all of this is about: Talos, metadata that is late by two seconds, and no helper.
func TestWithoutTheHelperEtcdJoinsUnderATemporaryName(t *testing.T) {
	t.Parallel()
	v := qemu.Boot(t, qemu.Scenario{
		OS:    talos.OS{Etcd: true},
		Cloud: late,
		Clock: report.Switched,
	})
	if v.Outcome != qemu.Running {
		t.Fatalf("the boot ended: %v", v.Outcome)
	}
	names := v.Names()
	if len(names) != 2 || !strings.HasPrefix(names[0], "talos-") || names[1] != server {
		t.Errorf("the node was called %q, not first talos-… and then %s", names, server)
	}
	if len(names) > 0 && v.Member() != names[0] {
		t.Errorf("etcd's member is %q, not %q", v.Member(), names[0])
	}
	if first, _ := v.First(report.Metadata); !strings.Contains(first.Text, "network is unreachable") {
		t.Errorf("the first attempt at the metadata ended with %q, not with network is unreachable", first.Text)
	}
	if end := v.State(report.Settled); end == nil || end.Hostname != server {
		t.Errorf("in the end: %v", end)
	}
}
