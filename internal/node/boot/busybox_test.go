//go:build linux

package boot_test

import (
	"context"
	"path/filepath"
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

// added is an OS into whose initramfs the helper was put as users put it there.
type added struct {
	qemu.OS
	dir, helper string
}

func (a added) Initramfs(ctx context.Context, d qemu.Deps) (qemu.Initramfs, error) {
	made, err := a.OS.Initramfs(ctx, d)
	if err != nil {
		return made, err
	}
	archive := made.Archive
	made.Archive = filepath.Join(a.dir, "initramfs")
	return made, helpertest.Add(ctx, archive, made.Archive, a.helper)
}

// An init that goes by the name it is called is called by its own, by a real kernel and in a real initramfs: with a console, and
// where there is none, so that the kernel opens no files for it, and the initramfs has no /dev/null.
func TestBusyBoxAsInit(t *testing.T) {
	t.Parallel()
	for _, machine := range []struct {
		name      string
		noConsole bool
	}{{"with a console", false}, {"without a console", true}} {
		t.Run(machine.name, func(t *testing.T) {
			t.Parallel()
			busyBoxAsInit(t, machine.noConsole)
		})
	}
}

func busyBoxAsInit(t *testing.T, noConsole bool) {
	t.Helper()
	var without []string
	for _, scenario := range []struct {
		name   string
		args   []string
		with   bool
		called string
	}{
		{"without the helper", nil, false, "(none)"},
		{"with it, and without the argument", nil, true, "(none)"},
		{"with it, and with a name", []string{"talos.hostname.wait=2m"}, true, server},
	} {
		t.Run(scenario.name, func(t *testing.T) {
			var system qemu.OS = talos.BusyBox{}
			if scenario.with {
				system = added{system, t.TempDir(), helpertest.Binary(t, string(qemu.AMD64))}
			}
			v := qemu.Boot(t, qemu.Scenario{
				OS: system, NoConsole: noConsole, Args: append([]string{"loglevel=6", "printk.devkmsg=on", "a_word", "some_key=some_value"}, scenario.args...),
				Clock:   report.Given,
				Cloud:   cloud.Config{Server: cloud.Server{Hostname: server, InstanceID: "42"}},
				Timeout: 3 * time.Minute,
			})
			if v.Outcome != qemu.Running || v.State(report.Settled) != nil {
				t.Fatalf("the boot ended: %v", v.Outcome)
			}
			if end, _ := v.First(report.Settled); end.Name != scenario.called {
				t.Errorf("the kernel's hostname is %q, not %q", end.Name, scenario.called)
			}
			var given []string
			for _, e := range v.All(report.Given) {
				given = append(given, e.Name+": "+e.Text)
			}
			switch {
			case !scenario.with:
				without = given
			case !slices.Equal(given, without):
				t.Errorf("it was given\n%s\nnot\n%s", strings.Join(given, "\n"), strings.Join(without, "\n"))
			}
			if strings.Contains(strings.Join(given, " "), "/dev/console") == noConsole {
				t.Errorf("without a console: %v; it was given %q", noConsole, given)
			}
			if len(given) < 10 {
				t.Errorf("it told %q", given)
			}
		})
	}
}
