//go:build linux

// Command machined is the /sbin/init of the Talos-shaped guest. It does, of what Talos' machined does, what decides the
// node's name: the layers of the hostname, the platform's metadata that is asked for too early, the machine
// configuration that waits for the network and then switches the default name on, drivers that are loaded only now,
// and etcd, started as soon as there is any name and never told of another. It reports all of that to the test.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/testvm/qemu/report"
	"github.com/nametag-boot/nametag/internal/testvm/talos/guest/standin"
)

func main() {
	log := report.Open("machined")
	if len(os.Args) > 1 && os.Args[1] == "mount-proc" {
		mountProc(log)
		return
	}
	if err := boot(log); err != nil {
		standin.Die(log, err)
	}
}

func boot(log *report.Writer) error {
	// The first moment, before anything is done: what the initramfs left.
	log.Write(report.Event{Kind: report.Switched, State: report.Look()})
	arguments := standin.FromCommandLine()
	arguments.Hook("machined", log)
	for _, on := range []string{"/run", "/tmp", "/var"} {
		if err := unix.Mount("tmpfs", on, "tmpfs", unix.MS_NOSUID, ""); err != nil {
			return fmt.Errorf("mounting %s: %w", on, err)
		}
	}
	if err := seed(); err != nil {
		return fmt.Errorf("seeding the random numbers: %w", err)
	}
	go reap()

	line := readCommandLine()
	names := newHostnames(log, arguments)
	if line.hostname != "" {
		names.set(layerCommandLine, line.hostname)
	}
	ctx := context.Background() // PID 1 has no end but the machine's
	go drivers(ctx)
	network := newNetwork(log, names)
	go network.run(ctx)

	platform, configured := make(chan string, 1), make(chan string, 1)
	state := arguments[standin.State]
	if line.platform == "hcloud" {
		go func() {
			name := platformName(ctx, log)
			if name != "" {
				names.set(layerPlatform, name)
			}
			platform <- name
		}()
		go func() {
			if state == "read" {
				m, err := recall(arguments)
				if err != nil {
					standin.Die(log, fmt.Errorf("STATE: %w", err))
				}
				names.remembered(m.hostname)
				if m.config != "" {
					names.configure(m.config)
					configured <- m.config
					return
				}
			}
			network.wait(ctx)
			config := userData(ctx, log)
			names.configure(config)
			configured <- config
		}()
	} else {
		platform <- ""
		names.configure("")
		configured <- ""
	}

	config := <-configured
	name := names.wait()
	log.Write(report.Event{Kind: report.Service, Name: name, State: report.Look()})
	if err := startEtcd(ctx, name, log); err != nil {
		return err
	}
	if arguments[standin.Waits] != "no" {
		if found := <-platform; state == "write" || state == "dirty" {
			if err := remember(log, state, found, config); err != nil {
				return fmt.Errorf("STATE: %w", err)
			}
		}
	}
	settle(ctx, log)
	standin.Pause()
	return nil
}

// seed is what an OS that kept a seed does: without it a machine with no RDRAND waits, and nothing here is about
// that. Ioctl RNDADDENTROPY, random(4).
func seed() error {
	f, err := os.OpenFile("/dev/urandom", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // nothing was written to it
	pool := struct {
		bits, bytes int32
		data        [64]byte
	}{bits: 512, bytes: 64}
	for i := range pool.data {
		pool.data[i] = byte(time.Now().UnixNano() >> (i % 8)) // a test machine keeps no secrets
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.RNDADDENTROPY, uintptr(unsafe.Pointer(&pool))); errno != 0 {
		return errno
	}
	return nil
}

// reap takes the children that PID 1 is left with, etcd and what the initramfs left among them.
func reap() {
	for {
		if _, err := unix.Wait4(-1, nil, 0, nil); errors.Is(err, unix.ECHILD) {
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// settle waits, bounded, until nothing of an earlier process is there any more, tries what a pod with a user
// namespace of its own does, and reports what is left.
func settle(ctx context.Context, log *report.Writer) {
	var state *report.State
	for end := report.Now() + 5*time.Second; ; time.Sleep(20 * time.Millisecond) {
		state = report.Look()
		state.Processes = withoutOwn(state.Processes)
		if len(state.Processes) == 0 && !state.Mounted("/proc/cmdline") || report.Now() > end {
			break
		}
	}
	child := exec.CommandContext(ctx, "/sbin/init", "mount-proc")
	child.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{Size: 1}},
	}
	if err := child.Start(); err != nil {
		log.Write(report.Event{Kind: report.ProcFS, Text: err.Error()})
	} else {
		_ = child.Wait() // reap may have been faster; the child has reported by then all the same
	}
	log.Write(report.Event{Kind: report.Settled, Name: state.Hostname, State: state})
}

// mountProc runs in namespaces of its own. The kernel refuses the mount where the existing /proc has something mounted
// over a part of it (fs/namespace.c, mount_too_revealing).
func mountProc(log *report.Writer) {
	text := "ok"
	if err := unix.Mount("proc", "/tmp", "proc", 0, ""); err != nil {
		text = err.Error()
	}
	log.Write(report.Event{Kind: report.ProcFS, Text: text})
}

func withoutOwn(processes []string) []string {
	var rest []string
	for _, p := range processes {
		if !strings.HasSuffix(p, " etcd") {
			rest = append(rest, p)
		}
	}
	return rest
}
