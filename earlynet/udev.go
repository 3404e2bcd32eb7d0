//go:build linux

package earlynet

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// On a system that runs, udev gives a link its name and its settings (systemd.link(5)) once the driver has made it. It does
// not rename one that is up: the kernel refuses that before Linux 6.2, and udev of systemd 252 by itself. Such a link stays
// as one that is being renamed, and systemd-networkd and NetworkManager, which wait until udev has finished, never configure
// it. So one that is down stays down until then.
const (
	// udevPatience is how long that is waited for. A link with which udev has not finished by then is nobody's to wait for:
	// the name still counts.
	udevPatience = 30 * time.Second
	// udevAtWork is how long where udev has something to do all the while: on a starved machine it may take minutes. By then
	// it has given up whatever it could not do: it does so after three (event_timeout, systemd-udevd.service(8)).
	udevAtWork = 200 * time.Second
	// udevQuiet is how long nobody is told: a link that has just come takes udev a moment.
	udevQuiet = 2 * time.Second
	// udevPause is how long to wait before the next look.
	udevPause = 20 * time.Millisecond
)

// errUdev is why a link is left alone.
var errUdev = errors.New("udev has not finished with it")

// firstPIDs is the namespace of processes that the kernel has begun with (PROC_PID_INIT_INO, include/linux/proc_ns.h).
const firstPIDs = "pid:[4026531836]"

// udevDir is udev's folder where udev sees to our links: those of the network namespace that the machine's first process is
// in. Else it is empty: it knows nothing of a container's, though the container may see the folder.
func udevDir(proc string) string {
	read := func(name string) string {
		namespace, _ := os.Readlink(filepath.Join(proc, name)) // not there, or not for us to see: empty
		return namespace
	}
	if pids := read("thread-self/ns/pid"); pids != firstPIDs && pids != "" {
		return ""
	}
	if ours := read("thread-self/ns/net"); ours == "" || ours != read("1/ns/net") {
		return ""
	}
	return "/run/udev"
}

// inUdev reports whether udev has something to do to a link yet, by the signs that systemd's programs go by
// (sd_device_get_is_initialized, and device_is_renaming in src/shared/udev-util.c).
func inUdev(dir string, index int) bool {
	if dir == "" {
		return false
	}
	if _, err := os.Stat(filepath.Join(dir, "control")); err != nil {
		return false // there is none
	}
	properties, err := os.ReadFile(filepath.Join(dir, "data", fmt.Sprintf("n%d", index)))
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	return slices.Contains(strings.Split(string(properties), "\n"), "E:ID_RENAMING=1")
}

// leaveToUdev sets a link down that a dead run has left up, where udev has not finished with it: it cannot be, as long as the
// link is up. Then it is waited for as for any other that is down.
func (c *nic) leaveToUdev() {
	if c.net.undoing || !inUdev(c.net.udev, c.index) || c.lower() != nil {
		return
	}
	c.ledger.drop(linkUp)
	c.event(0, TakenOver, linkUp, nil)
	c.net.catchUp(c.net.ctx)
	c.fallen, _ = c.fell() // it was us
}

// tellUdev has udev look at a link again, as udevadm trigger does: it may have tried to rename it while it was up.
func (c *nic) tellUdev() {
	sys := cmp.Or(c.net.cfg.sys, "/sys")
	_ = os.WriteFile(filepath.Join(sys, "class/net", c.name(), "uevent"), []byte("add"), 0) // no sysfs, no udev
}

// A waitForUdev is how far a link's wait for udev has come.
type waitForUdev struct {
	since time.Time // zero: it has not begun
	said  bool      // somebody was told
	over  bool
}

// patient reports whether udev, whose folder dir is, is still waited for. It keeps a file there as long as it has something to
// do (udevadm settle goes by it).
func (w *waitForUdev) patient(dir string) bool {
	waited := time.Since(w.since)
	if waited < udevPatience {
		return true
	}
	_, err := os.Stat(filepath.Join(dir, "queue"))
	return err == nil && waited < udevAtWork
}

// awaitUdev returns when to look again; nil: udev needs to be waited for no more.
func (c *nic) awaitUdev() <-chan time.Time {
	if c.udev.over || !inUdev(c.net.udev, c.index) {
		c.endUdev()
		return nil
	}
	if c.udev.since.IsZero() {
		c.udev.since = time.Now()
	}
	switch waited := time.Since(c.udev.since); {
	case !c.udev.patient(c.net.udev):
		c.endUdev()
		c.event(0, LinkBusy, "", fmt.Errorf("%w in %v: going on without", errUdev, waited.Round(time.Second)))
		return nil
	case waited >= udevQuiet && !c.udev.said:
		c.udev.said = true
		c.fail(LinkBusy, &Error{Op: "wait for the link", Err: errUdev})
	}
	return time.After(udevPause)
}

// endUdev ends the wait for udev, and what was told of it.
func (c *nic) endUdev() {
	if c.udev.said {
		c.net.succeeded(c, 0)
	}
	c.udev = waitForUdev{over: true}
}
