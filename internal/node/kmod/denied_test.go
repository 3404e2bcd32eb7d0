//go:build linux

package kmod

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestWhatTheCommandLineDeniesIsNotLoaded(t *testing.T) {
	for _, line := range []string{
		"modprobe.blacklist=virtio_net",
		"quiet modprobe.blacklist=nouveau,virtio-net,floppy",
		`modprobe.blacklist=nouveau "modprobe.blacklist=virtio_net"`,
	} {
		t.Run(line, func(t *testing.T) {
			m := virtioMachine(t)
			virtioTree(t, m.root)
			m.cfg.CommandLine = line
			l := m.loader()
			got, err := m.load(l)
			if !slices.Equal(got, []string{"virtio", "virtio_ring", "virtio_pci"}) {
				t.Errorf("loaded %q", got)
			}
			if err == nil || strings.Count(err.Error(), "\n") > 0 || !strings.Contains(err.Error(), "kmod: virtio_net for virtio virtio1: load: ") ||
				!strings.Contains(err.Error(), "modprobe.blacklist=") {
				t.Errorf("the error is %v", err)
			}
			if got, err := m.load(l); len(got) > 0 || err != nil {
				t.Errorf("the second time: %q, %v", got, err)
			}
		})
	}
	t.Run("what is needed by another module is loaded all the same, as modprobe has it", func(t *testing.T) {
		m := virtioMachine(t)
		virtioTree(t, m.root)
		m.cfg.CommandLine = "modprobe.blacklist=failover,virtio_blk,virtio_ne -- modprobe.blacklist=virtio_net"
		if got, err := m.load(m.loader()); err != nil || !slices.Equal(got, virtioOrder) {
			t.Errorf("loaded %q, %v", got, err)
		}
	})
	t.Run("another module that claims the device is loaded", func(t *testing.T) {
		m := virtioMachine(t)
		virtioTree(t, m.root)
		write(t, modulesDir(m.root), map[string]string{
			"modules.alias": "alias virtio:d00000001v* my_net\n" + virtioAlias,
			"modules.dep":   "kernel/my_net.ko:\n" + virtioDep, "kernel/my_net.ko": elf("my_net"),
		})
		m.cfg.CommandLine = "modprobe.blacklist=virtio_net"
		if got, err := m.load(m.loader()); err != nil || !slices.Equal(got, []string{"virtio", "virtio_ring", "virtio_pci", "my_net"}) {
			t.Errorf("loaded %q, %v", got, err)
		}
	})
}

func TestAPlanIsWhatClaimsADeviceAndIsNotDenied(t *testing.T) {
	nic, disk, other := Device{Modalias: "nic"}, Device{Modalias: "disk"}, Device{Modalias: "other"}
	claims := map[string][]string{"nic": {"bad", "good", "better"}, "disk": {"bad"}}
	want := []plan{
		{device: nic, load: []string{"good", "better"}},
		{device: disk, denied: "bad"},
		{device: other},
	}
	if got := planAll([]Device{nic, disk, other}, claims, []string{"bad", "nobody"}); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, not %+v", got, want)
	}
	if len(claims["nic"]) != 3 || claims["nic"][0] != "bad" {
		t.Errorf("the claims are changed: %v", claims)
	}
}
