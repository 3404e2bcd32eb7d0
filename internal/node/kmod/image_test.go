//go:build linux

package kmod

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// imageMachine has its modules behind the fake mount of its image.
func imageMachine(t *testing.T) *machine {
	t.Helper()
	m := virtioMachine(t)
	m.kernel.image = filepath.Join(filepath.Dir(m.root), "image")
	virtioTree(t, m.kernel.image)
	write(t, m.root, map[string]string{"rootfs.sqsh": "hsqs"})
	write(t, m.dev, map[string]string{"loop-control": "", "loop0": "", "loop1": ""})
	return m
}

func TestTheImageIsMountedAndUnmountedInOrder(t *testing.T) {
	sameDescriptors(t)
	m := imageMachine(t)
	report, err := m.loader().Load(t.Context())
	if err != nil || !slices.Equal(m.kernel.take(), virtioOrder) {
		t.Fatalf("%+v, %v", report, err)
	}
	want := []string{"loop_free", "loop_configure rootfs.sqsh", "fsopen squashfs", "fsconfig loop0", "fsmount"}
	for _, name := range virtioOrder {
		want = append(want, "finit_module "+name)
	}
	want = append(want, "loop_clear")
	if !slices.Equal(m.kernel.calls, want) {
		t.Errorf("calls %q\nwant  %q", m.kernel.calls, want)
	}
	file := m.root + "/rootfs.sqsh:/lib/modules/" + release + "/kernel/drivers/virtio/virtio.ko"
	if report.Loaded[0].File != file {
		t.Errorf("from %q, want %q", report.Loaded[0].File, file)
	}
}

func TestTheInitramfsIsAskedBeforeTheImage(t *testing.T) {
	m := imageMachine(t)
	write(t, modulesDir(m.root), map[string]string{
		"modules.alias": "alias pci:v00001AF4d* virtio_pci\n",
		"modules.dep":   "virtio_pci.ko:\n", "virtio_pci.ko": elf("virtio_pci"),
	})
	want := []string{"virtio_pci", "virtio", "virtio_ring", "failover", "net_failover", "virtio_net"}
	if got, err := m.load(m.loader()); err != nil || !slices.Equal(got, want) {
		t.Errorf("loaded %q, %v, want %q", got, err, want)
	}
}

func TestTheImageHelpsOutWhereTheInitramfsIsBroken(t *testing.T) {
	m := imageMachine(t)
	virtioTree(t, m.root)
	if err := os.Remove(modulesDir(m.root) + "/kernel/drivers/virtio/virtio.ko"); err != nil {
		t.Fatal(err)
	}
	got, err := m.load(m.loader())
	if slices.Sort(got); err != nil || !slices.Equal(got, slices.Sorted(slices.Values(virtioOrder))) {
		t.Errorf("loaded %q, %v", got, err)
	}
}

func TestLoopAndSquashfsMayBeModulesOfTheInitramfs(t *testing.T) {
	m := imageMachine(t)
	write(t, modulesDir(m.root), map[string]string{
		"modules.alias": "", "modules.dep": "loop.ko:\nsquashfs.ko.xz: lz4.ko\nlz4.ko:\n",
		"loop.ko": elf("loop"), "squashfs.ko.xz": elf("squashfs"), "lz4.ko": elf("lz4"),
	})
	want := append([]string{"loop", "lz4", "squashfs"}, virtioOrder...)
	if got, err := m.load(m.loader()); err != nil || !slices.Equal(got, want) {
		t.Errorf("loaded %q, %v, want %q", got, err, want)
	}
}

func TestALoopDeviceThatAnotherTakesFirst(t *testing.T) {
	m := imageMachine(t)
	l := m.loader()
	l.sys = &taken{fakeKernel: m.kernel}
	if _, err := l.Load(t.Context()); err != nil || !slices.Contains(m.kernel.calls, "fsconfig loop1") {
		t.Errorf("%v, %q", err, m.kernel.calls)
	}
}

// taken is a kernel whose first loop device is busy.
type taken struct {
	*fakeKernel
	once bool
}

func (k *taken) loopConfigure(loop, backing int, name string) error {
	if !k.once {
		k.once = true
		return unix.EBUSY
	}
	return k.fakeKernel.loopConfigure(loop, backing, name)
}

func TestWhatFailsOnTheWayToTheImageIsUndone(t *testing.T) {
	for _, tt := range []struct {
		name, call string
		err        error
		undone     bool // the loop device had been attached
		says       string
	}{
		{"no loop device", "loop_free", unix.ENOSPC, false, "find a free loop device with "},
		{"a loop device that refuses", "loop_configure", unix.EPERM, false, "/rootfs.sqsh to "},
		{"a kernel without squashfs", "fsopen", unix.ENODEV, true, "no squashfs built in"},
		{"an image that is none", "fsconfig", unix.EINVAL, true, "is it a squashfs"},
		{"a mount that is refused", "fsmount", unix.EPERM, true, "fsmount: operation not permitted"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sameDescriptors(t)
			m := imageMachine(t)
			m.kernel.fail[tt.call] = tt.err
			_, err := m.load(m.loader())
			if !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v", err)
			}
			last := m.kernel.calls[len(m.kernel.calls)-1]
			if tt.undone != (last == "loop_clear") {
				t.Errorf("calls %q", m.kernel.calls)
			}
		})
	}
	t.Run("no loop-control", func(t *testing.T) {
		m := imageMachine(t)
		m.cfg.Dev = m.root
		var e *Error
		if _, err := m.load(m.loader()); !errors.As(err, &e) || !strings.Contains(err.Error(), "devtmpfs must be mounted at "+m.root) {
			t.Errorf("%v", err)
		}
	})
	t.Run("and what cannot be undone is said, though the drivers are loaded", func(t *testing.T) {
		m := imageMachine(t)
		m.kernel.fail["loop_clear"] = unix.EIO
		got, err := m.load(m.loader())
		if !slices.Equal(got, virtioOrder) || !errors.Is(err, unix.EIO) || !strings.Contains(err.Error(), "detach ") {
			t.Errorf("%q, %v", got, err)
		}
	})
	t.Run("and one that autoclear was faster with is no error", func(t *testing.T) {
		m := imageMachine(t)
		m.kernel.fail["loop_clear"] = unix.ENXIO
		if got, err := m.load(m.loader()); !slices.Equal(got, virtioOrder) || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	})
	t.Run("and when the context ends in between", func(t *testing.T) {
		sameDescriptors(t)
		m := imageMachine(t)
		ctx, cancel := context.WithCancel(t.Context())
		m.kernel.onLoad = func(string) { cancel() }
		l := m.loader()
		if _, err := l.Load(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		l.turn <- struct{}{} // the worker is gone
		if last := m.kernel.calls[len(m.kernel.calls)-1]; last != "loop_clear" {
			t.Errorf("calls %q", m.kernel.calls)
		}
	})
}

