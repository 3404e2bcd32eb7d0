//go:build linux

package boot_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/internal/node/record"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/helpertest"
	"github.com/nametag-boot/nametag/internal/testvm/patience"
	"github.com/nametag-boot/nametag/internal/testvm/qemu"
	"github.com/nametag-boot/nametag/internal/testvm/qemu/report"
	"github.com/nametag-boot/nametag/internal/testvm/talos"
)

// What a Talos has on STATE after a boot on the instance 42.
func platformFile(name, instance string) []byte {
	return fmt.Appendf(nil, "addresses: []\nlinks: []\nhostnames:\n    - hostname: %s\n      domainname: \"\"\n      layer: platform\nmetadata:\n    platform: hcloud\n    hostname: %s\n    region: hel1\n    zone: hel1-dc2\n    instanceId: %q\n    providerId: hcloud://%s\n",
		name, name, instance, instance)
}

var (
	remembers = platformFile(server, "42")
	config    = []byte("version: v1alpha1\nmachine:\n    type: controlplane\n    token: a-secret\n    network: {}\n")
	inField   = []byte("version: v1alpha1 # Indicates the schema.\nmachine:\n  type: controlplane\n  network:\n    hostname: by-hand # the operator's\n")
	inAField  = []byte("\"version\": v1alpha1\n\"machine\":\n    'network':\n        'hostname': \"by-hand\"\n")
	document  = append(slices.Clone(config), "---\napiVersion: v1alpha1\nkind: HostnameConfig\nhostname: by-hand\n"...)
	noise     = bytes.Repeat([]byte{0, 0xff, 'a', '\n', 0x80}, 4000)
	large     = append(slices.Clone(inField), bytes.Repeat([]byte("# 0123456789\n"), (2<<20)/13)...)
)

// The metadata service as it is at a later boot.
var (
	down  = cloud.Config{Metadata: until(time.Hour, cloud.Unreachable())}
	there = cloud.Config{}
)

// laterBoot is a boot of a node that has booted before, or of what looks like one.
type laterBoot struct {
	name  string
	disks []talos.Partition // of the one disk; more than one disk: see second
	bus   qemu.DiskBus
	first []talos.Partition // of a disk before that one; nil: none
	after time.Duration     // when the disk is plugged in
	cloud cloud.Config      // the metadata service
	keys  string            // further keys of the argument
	args  []string

	helper string // another one; "": as it ships

	called  string       // the name of the services; "": the boot ends as below
	finally bool         // services may have started under the name before: Talos' own memory is above what we can say
	outcome qemu.Outcome // where no name is expected
	says    string
	silent  bool // the service is not asked
}

// onDisk is a Talos' disk.
func onDisk(state talos.Partition, rest ...talos.Partition) []talos.Partition {
	return append([]talos.Partition{talos.Meta(), state}, rest...)
}

const gone = "poweroff" // the policy, where it is asked

