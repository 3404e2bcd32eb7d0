//go:build linux

package kmod

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/safely"
)

func TestAVirtioNICGetsItsDrivers(t *testing.T) {
	t.Run("from the initramfs, what is needed first, and nothing for the disk", func(t *testing.T) {
		sameDescriptors(t)
		m := virtioMachine(t)
		virtioTree(t, m.root)
		got, err := m.load(m.loader())
		if err != nil || !slices.Equal(got, virtioOrder) {
			t.Errorf("loaded %q, %v\nwant   %q", got, err, virtioOrder)
		}
		if slices.ContainsFunc(m.kernel.calls, func(c string) bool { return strings.HasPrefix(c, "loop") }) {
			t.Errorf("the image was mounted for nothing: %q", m.kernel.calls)
		}
	})
	t.Run("from usr/lib/modules where there is no lib", func(t *testing.T) {
		m := virtioMachine(t)
		virtioTree(t, m.root+"/usr")
		if got, err := m.load(m.loader()); err != nil || !slices.Equal(got, virtioOrder) {
			t.Errorf("loaded %q, %v", got, err)
		}
	})
	t.Run("from usr/lib where lib is an absolute link, which must not lead out of the root", func(t *testing.T) {
		m := virtioMachine(t)
		virtioTree(t, m.root+"/usr")
		if err := os.Symlink("/usr/lib", m.root+"/lib"); err != nil {
			t.Fatal(err)
		}
		if got, err := m.load(m.loader()); err != nil || !slices.Equal(got, virtioOrder) {
			t.Errorf("loaded %q, %v", got, err)
		}
	})
	t.Run("with lines in modules.dep that name direct needs only", func(t *testing.T) {
		m := virtioMachine(t)
		virtioTree(t, m.root)
		write(t, modulesDir(m.root), map[string]string{"modules.dep": `kernel/drivers/net/virtio_net.ko: kernel/drivers/net/net_failover.ko kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/net/net_failover.ko: kernel/net/core/failover.ko
kernel/net/core/failover.ko:
kernel/drivers/virtio/virtio.ko:
kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko
kernel/drivers/virtio/virtio_pci.ko: kernel/drivers/virtio/virtio_ring.ko
`})
		if got, err := m.load(m.loader()); err != nil || !slices.Equal(got, virtioOrder) {
			t.Errorf("loaded %q, %v", got, err)
		}
	})
	t.Run("with some of them there already", func(t *testing.T) {
		m := virtioMachine(t)
		virtioTree(t, m.root)
		m.kernel.live["virtio"] = true                                                  // the kernel says EEXIST
		write(t, m.sysfs, map[string]string{"module/failover/initstate": "live\n"})     // sysfs says so
		write(t, m.sysfs, map[string]string{"module/virtio_ring/parameters/x": "1"})    // built in
		write(t, m.sysfs, map[string]string{"module/net_failover/initstate": "coming"}) // the kernel will wait
		want := []string{"virtio_pci", "net_failover", "virtio_net"}
		if got, err := m.load(m.loader()); err != nil || !slices.Equal(got, want) {
			t.Errorf("loaded %q, %v, want %q", got, err, want)
		}
	})
	t.Run("with the parameters of the kernel command line", func(t *testing.T) {
		m := virtioMachine(t)
		virtioTree(t, m.root)
		m.cfg.CommandLine = "quiet virtio_net.napi_tx=0 virtio-net.csum virtio_netx.y=1 -- virtio_net.z=1"
		if _, err := m.load(m.loader()); err != nil || !slices.Contains(m.kernel.calls, "finit_module virtio_net napi_tx=0 csum") {
			t.Errorf("%v, %q", err, m.kernel.calls)
		}
	})
	t.Run("and the report says where from", func(t *testing.T) {
		m := virtioMachine(t)
		virtioTree(t, m.root)
		report, err := m.loader().Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := []Device{
			{"pci", "0000:00:03.0", nicPCI, "virtio-pci"},
			{"virtio", "virtio1", nicVirtio, "virtio_net"},
		}
		if !slices.Equal(report.Devices, want) {
			t.Errorf("devices %+v", report.Devices)
		}
		last := report.Loaded[len(report.Loaded)-1]
		if last.File != modulesDir(m.root)+"/kernel/drivers/net/virtio_net.ko" || last.Took <= 0 {
			t.Errorf("last module %+v", last)
		}
	})
}

