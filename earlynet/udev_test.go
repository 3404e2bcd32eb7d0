//go:build linux

package earlynet

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
)

// fakeUdev is a folder of udev's.
type fakeUdev string

func newFakeUdev(t *testing.T) fakeUdev {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "control"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return fakeUdev(dir)
}

// knows has udev write down a link, whole at once as udev does.
func (u fakeUdev) knows(t *testing.T, index int, properties ...string) {
	t.Helper()
	path := filepath.Join(string(u), "data", fmt.Sprintf("n%d", index))
	text := "I:5000000\n" + strings.Join(append(properties, "E:ID_BUS=pci", "G:systemd", "V:1"), "\n") + "\n"
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func TestALinkIsLeftDownUntilUdevHasFinishedWithIt(t *testing.T) {
	serving(t)
	udev := newFakeUdev(t)
	index := eth0(t).Index
	n := open(context.Background(), t, Config{Methods: []Method{LinkLocal}, udev: string(udev)})
	eventually(t, "somebody to be told", func() bool { return n.saw(LinkBusy, "udev has not finished with it") })
	down := func(when string) {
		t.Helper()
		if l := run(t, "ip -o link show dev eth0"); strings.Contains(l, ",UP") || n.saw(LinkUp, "") {
			t.Errorf("%s the link is up: %s", when, l)
		}
	}
	down("before udev has seen it")
	// So udev tells that it renames a link: it could not, if the link were up.
	udev.knows(t, index, "E:ID_RENAMING=1")
	down("while it is renamed")
	run(t, "ip link set eth0 name ens3")
	t.Cleanup(func() { run(t, "ip link del ens3") })
	udev.knows(t, index)
	p := next(t, n)
	reaches(t, p)
	if p.Interface != "ens3" {
		t.Errorf("the path is %v", p)
	}
	if st := n.Status(); len(st) != 0 {
		t.Errorf("status: %v", st)
	}
}

// fakeSys is a sysfs in which udev may be shown eth0. shown reports whether it was.
func fakeSys(t *testing.T) (dir string, shown func() bool) {
	t.Helper()
	dir = t.TempDir()
	event := filepath.Join(dir, "class/net/eth0/uevent")
	if err := errors.Join(os.MkdirAll(filepath.Dir(event), 0o755), os.WriteFile(event, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	return dir, func() bool {
		said, _ := os.ReadFile(event)
		return string(said) == "add"
	}
}

// udev cannot rename a link that is up: one that a run has left up that was killed, in the initramfs perhaps, is set down, and
// shown to udev once more.
func TestALinkThatADeadRunHasLeftUpIsLeftToUdev(t *testing.T) {
	serving(t)
	killedAt(t, LinkLocal, "path ready")
	udev, index := newFakeUdev(t), eth0(t).Index
	udev.knows(t, index, "E:ID_RENAMING=1")
	sys, shown := fakeSys(t)
	n := open(context.Background(), t, Config{Methods: []Method{LinkLocal}, udev: string(udev), sys: sys})
	eventually(t, "somebody to be told", func() bool { return n.saw(LinkBusy, "udev has not finished with it") })
	if up(t) || !shown() || n.saw(LinkSetDown, "") {
		t.Errorf("it is up: %v; udev was shown it: %v", up(t), shown())
	}
	udev.knows(t, index)
	reaches(t, next(t, n))
}

func TestRepairShowsTheLinkToUdevOnceMore(t *testing.T) {
	serving(t)
	restored(t)
	killedAt(t, LinkLocal, "path ready")
	udev := newFakeUdev(t)
	sys, shown := fakeSys(t)
	if err := Repair(t.Context(), Config{udev: string(udev), sys: sys}); err != nil {
		t.Error(err)
	}
	if up(t) || !shown() {
		t.Errorf("it is up: %v; udev was shown it: %v", up(t), shown())
	}
}

func TestUdevIsWaitedForLongerWhileItIsAtWork(t *testing.T) {
	for _, tt := range []struct {
		name  string
		works time.Duration // from the beginning on
		want  time.Duration
	}{
		{"it has nothing to do", 0, udevPatience},
		{"it has done all it had", 10 * time.Second, udevPatience},
		{"it takes a minute and a half", 90 * time.Second, 90 * time.Second},
		{"it never comes to an end", time.Hour, udevAtWork},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				queue := filepath.Join(string(newFakeUdev(t)), "queue")
				if err := os.WriteFile(queue, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				w := waitForUdev{since: time.Now()}
				for w.patient(filepath.Dir(queue)) {
					time.Sleep(time.Second)
					if time.Since(w.since) == tt.works || tt.works == 0 {
						_ = os.Remove(queue)
					}
				}
				if waited := time.Since(w.since); waited != tt.want {
					t.Errorf("it was waited for %v, not %v", waited, tt.want)
				}
			})
		})
	}
}

func TestWhereThereIsNoUdevNobodyWaitsForIt(t *testing.T) {
	dir := newFakeUdev(t)
	if !inUdev(string(dir), 7) {
		t.Error("a link that udev does not know is none that it has to do with")
	}
	dir.knows(t, 7, "E:ID_NET_NAME=ens3", "E:ID_RENAMING=1")
	if !inUdev(string(dir), 7) {
		t.Error("a link that is being renamed is finished")
	}
	dir.knows(t, 7, "E:ID_NET_NAME=ens3")
	if inUdev(string(dir), 7) {
		t.Error("a link that udev knows is not finished")
	}
	if inUdev("", 8) || inUdev(t.TempDir(), 8) {
		t.Error("there is no udev, and a link waits for it")
	}
	for _, tt := range []struct{ pids, ours, first, want string }{
		{"pid:[4026531836]", "net:[1]", "net:[1]", "/run/udev"},
		{"", "net:[1]", "net:[1]", "/run/udev"},        // a kernel without such namespaces
		{"pid:[4026531836]", "net:[2]", "net:[1]", ""}, // udev knows nothing of its links
		{"pid:[4026532200]", "net:[2]", "net:[2]", ""}, // a container's, whose first process is its own
		{"pid:[4026531836]", "net:[1]", "", ""},        // not for us to see
	} {
		proc := t.TempDir()
		for name, namespace := range map[string]string{"thread-self/ns/pid": tt.pids, "thread-self/ns/net": tt.ours, "1/ns/net": tt.first} {
			if namespace == "" {
				continue
			}
			name = filepath.Join(proc, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.Symlink(namespace, name)); err != nil {
				t.Fatal(err)
			}
		}
		if got := udevDir(proc); got != tt.want {
			t.Errorf("in %q and %q, where the first process is in %q: %q, not %q", tt.pids, tt.ours, tt.first, got, tt.want)
		}
	}
}