// later are the boots that every run of the tests has; the rest is for make later-boots.
func later() (always, more []laterBoot) {
	known := onDisk(talos.State(remembers, config), talos.Ephemeral())
	sealed := onDisk(talos.Encrypted("STATE"), talos.Encrypted("EPHEMERAL"))
	unlocks := []string{"standin_unlocks=" + server}
	always = []laterBoot{
		{name: "down, the name is known", disks: known, bus: qemu.VirtioSCSI, cloud: down, called: server, says: "going on under the name that this node has had"},
		{name: "down, an explicit name", disks: onDisk(talos.State(remembers, document)), cloud: down, called: "by-hand", says: "HostnameConfig in the machine configuration names this node by-hand", silent: true},
		{name: "renamed", disks: onDisk(talos.State(platformFile("old-name", "42"), config)), bus: qemu.NVMe, cloud: there, called: server, finally: true, says: "it was old-name"},
		{name: "renamed, which is to stop it", disks: onDisk(talos.State(platformFile("old-name", "42"), config)), cloud: there, keys: ",rename=stop", outcome: qemu.PoweredOff, says: "rename=stop says"},
		{name: "down, another instance's disk", disks: onDisk(talos.State(platformFile(server, "7"), config)), cloud: down, outcome: qemu.PoweredOff, says: `of the instance "7"`},
		{name: "down, encrypted", disks: sealed, args: unlocks, cloud: down, called: server, says: "known=strict waits instead"},
		{name: "down, the disk comes later", disks: known, after: 4 * time.Second, cloud: down, called: server, says: "going on under the name"},
		{name: "down, known=off", disks: known, cloud: down, keys: ",known=off", outcome: qemu.PoweredOff, says: "no name yet: poweroff"},
	}
	more = []laterBoot{
		{name: "there, the name is known", disks: known, bus: qemu.VirtioSCSI, cloud: there, called: server, says: "by eth0/"},
		{name: "late by 20 s, the name is known", disks: known, cloud: cloud.Config{Metadata: until(20*time.Second, cloud.Unreachable())}, keys: ",known=60s", called: server, says: "by eth0/"},
		{name: "down, the name is known, at once", disks: known, cloud: down, keys: ",known=0s", called: server, says: "going on under the name"},
		{name: "down, virtio-blk", disks: known, cloud: down, called: server, says: "going on under the name"},
		{name: "down, NVMe", disks: known, bus: qemu.NVMe, cloud: down, called: server, says: "going on under the name"},
		{name: "down, on a second disk", first: []talos.Partition{{Label: "data"}}, disks: known, cloud: down, called: server, says: "going on under the name"},
		{name: "down, the disk comes a minute later", disks: known, after: time.Minute, cloud: down, called: server, says: "going on under the name"},
		{name: "down, an explicit name in the field", disks: onDisk(talos.State(remembers, inField)), bus: qemu.VirtioSCSI, cloud: down, called: "by-hand", says: "machine.network.hostname in the machine configuration"},
		{name: "down, an explicit name in quotes", disks: onDisk(talos.State(remembers, inAField)), bus: qemu.NVMe, cloud: down, called: "by-hand", says: "machine.network.hostname in the machine configuration"},
		{name: "there, an explicit name", disks: onDisk(talos.State(nil, inField)), cloud: there, called: "by-hand", says: "machine.network.hostname in the machine configuration", silent: true},
		{name: "down, encrypted, known=strict", disks: sealed, args: unlocks, cloud: down, keys: ",known=strict", outcome: qemu.PoweredOff, says: "no name yet: poweroff"},
		{name: "there, encrypted", disks: sealed, args: unlocks, cloud: there, called: server, says: "by eth0/"},
		{name: "down, encrypted, the first boot was cut", disks: onDisk(talos.Encrypted("STATE")), cloud: down, outcome: qemu.PoweredOff, says: "no name yet: poweroff"},
		{name: "there, no STATE", disks: []talos.Partition{talos.Meta()}, cloud: there, args: []string{"standin_state="}, called: server, says: "by eth0/"},
		{name: "there, STATE is blank", disks: onDisk(talos.Partition{Label: "STATE"}), cloud: there, called: server, says: "by eth0/"},
		{name: "there, STATE is empty", disks: onDisk(talos.State(nil, nil)), cloud: there, called: server, says: "by eth0/"},
		{name: "there, another file system", disks: onDisk(talos.Partition{Label: "STATE", Bytes: []byte("hello")}), cloud: there, called: server, says: "holds no file system of Talos"},
		{name: "there, STATE is cut in its head", disks: onDisk(talos.Partition{Label: "STATE", Size: 16 << 20, Bytes: []byte("XFSB\x00\x00")}), cloud: there, args: []string{"standin_state="}, called: server, says: "cannot be mounted"},
		{name: "down, a file is cut in the middle", disks: onDisk(talos.State(remembers[:150], config)), cloud: down, outcome: qemu.PoweredOff, says: "no name yet: poweroff"},
		{name: "there, a configuration of 2 MiB", disks: onDisk(talos.State(remembers, large)), cloud: there, called: "by-hand", says: "larger than 1 MiB"},
		{name: "down, a configuration of 2 MiB", disks: onDisk(talos.State(remembers, large)), cloud: down, called: "by-hand", says: "larger than 1 MiB"},
		{name: "there, noise", disks: onDisk(talos.State(noise, noise)), cloud: there, called: server, says: "config.yaml"},
		{name: "there, noise beside the name", disks: onDisk(talos.State(remembers, noise)), cloud: there, called: server, says: "by eth0/"},
		{name: "there, known=off", disks: onDisk(talos.State(platformFile("old-name", "42"), config)), cloud: there, keys: ",known=off", called: server, finally: true, says: "by eth0/"},
	}
	return always, more
}