func TestNothingToDo(t *testing.T) {
	t.Run("no device at all", func(t *testing.T) {
		m := newMachine(t)
		report, err := m.loader().Load(t.Context())
		if err != nil || len(report.Devices) != 0 || len(m.kernel.calls) != 0 {
			t.Errorf("%+v, %v, %q", report, err, m.kernel.calls)
		}
	})
	t.Run("a NIC that has its driver, in an initramfs without modules", func(t *testing.T) {
		m := newMachine(t)
		m.plug("pci", "0000:00:03.0", nicPCI)
		m.bind("pci", "0000:00:03.0", "e1000")
		report, err := m.loader().Load(t.Context())
		if err != nil || len(report.Devices) != 1 || report.Devices[0].Driver != "e1000" || len(m.kernel.calls) != 0 {
			t.Errorf("%+v, %v, %q", report, err, m.kernel.calls)
		}
	})
	t.Run("only devices that are not for the network", func(t *testing.T) {
		m := newMachine(t)
		virtioTree(t, m.root)
		m.plug("pci", "0000:00:02.0", diskPCI)
		m.plug("virtio", "virtio0", "virtio:d00000010v00001AF4") // 0x10 begins with a 1 as well
		if got, err := m.load(m.loader()); err != nil || len(got) != 0 {
			t.Errorf("loaded %q, %v", got, err)
		}
	})
	t.Run("sysfs is not mounted, which is an error", func(t *testing.T) {
		m := newMachine(t)
		m.cfg.Sys = m.root
		var e *Error
		if _, err := m.load(m.loader()); !errors.As(err, &e) || !strings.Contains(e.Remedy, "mount sysfs") {
			t.Errorf("%v", err)
		}
	})
}

func TestADeviceIsTriedOnceUntilItIsPluggedInAnew(t *testing.T) {
	m := newMachine(t)
	virtioTree(t, m.root)
	l := m.loader()
	if got, err := m.load(l); err != nil || len(got) != 0 {
		t.Fatalf("before there is a NIC: %q, %v", got, err)
	}
	m.kernel.fail["virtio_pci"] = unix.ENOEXEC
	m.plug("pci", "0000:00:03.0", nicPCI)
	if _, err := m.load(l); !errors.Is(err, unix.ENOEXEC) {
		t.Fatalf("plugged in: %v", err)
	}
	if got, err := m.load(l); err != nil || len(got) != 0 {
		t.Fatalf("once more: %q, %v", got, err)
	}
	m.unplug("pci", "0000:00:03.0")
	if got, err := m.load(l); err != nil || len(got) != 0 {
		t.Fatalf("taken out: %q, %v", got, err)
	}
	delete(m.kernel.fail, "virtio_pci")
	m.plug("pci", "0000:00:03.0", nicPCI)
	if got, err := m.load(l); err != nil || !slices.Equal(got, []string{"virtio_pci"}) {
		t.Fatalf("plugged in anew: %q, %v", got, err)
	}
}

func TestDevicesThatNeverSettleEndInAnError(t *testing.T) {
	m := newMachine(t)
	modalias := func(c string) string { return "pci:v1d1sv1sd1bc02sc00i" + c }
	var alias, dep strings.Builder
	for c := 'a'; c <= 't'; c++ {
		alias.WriteString("alias " + modalias(string(c)) + " " + string(c) + "\n")
		dep.WriteString(string(c) + ".ko:\n")
		write(t, modulesDir(m.root), map[string]string{string(c) + ".ko": elf(string(c))})
	}
	write(t, modulesDir(m.root), map[string]string{"modules.alias": alias.String(), "modules.dep": dep.String()})
	m.plug("pci", "a", modalias("a"))
	m.kernel.onLoad = func(name string) { // each driver makes a further device appear
		next := string(rune(name[0] + 1))
		m.plug("pci", next, modalias(next))
	}
	if got, err := m.load(m.loader()); len(got) != rounds || err == nil || !strings.Contains(err.Error(), "after 8 rounds") {
		t.Errorf("%q, %v", got, err)
	}
}