// halfReal mounts for real and loads modules into the fake.
type halfReal struct {
	kernel
	fake *fakeKernel
}

func (h halfReal) finitModule(fd int, params string) error { return h.fake.finitModule(fd, params) }
func (h halfReal) initModule(b []byte, p string) error     { return h.fake.initModule(b, p) }

// realImage makes a squashfs of a tree, or skips the test and says why.
func realImage(t *testing.T, tree, image string) {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "mounting an image through a loop device takes root")
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		missing(t, "mounting an image through a loop device: %v", err)
	}
	if fs, err := os.ReadFile("/proc/filesystems"); err != nil || !strings.Contains(string(fs), "squashfs") {
		missing(t, "this kernel has no squashfs (%v)", err)
	}
	mksquashfs, err := exec.LookPath("mksquashfs")
	if err != nil {
		missing(t, "apt-get install squashfs-tools: %v", err)
	}
	if out, err := exec.Command(mksquashfs, tree, image, "-quiet", "-no-progress", "-noappend").CombinedOutput(); err != nil {
		t.Fatalf("mksquashfs: %v\n%s", err, out)
	}
}

func TestARealImageThroughARealLoopDevice(t *testing.T) {
	sameDescriptors(t)
	m := virtioMachine(t)
	tree := filepath.Join(filepath.Dir(m.root), "tree")
	virtioTree(t, tree+"/usr") // as in an image whose /lib is a link
	if err := os.Symlink("/usr/lib", tree+"/lib"); err != nil {
		t.Fatal(err)
	}
	write(t, modulesDir(tree+"/usr"), map[string]string{"kernel/drivers/net/virtio_net.ko": compressed(t, zstdFormat, elf("virtio_net"))})
	image := m.root + "/rootfs.sqsh"
	realImage(t, tree, image)
	m.cfg.Dev = "/dev"

	mounts := func() string {
		text, err := os.ReadFile("/proc/thread-self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	before := mounts()
	then := m.kernel.onLoad
	m.kernel.onLoad = func(name string) {
		then(name)
		if mounts() != before {
			t.Errorf("the image shows in the mount table:\n%s", mounts())
		}
		if len(attached(t, image)) != 1 {
			t.Errorf("attached to %q while loading", attached(t, image))
		}
	}
	l := m.loader()
	l.sys = halfReal{fake: m.kernel}
	report, err := l.Load(soon(t))
	if err != nil || !slices.Equal(m.kernel.take(), virtioOrder) {
		t.Fatalf("%+v, %v", report, err)
	}
	if !slices.Contains(m.kernel.calls, "init_module virtio_net") {
		t.Errorf("the compressed one: %q", m.kernel.calls)
	}
	if mounts() != before {
		t.Errorf("the mount table changed:\n%s", mounts())
	}
	detached(t, image)
}

func TestARealImageThatIsDamaged(t *testing.T) {
	sameDescriptors(t)
	m := virtioMachine(t)
	tree := filepath.Join(filepath.Dir(m.root), "tree")
	virtioTree(t, tree)
	image := m.root + "/rootfs.sqsh"
	realImage(t, tree, image)
	text, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	m.cfg.Dev = "/dev"
	for name, change := range map[string]func([]byte) []byte{
		"cut short":        func(b []byte) []byte { return b[:512] },
		"not one":          func(b []byte) []byte { return bytes.Repeat([]byte("x"), len(b)) },
		"a directory gone": func(b []byte) []byte { return append(slices.Clone(b[:96]), make([]byte, len(b)-96)...) },
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(image, change(slices.Clone(text)), 0o644); err != nil {
				t.Fatal(err)
			}
			l := m.loader()
			l.sys = halfReal{fake: m.kernel}
			_, err := l.Load(soon(t))
			var e *Error
			if !errors.As(err, &e) || !strings.Contains(err.Error(), image) {
				t.Errorf("%v", err)
			}
			detached(t, image)
		})
	}
}

// attached lists the loop devices that have the file.
func attached(t *testing.T, file string) (loops []string) {
	t.Helper()
	backing, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range backing {
		if name, err := os.ReadFile(b); err == nil && strings.TrimSpace(string(name)) == file {
			loops = append(loops, b)
		}
	}
	return loops
}

// detached waits for the kernel to have let go of the file: another process, such
// as udev, may have had a look at the device.
func detached(t *testing.T, file string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); len(attached(t, file)) > 0; {
		if time.Now().After(end) {
			t.Fatalf("still attached: %q", attached(t, file))
		}
		time.Sleep(time.Millisecond)
	}
}
