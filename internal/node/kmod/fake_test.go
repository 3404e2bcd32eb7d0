//go:build linux

package kmod

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const release = "6.12.5-test"

// A QEMU virtio NIC as the buses show it.
const (
	nicPCI    = "pci:v00001AF4d00001041sv00001AF4sd00001100bc02sc00i00"
	diskPCI   = "pci:v00001AF4d00001042sv00001AF4sd00001100bc01sc00i00"
	nicVirtio = "virtio:d00000001v00001AF4"
)

// What depmod makes for virtio, with a few strangers.
const (
	virtioAlias = `# Aliases extracted from modules themselves.
alias pci:v00008086d0000100Esv*sd*bc*sc*i* e1000
alias pci:v00001AF4d*sv*sd*bc*sc*i* virtio_pci
alias virtio:d00000002v* virtio_blk
alias virtio:d00000001v* virtio_net
alias fs-ext4 ext4
`
	virtioDep = `kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/drivers/net/virtio_net.ko: kernel/drivers/net/net_failover.ko kernel/net/core/failover.ko kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/drivers/net/net_failover.ko: kernel/net/core/failover.ko

kernel/net/core/failover.ko:
kernel/drivers/virtio/virtio.ko:
kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko
kernel/drivers/virtio/virtio_pci.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
`
)

// virtioOrder is what must be loaded, in this order.
var virtioOrder = []string{"virtio", "virtio_ring", "virtio_pci", "failover", "net_failover", "virtio_net"}

// elf is the file of a fake module: the fake kernel reads the name in it.
func elf(name string) string { return "\x7fELF " + name }

// write puts files into a tree.
func write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// modulesDir is where the modules are in a tree.
func modulesDir(root string) string { return filepath.Join(root, "lib/modules", release) }

// virtioTree puts the modules of a virtio NIC into a tree, and returns its files.
func virtioTree(t testing.TB, root string) map[string]string {
	files := map[string]string{"modules.alias": virtioAlias, "modules.dep": virtioDep}
	for line := range strings.Lines(virtioDep) {
		if file, _, ok := strings.Cut(line, ":"); ok {
			files[file] = elf(moduleName(file))
		}
	}
	write(t, modulesDir(root), files)
	return files
}

// machine is a fake one: an initramfs, sysfs, and a kernel that records.
type machine struct {
	t      testing.TB
	root   string
	sysfs  string
	dev    string
	kernel *fakeKernel
	cfg    Config
}

func newMachine(t testing.TB) *machine {
	t.Helper()
	dir := t.TempDir()
	m := &machine{t: t, root: dir + "/root", sysfs: dir + "/sys", dev: dir + "/dev"}
	for _, d := range []string{m.root, m.sysfs + "/bus/pci/devices", m.sysfs + "/module", m.dev} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m.kernel = &fakeKernel{fail: map[string]error{}, live: map[string]bool{}, onLoad: func(string) {}}
	m.cfg = Config{Root: m.root, Sys: m.sysfs, Dev: m.dev, Release: release}
	return m
}

// virtioMachine has one virtio NIC, whose virtio device appears with virtio_pci,
// and a disk of which nothing must be made.
func virtioMachine(t testing.TB) *machine {
	t.Helper()
	m := newMachine(t)
	m.plug("pci", "0000:00:02.0", diskPCI)
	m.plug("pci", "0000:00:03.0", nicPCI)
	m.kernel.onLoad = func(name string) {
		switch name {
		case "virtio_pci":
			m.bind("pci", "0000:00:02.0", "virtio-pci")
			m.bind("pci", "0000:00:03.0", "virtio-pci")
			m.plug("virtio", "virtio0", "virtio:d00000002v00001AF4")
			m.plug("virtio", "virtio1", nicVirtio)
		case "virtio_net":
			m.bind("virtio", "virtio1", "virtio_net")
		}
	}
	return m
}

func (m *machine) plug(bus, address, modalias string) {
	m.t.Helper()
	write(m.t, filepath.Join(m.sysfs, "bus", bus, "devices", address), map[string]string{"modalias": modalias + "\n"})
}

