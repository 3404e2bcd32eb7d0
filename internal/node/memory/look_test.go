//go:build linux

package memory

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// disks is a machine with disks: a sysfs, a devtmpfs, and the file systems of the partitions.
type disks struct {
	t        *testing.T
	sys, dev string
	trees    map[string]string // by device
	mountErr error
	mounts   int // that there are now
}

func newDisks(t *testing.T) *disks {
	t.Helper()
	d := &disks{t: t, sys: t.TempDir(), dev: t.TempDir(), trees: map[string]string{}}
	d.write(filepath.Join(d.sys, "class/block/loop0/uevent"), "DEVNAME=loop0\nDEVTYPE=disk\n")
	return d
}

func (d *disks) write(path, text string) {
	d.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// add adds a partition that begins with something, and its disk. files are those of its file system.
func (d *disks) add(device, label, begins string, files map[string]string) {
	d.t.Helper()
	block := filepath.Join(d.sys, "class/block")
	disk := strings.TrimRight(strings.TrimRight(device, "0123456789"), "p")
	d.write(filepath.Join(block, disk, "device/x"), "")
	d.write(filepath.Join(d.dev, device), begins+strings.Repeat("\x00", 8192))
	d.trees[device] = d.t.TempDir()
	for name, text := range files {
		d.write(filepath.Join(d.trees[device], name), text)
	}
	d.write(filepath.Join(block, device, "partition"), "5\n")
	d.write(filepath.Join(block, device, "uevent"), fmt.Sprintf("MAJOR=8\nDEVNAME=%s\nDEVTYPE=partition\nPARTN=5\nPARTNAME=%s\n", device, label))
}

// tree is a directory as a volume.
type tree struct {
	d   *disks
	dir string
}

func (v tree) open(name string) (*os.File, error) {
	return os.OpenFile(filepath.Join(v.dir, name), os.O_RDONLY|unix.O_NONBLOCK, 0)
}

func (v tree) close() error { v.d.mounts--; return nil }

func (d *disks) mount(device string) (volume, error) {
	if d.mountErr != nil {
		return nil, d.mountErr
	}
	d.mounts++
	return tree{d, d.trees[filepath.Base(device)]}, nil
}

// look looks, and waits for the end.
func (d *disks) look(instance string) (Recall, bool) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), time.Minute)
	defer cancel()
	l := lookTalos(ctx, Config{Sys: d.sys, Dev: d.dev, Instance: instance}, d.mount)
	<-l.Done()
	if d.mounts != 0 {
		d.t.Errorf("%d mounts are left", d.mounts)
	}
	select {
	case r := <-l.Recall:
		return r, true
	default:
		return Recall{}, false
	}
}

const (
	platformYAML = "addresses: []\nhostnames:\n    - hostname: web-1\n      domainname: example.com\n      layer: platform\nmetadata:\n    platform: hcloud\n    hostname: web-1.example.com\n    instanceId: \"42\"\n    providerId: hcloud://42\n"
	configYAML   = "version: v1alpha1\nmachine:\n    type: controlplane\n    token: secret\n    network: {}\n"
)

func files(platform, config string) map[string]string {
	f := map[string]string{}
	if platform != "" {
		f[filePlatform] = platform
	}
	if config != "" {
		f[fileConfig] = config
	}
	return f
}