func TestSoftDependencies(t *testing.T) {
	tree := map[string]string{
		"modules.alias":   "alias pci:* r8169\n",
		"modules.dep":     "r8169.ko: mii.ko\nmii.ko:\nrealtek.ko.zst: libphy.ko\nlibphy.ko:\nlater.ko:\n",
		"modules.softdep": "# comment\nsoftdep r8169 pre: realtek builtin-thing post: later\nsoftdep broken\n",
		"r8169.ko":        elf("r8169"), "mii.ko": elf("mii"), "libphy.ko": elf("libphy"), "later.ko": elf("later"),
	}
	t.Run("what is wanted before comes before, what is wanted after stays out", func(t *testing.T) {
		m := newMachine(t)
		write(t, modulesDir(m.root), tree)
		write(t, modulesDir(m.root), map[string]string{"realtek.ko.zst": elf("realtek")}) // plain, whatever its name says
		m.plug("pci", "0", nicPCI)
		want := []string{"libphy", "realtek", "mii", "r8169"}
		if got, err := m.load(m.loader()); err != nil || !slices.Equal(got, want) {
			t.Errorf("loaded %q, %v, want %q", got, err, want)
		}
	})
	t.Run("one that fails is no error", func(t *testing.T) {
		m := newMachine(t)
		write(t, modulesDir(m.root), tree)
		m.plug("pci", "0", nicPCI)
		want := []string{"libphy", "mii", "r8169"}
		if got, err := m.load(m.loader()); err != nil || !slices.Equal(got, want) {
			t.Errorf("loaded %q, %v, want %q", got, err, want)
		}
	})
	t.Run("one that fails is named if the module fails as well", func(t *testing.T) {
		m := newMachine(t)
		write(t, modulesDir(m.root), tree)
		m.plug("pci", "0", nicPCI)
		m.kernel.fail["r8169"] = unix.ENOENT
		if _, err := m.load(m.loader()); !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "before it: realtek: open ") {
			t.Errorf("%v", err)
		}
	})
	t.Run("a circle of them is no error", func(t *testing.T) {
		m := newMachine(t)
		write(t, modulesDir(m.root), tree)
		write(t, modulesDir(m.root), map[string]string{
			"modules.softdep": "softdep r8169 pre: realtek\nsoftdep realtek pre: r8169\n", "realtek.ko.zst": elf("realtek"),
		})
		m.plug("pci", "0", nicPCI)
		want := []string{"libphy", "realtek", "mii", "r8169"}
		if got, err := m.load(m.loader()); err != nil || !slices.Equal(got, want) {
			t.Errorf("loaded %q, %v, want %q", got, err, want)
		}
	})
}