func (m *machine) unplug(bus, address string) {
	m.t.Helper()
	if err := os.RemoveAll(filepath.Join(m.sysfs, "bus", bus, "devices", address)); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) bind(bus, address, driver string) {
	m.t.Helper()
	link := filepath.Join(m.sysfs, "bus", bus, "devices", address, "driver")
	if err := os.Symlink("../../drivers/"+driver, link); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) loader() *Loader {
	l := New(m.cfg)
	l.sys = m.kernel
	return l
}

// load loads and returns the names of what was loaded.
func (m *machine) load(l *Loader) ([]string, error) {
	m.t.Helper()
	report, err := l.Load(m.t.Context())
	var names []string
	for _, mod := range report.Loaded {
		names = append(names, mod.Name)
	}
	if !slices.Equal(names, m.kernel.take()) {
		m.t.Errorf("the report %q is not what the kernel saw", names)
	}
	return names, err
}

// fakeKernel loads nothing and mounts nothing, and writes down what it was asked.
type fakeKernel struct {
	mu     sync.Mutex
	calls  []string         // all, with what matters of their arguments
	loaded []string         // modules, by name
	bytes  int              // given to initModule
	fail   map[string]error // by call, or by name of a module
	live   map[string]bool  // modules that it has already
	onLoad func(name string)
	image  string // what fsmount shows
	next   int    // the free loop device
}

func (k *fakeKernel) call(format string, args ...any) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := fmt.Sprintf(format, args...)
	k.calls = append(k.calls, c)
	name, _, _ := strings.Cut(c, " ")
	return k.fail[name]
}

// take returns the modules that were loaded since the last time.
func (k *fakeKernel) take() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	loaded := k.loaded
	k.loaded = nil
	return loaded
}

func (k *fakeKernel) insert(call, content, params string) error {
	name := strings.TrimRight(strings.TrimPrefix(content, "\x7fELF "), "\x00 ")
	if err := k.call("%s", strings.TrimSpace(call+" "+name+" "+params)); err != nil {
		return err
	}
	k.mu.Lock()
	err := k.fail[name]
	live := k.live[name]
	if err == nil && !live {
		k.loaded = append(k.loaded, name)
		k.live[name] = true
	}
	k.mu.Unlock()
	if err != nil {
		return err
	}
	if live {
		return unix.EEXIST
	}
	k.onLoad(name)
	return nil
}

func (k *fakeKernel) finitModule(fd int, params string) error {
	text := make([]byte, 64)
	n, err := unix.Pread(fd, text, 0)
	if err != nil {
		return err
	}
	return k.insert("finit_module", string(text[:n]), params)
}

func (k *fakeKernel) initModule(image []byte, params string) error {
	k.bytes = len(image)
	return k.insert("init_module", string(image[:min(len(image), 64)]), params)
}

func (k *fakeKernel) loopFree(int) (int, error) {
	k.mu.Lock()
	n := k.next
	k.next++
	k.mu.Unlock()
	return n, k.call("loop_free")
}

func (k *fakeKernel) loopConfigure(_, _ int, name string) error {
	return k.call("loop_configure %s", filepath.Base(name))
}

func (k *fakeKernel) loopClear(int) error { return k.call("loop_clear") }

func (k *fakeKernel) fsopen(fstype string) (int, error) {
	if err := k.call("fsopen %s", fstype); err != nil {
		return -1, err
	}
	return unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
}

func (k *fakeKernel) fsconfig(_ int, device string) error {
	return k.call("fsconfig %s", filepath.Base(device))
}

func (k *fakeKernel) fsmount(int) (int, error) {
	if err := k.call("fsmount"); err != nil {
		return -1, err
	}
	return unix.Open(k.image, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// descriptors lists what is open, to compare before and after.
func descriptors(t testing.TB) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var open []string
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && !strings.HasPrefix(to, "anon_inode:") {
			open = append(open, to)
		}
	}
	slices.Sort(open)
	return open
}

// sameDescriptors fails the test if at its end others are open than now.
func sameDescriptors(t *testing.T) {
	t.Helper()
	before := descriptors(t)
	t.Cleanup(func() {
		if after := descriptors(t); !slices.Equal(before, after) {
			t.Errorf("open before: %q\nopen after:  %q", before, after)
		}
	})
}

// soon is a context for a test that would hang otherwise.
func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// missing skips a test that this machine cannot run; in CI that is a failure.
func missing(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}