func (b laterBoot) run(t *testing.T) *qemu.Verdict {
	t.Helper()
	wait, keys := "20s,then="+gone, b.keys
	if b.called != "" {
		wait = "3m"
	}
	down := len(b.cloud.Metadata) > 0
	if down && !strings.Contains(keys, "known=") {
		keys += ",known=2s"
	}
	disks := []qemu.Disk{{Path: talos.Disk(t, b.disks...), Bus: b.bus, After: b.after}}
	if b.first != nil {
		disks = append([]qemu.Disk{{Path: talos.Disk(t, b.first...), Bus: b.bus}}, disks...)
	}
	before := make([]string, 0, len(disks))
	for _, d := range disks {
		before = append(before, talos.Sum(t, d.Path))
	}
	args := []string{"talos.hostname.wait=" + wait + keys}
	if b.keys == "off" {
		args = []string{"talos.hostname.wait=off"}
	}
	if down {
		args = append(args, "standin_waits=no")
	}
	v := boot(t, qemu.Scenario{
		OS: talos.OS{Line: talos.V1_12, State: "read"}, Disks: disks, Cloud: b.cloud,
		Args: append(args, b.args...), Helper: b.helper,
	})
	for i, d := range disks {
		if after := talos.Sum(t, d.Path); after != before[i] {
			t.Errorf("disk %d was written to", i)
		}
	}
	if b.says != "" {
		says(t, v, b.says)
	}
	if v.Said("a-secret") {
		t.Error("a secret stands on the console")
	}
	if b.called == "" {
		if v.Outcome != b.outcome || len(v.Names()) > 0 {
			t.Errorf("the boot ended: %v, want %v; it was called %q", v.Outcome, b.outcome, v.Names())
		}
		return v
	}
	if names := v.Names(); b.finally && (len(names) == 0 || names[0] != b.called || names[len(names)-1] != b.called) {
		t.Errorf("it was called %q, not %s first and last", names, b.called)
	} else if !b.finally && v.Service() != b.called {
		t.Errorf("services started as %q, not as %s", v.Service(), b.called)
	}
	if found := v.State(report.Switched); found == nil || len(found.XFS) > 0 {
		t.Errorf("mounted when the system starts: %v", found)
	}
	noTrace(t, v)
	if b.silent && asked(v) {
		t.Error("the metadata service was asked")
	}
	return v
}

// A node that has booted before, and what its disk and the metadata service may be like at a later boot. Nothing is ever
// written to the disk.
func TestLaterBoots(t *testing.T) {
	t.Parallel()
	always, more := later()
	rows := always
	if os.Getenv("NAMETAG_LATER_BOOTS") != "" {
		rows = append(rows, more...)
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			row.run(t)
		})
	}
}