func TestWhatGoesWrongIsSaid(t *testing.T) {
	// A tree for one NIC, which each test breaks.
	files := func() map[string]string {
		return map[string]string{
			"modules.alias": "alias pci:* nic\n", "modules.dep": "net/nic.ko: lib/a.ko\nlib/a.ko:\n",
			"net/nic.ko": elf("nic"), "lib/a.ko": elf("a"),
		}
	}
	for _, tt := range []struct {
		name   string
		change func(*machine, map[string]string)
		cause  error    // found by errors.Is
		says   []string // pieces of the text
	}{
		{"no modules anywhere", func(_ *machine, f map[string]string) { clear(f) }, fs.ErrNotExist, []string{"pci 0:", "no module found", "/lib/modules: ", "/rootfs.sqsh: no such file"}},
		{"modules of another kernel", func(m *machine, f map[string]string) {
			clear(f)
			write(m.t, m.root, map[string]string{"lib/modules/6.6.1-other/modules.dep": ""})
		}, fs.ErrNotExist, []string{"only those for 6.6.1-other", "of one version"}},
		{"no modules.dep", func(_ *machine, f map[string]string) { delete(f, "modules.dep") }, fs.ErrNotExist, []string{"modules.dep: no such file", "run depmod for " + release}},
		{"no modules.alias", func(_ *machine, f map[string]string) { delete(f, "modules.alias") }, fs.ErrNotExist, []string{"modules.alias: no such file", "run depmod"}},
		{"no module claims the NIC", func(_ *machine, f map[string]string) { f["modules.alias"] = "" }, nil, []string{"pci 0: find a driver", nicPCI, "depmod"}},
		{"a file that is not there", func(_ *machine, f map[string]string) { delete(f, "net/nic.ko") }, fs.ErrNotExist, []string{"nic for pci 0: open ", "net/nic.ko: no such file", "put it into the image"}},
		{"a needed file that is not there", func(_ *machine, f map[string]string) { delete(f, "lib/a.ko") }, fs.ErrNotExist, []string{"nic for pci 0: load what it needs: a: open ", "lib/a.ko: no such file"}},
		{"a needed module that modules.dep does not have", func(_ *machine, f map[string]string) { f["modules.dep"] = "net/nic.ko: lib/a.ko\n" }, fs.ErrNotExist, []string{"a: find in ", "modules.dep", "not of one depmod run"}},
		{"a claimed module that modules.dep does not have", func(_ *machine, f map[string]string) { f["modules.dep"] = "\n" }, fs.ErrNotExist, []string{"nic for pci 0: find in "}},
		{"dependencies in a circle", func(_ *machine, f map[string]string) {
			f["modules.dep"] = "net/nic.ko: lib/a.ko\nlib/a.ko: net/nic.ko\n"
		}, nil, []string{"nic needs a needs nic"}},
		{"a module that needs itself", func(_ *machine, f map[string]string) { f["modules.dep"] = "net/nic.ko: net/nic.ko\n" }, nil, []string{"nic needs nic"}},
		{"dependencies without an end", func(_ *machine, f map[string]string) {
			var b strings.Builder
			b.WriteString("net/nic.ko: x.ko\n")
			for i := 1; i < 200; i++ {
				b.WriteString(strings.Repeat("x", i) + ".ko: " + strings.Repeat("x", i+1) + ".ko\n")
			}
			f["modules.dep"] = b.String()
		}, nil, []string{"more than 64 deep"}},
		{"an endless line", func(_ *machine, f map[string]string) { f["modules.dep"] = strings.Repeat("x", longestLine+1) }, nil, []string{"line 1 is longer"}},
		{"an empty file", func(_ *machine, f map[string]string) { f["lib/a.ko"] = "" }, nil, []string{"a: read ", "the file is empty", "build the image again"}},
		{"a file that is no module", func(_ *machine, f map[string]string) { f["net/nic.ko"] = "version https://git-lfs" }, nil, []string{"neither an ELF object nor", "76 65 72 73"}},
		{"a directory in a module's place", func(_ *machine, f map[string]string) { delete(f, "net/nic.ko"); f["net/nic.ko/x"] = "" }, nil, []string{"not a regular file"}},
		{"a gigantic file", func(m *machine, f map[string]string) {
			delete(f, "net/nic.ko")
			name := modulesDir(m.root) + "/net/nic.ko"
			write(m.t, filepath.Dir(name), map[string]string{"nic.ko": elf("nic")})
			if err := os.Truncate(name, 1<<40); err != nil {
				m.t.Fatal(err)
			}
		}, nil, []string{"1099511627776 bytes are more than a module has"}},
		{"a module of another kernel", func(m *machine, _ map[string]string) { m.kernel.fail["nic"] = unix.ENOEXEC }, unix.ENOEXEC, []string{"nic for pci 0: finit_module ", "net/nic.ko: exec format error", "not a module for kernel " + release}},
		{"a wrong signature", func(m *machine, _ map[string]string) { m.kernel.fail["nic"] = unix.EKEYREJECTED }, unix.EKEYREJECTED, []string{"signature"}},
		{"loading is forbidden", func(m *machine, _ map[string]string) { m.kernel.fail["nic"] = unix.EPERM }, unix.EPERM, []string{"forbidden", "module_blacklist="}},
		{"a symbol is missing", func(m *machine, _ map[string]string) { m.kernel.fail["nic"] = unix.ENOENT }, unix.ENOENT, []string{"symbol"}},
		{"a kernel without modules", func(m *machine, _ map[string]string) { m.kernel.fail["nic"] = unix.ENOSYS }, unix.ENOSYS, []string{"no loadable modules"}},
		{"no memory", func(m *machine, _ map[string]string) { m.kernel.fail["nic"] = unix.ENOMEM }, unix.ENOMEM, []string{"short of memory"}},
		{"no device after all", func(m *machine, _ map[string]string) { m.kernel.fail["nic"] = unix.ENODEV }, unix.ENODEV, []string{"no device of its own"}},
		{"being loaded by another", func(m *machine, _ map[string]string) { m.kernel.fail["nic"] = unix.EBUSY }, unix.EBUSY, []string{"another process"}},
		{"something else", func(m *machine, _ map[string]string) { m.kernel.fail["nic"] = unix.EINVAL }, unix.EINVAL, []string{"kernel's log"}},
		{"signals without end", func(m *machine, _ map[string]string) { m.kernel.fail["nic"] = unix.EINTR }, unix.EINTR, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sameDescriptors(t)
			m := newMachine(t)
			f := files()
			tt.change(m, f)
			if len(f) > 0 {
				write(t, modulesDir(m.root), f)
			}
			m.plug("pci", "0", nicPCI)
			got, err := m.load(m.loader())
			if slices.Contains(got, "nic") {
				t.Errorf("loaded %q", got)
			}
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("%v is no *Error", err)
			}
			if tt.cause != nil && !errors.Is(err, tt.cause) {
				t.Errorf("%v is not %v", err, tt.cause)
			}
			for _, s := range tt.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("%q is not in\n%v", s, err)
				}
			}
			if strings.Count(err.Error(), "\n") > 0 || strings.Count(err.Error(), "kmod: ") != 1 {
				t.Errorf("not one line:\n%v", err)
			}
		})
	}
}