func TestWhatATalosRemembers(t *testing.T) {
	const xfsMagic, luksMagic = "XFSB", "LUKS\xba\xbe\x00\x02"
	explicit := "machine:\n    network:\n        hostname: by-hand\n"
	document := configYAML + "---\napiVersion: v1alpha1\nkind: HostnameConfig\nhostname: by-hand\n"
	for _, tt := range []struct {
		name     string
		make     func(*disks)
		hostname string
		explicit string
		sealed   bool
		why      string // empty: nothing to say
	}{
		{name: "its name", make: func(d *disks) { d.add("sda5", "STATE", xfsMagic, files(platformYAML, configYAML)) }, hostname: "web-1.example.com"},
		{name: "on NVMe", make: func(d *disks) { d.add("nvme0n1p5", "STATE", xfsMagic, files(platformYAML, configYAML)) }, hostname: "web-1.example.com"},
		{name: "beside other partitions", make: func(d *disks) {
			d.add("sda1", "EFI", "\xeb\x58\x90mkfs.fat", nil)
			d.add("sda4", "META", "Z<K-", nil)
			d.add("sda5", "STATE", xfsMagic, files(platformYAML, configYAML))
			d.add("sda6", "EPHEMERAL", xfsMagic, nil)
		}, hostname: "web-1.example.com"},
		{name: "an explicit name, in the field", make: func(d *disks) { d.add("sda5", "STATE", xfsMagic, files(platformYAML, explicit)) }, hostname: "web-1.example.com", explicit: "by-hand"},
		{name: "an explicit name, in a document", make: func(d *disks) { d.add("sda5", "STATE", xfsMagic, files(platformYAML, document)) }, hostname: "web-1.example.com", explicit: "by-hand"},
		{name: "an explicit name alone", make: func(d *disks) { d.add("sda5", "STATE", xfsMagic, files("", document)) }, explicit: "by-hand"},
		{name: "a document that is about something else", make: func(d *disks) {
			d.add("sda5", "STATE", xfsMagic, files("", "kind: OtherConfig\nhostname: no\n---\nkind: HostnameConfig\nauto: stable\n---\nkind: X\nmachine:\n  network:\n    hostname: no\n"))
		}},
		{name: "a document in another form", make: func(d *disks) { d.add("sda5", "STATE", xfsMagic, files(platformYAML, "{machine: {}}\n")) }, hostname: "web-1.example.com", why: "config.yaml"},
		{name: "an explicit name that is none", make: func(d *disks) {
			d.add("sda5", "STATE", xfsMagic, files("", "machine:\n  network:\n    hostname: \"a b\"\n"))
		}},

		{name: "before the first boot", make: func(d *disks) { d.add("sda4", "META", "", nil) }},
		{name: "STATE was made and not filled", make: func(d *disks) { d.add("sda5", "STATE", "", nil) }},
		{name: "STATE was filled and nothing written", make: func(d *disks) { d.add("sda5", "STATE", xfsMagic, nil) }},
		{name: "no name from the platform", make: func(d *disks) {
			d.add("sda5", "STATE", xfsMagic, files("metadata:\n    platform: hcloud\n    instanceId: \"42\"\n", ""))
		}},
		{name: "no instance", make: func(d *disks) {
			d.add("sda5", "STATE", xfsMagic, files("metadata:\n    platform: hcloud\n    hostname: web-1\n", ""))
		}, why: filePlatform},
		{name: "a name that is none", make: func(d *disks) {
			d.add("sda5", "STATE", xfsMagic, files("metadata:\n    hostname: web_1\n    instanceId: \"42\"\n", ""))
		}, why: filePlatform},
		{name: "a file cut in the middle of a word", make: func(d *disks) { d.add("sda5", "STATE", xfsMagic, files(platformYAML[:180], "")) }, why: filePlatform},
		{name: "binary noise", make: func(d *disks) { d.add("sda5", "STATE", xfsMagic, files("\x00\xff\x80", "\x7fELF")) }, why: fileConfig},
		{name: "a machine configuration of 2 MiB", make: func(d *disks) {
			d.add("sda5", "STATE", xfsMagic, files(platformYAML, explicit+strings.Repeat("#\n", 1<<20)))
		}, hostname: "web-1.example.com", why: "larger"},
		{name: "a folder in its place", make: func(d *disks) {
			d.add("sda5", "STATE", xfsMagic, nil)
			d.write(filepath.Join(d.trees["sda5"], filePlatform, "x"), "")
		}, why: "regular"},
		{name: "a FIFO in its place", make: func(d *disks) {
			d.add("sda5", "STATE", xfsMagic, nil)
			if err := unix.Mkfifo(filepath.Join(d.trees["sda5"], filePlatform), 0o600); err != nil {
				d.t.Fatal(err)
			}
		}, why: "regular"},
		{name: "another file system", make: func(d *disks) { d.add("sda5", "STATE", "hello", nil) }, why: "no file system of Talos"},
		{name: "one that cannot be mounted", make: func(d *disks) {
			d.add("sda5", "STATE", xfsMagic, nil)
			d.add("sda6", "EPHEMERAL", xfsMagic, nil)
			d.mountErr = unix.EUCLEAN
		}, why: "cannot be mounted"},
		{name: "a device that is not there", make: func(d *disks) {
			d.add("sda5", "STATE", xfsMagic, nil)
			if err := os.Remove(filepath.Join(d.dev, "sda5")); err != nil {
				d.t.Fatal(err)
			}
		}, why: "cannot be read"},

		{name: "encrypted, booted before", make: func(d *disks) {
			d.add("sda5", "STATE", luksMagic, nil)
			d.add("sda6", "EPHEMERAL", luksMagic, nil)
		}, sealed: true, why: "encrypted"},
		{name: "encrypted, EPHEMERAL in clear and on another disk", make: func(d *disks) {
			d.add("sda5", "STATE", luksMagic, nil)
			d.add("sdb1", "EPHEMERAL", xfsMagic, nil)
		}, sealed: true, why: "encrypted"},
		{name: "encrypted, the first boot was cut", make: func(d *disks) { d.add("sda5", "STATE", luksMagic, nil) }, why: "encrypted"},
		{name: "encrypted, EPHEMERAL not filled", make: func(d *disks) {
			d.add("sda5", "STATE", luksMagic, nil)
			d.add("sda6", "EPHEMERAL", "", nil)
		}, why: "encrypted"},

		{name: "a second disk with another machine's STATE", make: func(d *disks) {
			d.add("sda5", "STATE", xfsMagic, files(strings.ReplaceAll(platformYAML, "42", "7"), explicit))
			d.add("sdb5", "STATE", xfsMagic, files(platformYAML, configYAML))
		}, hostname: "web-1.example.com"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDisks(t)
			tt.make(d)
			got, ok := d.look("42")
			if !ok {
				t.Fatal("it gave nothing")
			}
			if got.Name.Hostname != tt.hostname || got.Explicit != tt.explicit || got.Sealed != tt.sealed {
				t.Errorf("%+v", got)
			}
			if got.Known() && (got.Name.InstanceID != "42" || got.Name.Since.IsZero() || got.From == "") {
				t.Errorf("%+v", got)
			}
			if (got.Why == "") != (tt.why == "") || !strings.Contains(got.Why, tt.why) {
				t.Errorf("it says %q, not %q", got.Why, tt.why)
			}
			if strings.Contains(fmt.Sprintf("%+v", got), "secret") {
				t.Errorf("a secret is in %+v", got)
			}
		})
	}
}