// A worker that dies at every boot, of a bug or for want of memory, keeps no node down that knows its name.
func TestAWorkerThatDiesAtEveryBootKeepsNoNodeDown(t *testing.T) {
	t.Parallel()
	// It dies when it begins to ask.
	helper := helpertest.Changed(t, string(qemu.AMD64), "internal/node/boot/stage.go", "var reached = func(stage) {}", `import "os"

var reached = func(s stage) {
	if s == stageSearching {
		os.Exit(9)
	}
}`)
	const dead = "the worker ended without an answer: exit status 9"
	for _, row := range []laterBoot{
		{name: "the name is known", disks: onDisk(talos.State(remembers, config), talos.Ephemeral()), called: server, says: "the metadata service was not asked", silent: true},
		{name: "nothing is known", disks: onDisk(talos.Partition{Label: "STATE"}), outcome: qemu.PoweredOff, says: "nobody is asked, and this node's memory has no name", silent: true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			row.helper, row.cloud = helper, there
			says(t, row.run(t), dead)
		})
	}
	t.Run("the name is known, and the system is not Talos", func(t *testing.T) {
		t.Parallel()
		v := boot(t, qemu.Scenario{
			OS: talos.Plain{Disks: true}, Helper: helper,
			Disks: []qemu.Disk{{Path: talos.Disk(t, talos.Root(server, "42")), Bus: qemu.VirtioSCSI}},
			Args:  []string{"talos.hostname.wait=3m,then=poweroff", "root=LABEL=ROOT"},
		})
		says(t, v, dead)
		plain(t, v)
		if found := v.State(report.Started); !strings.Contains(found.Record, `"source": "known"`) {
			t.Errorf("the record: %s", found.Record)
		}
	})
}

// The whole of it: a first boot writes its name down, the power is cut, and the service is down from then on.
func TestANodeThatHasBootedNeedsNoService(t *testing.T) {
	t.Parallel()
	disk := qemu.Disk{Path: talos.Disk(t, onDisk(talos.State(nil, nil), talos.Ephemeral())...), Bus: qemu.VirtioSCSI}
	first := boot(t, qemu.Scenario{
		OS: talos.OS{Line: talos.V1_12, State: "dirty"}, Disks: []qemu.Disk{disk}, Args: []string{"talos.hostname.wait=2m"},
		Until: func(v *qemu.Verdict) bool { _, stored := v.First(report.Stored); return stored },
	})
	onlyEver(t, first, server)
	before := talos.Sum(t, disk.Path)
	second := boot(t, qemu.Scenario{
		OS: talos.OS{Line: talos.V1_12, State: "read"}, Disks: []qemu.Disk{disk}, Cloud: down,
		Args: []string{"talos.hostname.wait=2m,known=2s", "standin_waits=no"},
	})
	onlyEver(t, second, server)
	noTrace(t, second)
	if talos.Sum(t, disk.Path) != before {
		t.Error("the disk was written to")
	}
}