func TestAPanicBecomesAnError(t *testing.T) {
	m := virtioMachine(t)
	virtioTree(t, m.root)
	m.kernel.onLoad = func(string) { panic("oh") }
	l := m.loader()
	_, err := l.Load(t.Context())
	if p, ok := errors.AsType[*safely.PanicError](err); !ok || p.Value != "oh" {
		t.Errorf("%v", err)
	}
	m.kernel.onLoad = func(string) {}
	if _, err := l.Load(soon(t)); err != nil {
		t.Errorf("the next one: %v", err)
	}
}

func TestTheContextIsHonoured(t *testing.T) {
	t.Run("before anything is done", func(t *testing.T) {
		m := virtioMachine(t)
		virtioTree(t, m.root)
		ctx, cancel := context.WithCancelCause(t.Context())
		because := errors.New("because")
		cancel(because)
		if _, err := m.loader().Load(ctx); !errors.Is(err, because) || len(m.kernel.calls) != 0 {
			t.Errorf("%v, %q", err, m.kernel.calls)
		}
	})
	t.Run("between two modules, after which the rest can be loaded", func(t *testing.T) {
		m := virtioMachine(t)
		virtioTree(t, m.root)
		ctx, cancel := context.WithCancel(t.Context())
		then := m.kernel.onLoad
		m.kernel.onLoad = func(name string) {
			then(name)
			cancel()
		}
		l := m.loader()
		_, err := l.Load(ctx)
		if got := m.kernel.take(); !errors.Is(err, context.Canceled) || !slices.Equal(got, virtioOrder[:1]) {
			t.Errorf("%v, %q", err, got)
		}
		m.kernel.onLoad = then
		if got, err := m.load(l); err != nil || !slices.Equal(got, virtioOrder[1:]) {
			t.Errorf("the rest: %v, %q", err, got)
		}
	})
	t.Run("while a driver hangs in its probe, and the next Load waits for it", func(t *testing.T) {
		m := virtioMachine(t)
		virtioTree(t, m.root)
		begun, go_on := make(chan struct{}), make(chan struct{})
		then := m.kernel.onLoad
		m.kernel.onLoad = func(name string) {
			if name == "virtio_pci" {
				close(begun)
				<-go_on
			}
			then(name)
		}
		l := m.loader()
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-begun
			cancel()
		}()
		_, err := l.Load(ctx)
		if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "while loading virtio_pci") {
			t.Errorf("%v", err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if _, err := l.Load(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "while loading virtio_pci") {
			t.Errorf("a second: %v", err)
		}
		close(go_on)
		if _, err := l.Load(soon(t)); err != nil || !slices.Equal(m.kernel.take(), virtioOrder) {
			t.Errorf("a third: %v", err)
		}
	})
}

func TestSeveralAtATime(t *testing.T) {
	m := virtioMachine(t)
	virtioTree(t, m.root)
	l := m.loader()
	errs := make(chan error)
	for range 8 {
		go func() {
			_, err := l.Load(soon(t))
			errs <- err
		}()
	}
	for range 8 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if got := m.kernel.take(); !slices.Equal(got, virtioOrder) {
		t.Errorf("loaded %q", got)
	}
}

func TestTheRunningKernelsRelease(t *testing.T) {
	r, err := runningRelease()
	if err != nil || r == "" || strings.ContainsAny(r, "\x00 \n") {
		t.Errorf("%q, %v", r, err)
	}
}