func TestADiskThatComesLateIsFoundAsLongAsSomebodyLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // in virtual time: a first disk is expected for two seconds
		d := newDisks(t)
		l := lookTalos(t.Context(), Config{Sys: d.sys, Dev: d.dev, Instance: "42", Disks: func() bool { return true }}, d.mount)
		<-l.Ready // nobody waits for it for ever
		if !l.Reading() {
			t.Error("a disk is expected, and an answer does not wait for it")
		}
		// The device before its entry in sysfs, as the kernel has it.
		d.add("sda5", "STATE", "XFSB", files(platformYAML, ""))
		if r := <-l.Recall; r.Name.Hostname != "web-1.example.com" {
			t.Errorf("%+v", r)
		}
		<-l.Done()
		if l.Reading() {
			t.Error("it is still being read")
		}
	})
}

func TestALookEndsWithItsContext(t *testing.T) {
	d := newDisks(t)
	ctx, cancel := context.WithCancel(t.Context())
	l := lookTalos(ctx, Config{Sys: d.sys, Dev: d.dev}, d.mount)
	cancel()
	<-l.Done()
	<-l.Ready
}

func TestAMountThatHangsOrPanicsHoldsNothingUp(t *testing.T) {
	d := newDisks(t)
	d.add("sda5", "STATE", "XFSB", nil)
	release := make(chan struct{})
	l := lookTalos(t.Context(), Config{Sys: d.sys, Dev: d.dev}, func(string) (volume, error) {
		<-release
		return nil, errors.New("too late")
	})
	<-l.Ready
	close(release)
	<-l.Done()
	l = lookTalos(t.Context(), Config{Sys: d.sys, Dev: d.dev}, func(string) (volume, error) { panic("the unthinkable") })
	<-l.Done()
	if r := <-l.Recall; r.Known() || !strings.Contains(r.Why, "the unthinkable") {
		t.Errorf("%+v", r)
	}
}