// A system that is not Talos keeps its name in a file of its root, which root= names.
func TestASystemThatIsNotTalosGoesOnUnderTheNameInItsRoot(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name, root, instance string
		bus                  qemu.DiskBus
		known                bool
	}{
		{"by its label, on SCSI", "LABEL=ROOT", "42", qemu.VirtioSCSI, true},
		{"another instance's", "PARTUUID=00000000-0000-4000-8000-000000000001", "7", qemu.VirtioBlock, false},
	}
	if os.Getenv("NAMETAG_LATER_BOOTS") != "" {
		rows = append(rows, rows...)
		rows[2].name, rows[2].root, rows[2].bus = "by its partition's id", "PARTUUID=00000000-0000-4000-8000-000000000001", qemu.VirtioBlock
		rows[3].name, rows[3].root, rows[3].instance, rows[3].bus, rows[3].known = "by its device", "/dev/nvme0n1p1", "42", qemu.NVMe, true
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			disk := qemu.Disk{Path: talos.Disk(t, talos.Root(server, row.instance)), Bus: row.bus}
			before := talos.Sum(t, disk.Path)
			wait := 2 * time.Minute
			if !row.known { // it is waited for, and is longer than the drivers of a busy machine take to load
				wait = min(time.Minute, patience.Bound(2*time.Second)).Round(time.Second)
			}
			v := boot(t, qemu.Scenario{
				OS: talos.Plain{Disks: true}, Disks: []qemu.Disk{disk}, Cloud: down,
				Args: []string{fmt.Sprintf("talos.hostname.wait=%v,then=poweroff,known=2s", wait), "root=" + row.root},
			})
			if talos.Sum(t, disk.Path) != before {
				t.Error("the disk was written to")
			}
			found := v.State(report.Started)
			if !row.known {
				says(t, v, "counts for nothing")
				if v.Outcome != qemu.PoweredOff || found != nil {
					t.Errorf("the boot ended: %v", v.Outcome)
				}
				return
			}
			plain(t, v)
			var r record.Record
			if err := json.Unmarshal([]byte(found.Record), &r); err != nil || r.Source != "known" || r.Hostname != server || r.KnownSince.IsZero() {
				t.Errorf("the record: %v: %s", err, found.Record)
			}
			if len(found.XFS) > 0 {
				t.Errorf("mounted when the system starts: %q", found.XFS)
			}
		})
	}
}

// How long a later boot takes until its first service, by the guest's own clock: NAMETAG_LATER_BOOTS says how many of each
// kind; see make later-boots.
func TestHowLongALaterBootTakes(t *testing.T) {
	s := os.Getenv("NAMETAG_LATER_BOOTS")
	if s == "" {
		t.Skip("skipped: NAMETAG_LATER_BOOTS is not set; make later-boots sets it")
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	const patient = 15 * time.Second
	known := onDisk(talos.State(remembers, config), talos.Ephemeral())
	var mu sync.Mutex
	took := map[string][]time.Duration{}
	one := func(t *testing.T, kind laterBoot) {
		t.Parallel()
		v := kind.run(t)
		began, _ := v.First(report.First)
		service, _ := v.First(report.Service)
		mu.Lock()
		defer mu.Unlock()
		took[kind.name] = append(took[kind.name], service.At-began.At)
		t.Logf("the first service %v after the first process", service.At-began.At)
		for _, l := range v.Console {
			if strings.Contains(l.Text, " after ") && strings.Contains(l.Text, "handover") || strings.Contains(l.Text, "nothing to find out") || strings.Contains(l.Text, "finding out") {
				t.Log(l)
			}
		}
	}
	t.Run("boots", func(t *testing.T) {
		for range n {
			for _, kind := range []laterBoot{
				{name: "without nametag", cloud: there, called: server, keys: "off"},
				{name: "there", cloud: there, called: server},
				{name: "down", cloud: down, keys: ",known=15s", called: server},
				{name: "down, known=0s", cloud: down, keys: ",known=0s", called: server},
				{name: "down, an explicit name", disks: onDisk(talos.State(remembers, document)), cloud: down, called: "by-hand"},
			} {
				if kind.bus = qemu.VirtioSCSI; kind.disks == nil {
					kind.disks = known
				}
				t.Run(kind.name, func(t *testing.T) { one(t, kind) })
			}
		}
	})
	// The emulated processor is as fast as the machine's load lets it be: what counts is how much longer it takes than a boot
	// with the service there.
	if len(took["there"]) == 0 {
		t.Fatal("no boot with the service there to compare with")
	}
	slowest := slices.Max(took["there"])
	for name, all := range took {
		slices.Sort(all)
		t.Logf("%s: the first service after %v to %v, median %v, of %d", name, all[0], all[len(all)-1], all[len(all)/2], len(all))
		if atMost := slowest + patient + 5*time.Second; all[len(all)-1] > atMost {
			t.Errorf("%s: it took %v, more than %v", name, all[len(all)-1], atMost)
		}
	}
}