func TestADiskGetsItsDriversBesideTheNIC(t *testing.T) {
	const (
		scsiPCI    = "pci:v00001AF4d00001048sv00001AF4sd00001100bc01sc00i00"
		scsiVirtio = "virtio:d00000008v00001AF4"
	)
	alias := virtioAlias + "alias virtio:d00000008v* virtio_scsi\nalias scsi:t-0x00* sd_mod\nalias fs-xfs xfs\n"
	dep := virtioDep + `kernel/drivers/scsi/virtio_scsi.ko: kernel/drivers/scsi/scsi_mod.ko
kernel/drivers/scsi/sd_mod.ko: kernel/drivers/scsi/scsi_mod.ko
kernel/drivers/scsi/scsi_mod.ko:
kernel/fs/xfs/xfs.ko:
`
	machineWith := func(t *testing.T) *machine {
		m := virtioMachine(t)
		m.cfg.Disks, m.cfg.FileSystems = true, []string{"xfs"}
		before := m.kernel.onLoad
		m.plug("pci", "0000:00:04.0", scsiPCI)
		m.kernel.onLoad = func(name string) {
			before(name)
			switch name {
			case "virtio_pci":
				m.bind("pci", "0000:00:04.0", "virtio-pci")
				m.plug("virtio", "virtio2", scsiVirtio)
			case "virtio_blk":
				m.bind("virtio", "virtio0", "virtio_blk")
			case "virtio_scsi":
				m.bind("virtio", "virtio2", "virtio_scsi")
				m.plug("scsi", "0:0:0:0", "scsi:t-0x00")
				m.plug("scsi", "0:0:1:0", "scsi:t-0x05") // a CD
			case "sd_mod":
				m.bind("scsi", "0:0:0:0", "sd")
			}
		}
		write(t, modulesDir(m.root), map[string]string{"modules.alias": alias, "modules.dep": dep})
		for _, name := range []string{"scsi/virtio_scsi", "scsi/sd_mod", "scsi/scsi_mod", "block/virtio_blk"} {
			write(t, modulesDir(m.root), map[string]string{"kernel/drivers/" + name + ".ko": elf(filepath.Base(name))})
		}
		write(t, modulesDir(m.root), map[string]string{"kernel/fs/xfs/xfs.ko": elf("xfs")})
		return m
	}
	t.Run("after it, each bus in its turn, and the file system", func(t *testing.T) {
		m := machineWith(t)
		virtioTreeFiles(t, m)
		got, err := m.load(m.loader())
		want := append(slices.Clone(virtioOrder[:3]), "xfs", "failover", "net_failover", "virtio_net", "virtio_blk", "scsi_mod", "virtio_scsi", "sd_mod")
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("loaded %q, %v\nwant   %q", got, err, want)
		}
	})
	t.Run("no file system where the kernel has it", func(t *testing.T) {
		m := machineWith(t)
		virtioTreeFiles(t, m)
		write(t, m.sysfs, map[string]string{"fs/xfs/debug/x": ""})
		if got, err := m.load(m.loader()); err != nil || slices.Contains(got, "xfs") {
			t.Errorf("loaded %q, %v", got, err)
		}
	})
	t.Run("one that no module claims is no error", func(t *testing.T) {
		m := virtioMachine(t)
		m.cfg.Disks = true
		virtioTree(t, m.root)
		m.plug("pci", "0000:00:1f.2", "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01")
		if got, err := m.load(m.loader()); err != nil || !slices.Contains(got, "virtio_blk") {
			t.Errorf("loaded %q, %v", got, err)
		}
	})
	t.Run("one whose driver does not load is told, and the NIC has its own", func(t *testing.T) {
		m := virtioMachine(t)
		m.cfg.Disks = true
		virtioTree(t, m.root)
		m.kernel.fail["virtio_blk"] = unix.ENODEV
		got, err := m.load(m.loader())
		var fault *Error
		if !errors.As(err, &fault) || fault.Module != "virtio_blk" || !slices.Contains(got, "virtio_net") {
			t.Errorf("loaded %q, %v", got, err)
		}
	})
	t.Run("and none where nobody asks", func(t *testing.T) {
		m := machineWith(t)
		m.cfg.Disks = false
		virtioTreeFiles(t, m)
		if got, err := m.load(m.loader()); err != nil || !slices.Equal(got, virtioOrder) {
			t.Errorf("loaded %q, %v", got, err)
		}
	})
}

// virtioTreeFiles puts the modules of virtioTree beside a catalogue that is there.
func virtioTreeFiles(t *testing.T, m *machine) {
	t.Helper()
	for line := range strings.Lines(virtioDep) {
		if file, _, ok := strings.Cut(line, ":"); ok {
			write(t, modulesDir(m.root), map[string]string{file: elf(moduleName(file))})
		}
	}
}
