//go:build linux

package boot_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/helpertest"
	"github.com/nametag-boot/nametag/internal/testvm/qemu"
	"github.com/nametag-boot/nametag/internal/testvm/qemu/report"
	"github.com/nametag-boot/nametag/internal/testvm/talos"
)

// The next init is started as if we had never been there: what the kernel gives to a first process, and what stands in
// the initramfs, is the same with the helper in front and without.
func TestTheNextInitIsStartedAsTheKernelWouldStartIt(t *testing.T) {
	t.Parallel()
	for _, scenario := range []struct {
		name string
		args []string
		// What we are there for, and nothing else.
		gives []string
	}{
		{name: "without the argument"},
		{name: "switched off", args: []string{"talos.hostname.wait=off"}},
		{
			name: "with a name", args: []string{"talos.hostname.wait=2m"},
			gives: []string{"mount /run", "entry /run", "child exe"}, // the record's place; the handover's process
		},
	} {
		t.Run(scenario.name, func(t *testing.T) {
			t.Parallel()
			v := qemu.Boot(t, qemu.Scenario{
				OS:      talos.Starts{Helper: helpertest.Binary(t, string(qemu.AMD64))},
				Args:    append([]string{"loglevel=6", "printk.devkmsg=on"}, scenario.args...),
				Cloud:   cloud.Config{Server: cloud.Server{Hostname: server, InstanceID: "42"}},
				Timeout: 5 * time.Minute,
			})
			if len(v.All(report.Settled)) == 0 {
				t.Fatal("it did not come to its end")
			}
			compared := v.All(report.Compared)
			if len(compared) < 20 {
				t.Errorf("%d starts were compared", len(compared))
			}
			for _, e := range compared {
				for line := range strings.Lines(e.Text) {
					what, _, _ := strings.Cut(line, ":")
					if !slices.Contains(scenario.gives, what) {
						t.Errorf("%s: %s", e.Name, strings.TrimSpace(line))
					}
				}
			}
		})
	}
}
