//go:build linux

package qemu

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/qemu/report"
)

// Boot runs the scenario to its end and says what came of it. It fails the test only where the machine itself cannot
// be run; how the boot ended is for the caller to judge. Boots may run in parallel.
func Boot(t testing.TB, s Scenario) *Verdict {
	t.Helper()
	deps := Need(t, s.Arch)
	v, err := boot(t.Context(), deps, s, t.TempDir())
	if err != nil {
		t.Fatalf("qemu: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log("the boot: " + v.Log())
		}
	})
	return v
}

// Run is Boot without a test: the machine ends with the context at the latest. dir is for what is made for it.
func Run(ctx context.Context, s Scenario, dir string) (*Verdict, error) {
	deps, err := Find(s.Arch)
	if err != nil {
		return nil, err
	}
	return boot(ctx, deps, s, dir)
}

// machine is a QEMU that runs.
type machine struct {
	scenario Scenario
	cloud    *cloud.Cloud
	qemu     *exec.Cmd
	monitor  *monitor
	started  time.Time
	ours     []io.Closer // ends of the sockets
	theirs   []*os.File  // the other ends, until QEMU has them
	notes    chan note
	work     sync.WaitGroup // whoever sends notes
	timers   []*time.Timer
	stderr   bytes.Buffer
}

// note is one thing that happened; exactly one field is set.
type note struct {
	line   *Line
	event  *report.Event
	qmp    string
	reason string
	gone   bool  // QEMU has ended
	err    error // the monitor refused a command
}

func boot(ctx context.Context, deps Deps, s Scenario, dir string) (*Verdict, error) {
	// The machine dies with the thread that started it. Another goroutine could end that thread: those of package netns do.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	s = s.withDefaults()
	m := &machine{scenario: s, notes: make(chan note, 64)}
	defer m.close()
	system, err := s.booted(ctx, deps, dir)
	if err != nil {
		return nil, err
	}
	free, err := deps.slot(ctx)
	if err != nil {
		return nil, err
	}
	defer free()
	if m.cloud, err = cloud.New(s.Cloud); err != nil {
		return nil, err
	}
	if err := m.start(ctx, deps.machine(), system); err != nil {
		return nil, err
	}
	v := m.watch()
	v.Requests = m.cloud.Requests()
	if v.Outcome == Died {
		return nil, fmt.Errorf("%s ended: %s\n%s", deps.machine().emulator, m.stderr.String(), v.Log())
	}
	return v, nil
}

// booted is what QEMU is told to boot.
func (s Scenario) booted(ctx context.Context, deps Deps, dir string) ([]string, error) {
	switch {
	case s.OS == nil && s.UEFI:
		return []string{"-bios", filepath.Join(deps.Root, deps.machine().firmware)}, nil
	case s.OS == nil:
		return nil, nil // QEMU's own BIOS does
	}
	image, err := s.OS.Initramfs(ctx, deps)
	if err != nil {
		return nil, err
	}
	initrd, args, err := s.initramfs(deps, image, dir)
	if err != nil {
		return nil, err
	}
	return s.system(ctx, deps, image, dir, initrd, args)
}

func (s Scenario) withDefaults() Scenario {
	if s.NICs == nil {
		s.NICs = []NIC{{}}
	}
	s.NICs = append([]NIC(nil), s.NICs...)
	for i := range s.NICs {
		if nic := &s.NICs[i]; nic.MAC == nil {
			nic.MAC = net.HardwareAddr{0x92, 0, 0, 0, 0, byte(i + 1)}
			if nic.Shape == cloud.Private {
				nic.MAC[0] = 0x86 // Hetzner's private networks
			}
		}
	}
	if s.Clock == "" {
		s.Clock = report.First
	}
	if s.Vendor == "" {
		s.Vendor = "Hetzner"
	}
	if s.Serial == "" {
		if s.Serial = s.Cloud.Server.InstanceID; s.Serial == "" {
			s.Serial = "42" // the cloud's example
		}
	}
	if s.Cloud.Server.UserData == "" {
		s.Cloud.Server.UserData = "version: v1alpha1\n" // a machine configuration that sets no name
	}
	if s.Memory == 0 {
		s.Memory = 320
	}
	if s.Timeout == 0 {
		s.Timeout = time.Minute
	}
	if s.Until == nil {
		s.Until = func(v *Verdict) bool {
			_, settled := v.First(report.Settled)
			_, failed := v.First(report.Fatal)
			return settled || failed
		}
	}
	return s
}

// initramfs puts the archive of the OS and the scenario's own files into one file.
func (s Scenario) initramfs(deps Deps, image Initramfs, dir string) (path string, args []string, err error) {
	if image.Whole {
		return image.Archive, slices.Concat(image.Args, s.Args), nil
	}
	own := Files{}.Add(s.Files)
	first := image.First
	if first == "" {
		first = "/init"
	}
	if s.Helper != "" {
		switch s.Way {
		case RDInit:
			first = "/" + HelperPath
			own[HelperPath] = File{From: s.Helper, Mode: 0o755}
		case AsInit:
			own["init"] = File{From: s.Helper, Mode: 0o755}
			own["init.next"] = File{From: image.Init, Mode: 0o755}
		}
	}
	own[FirstFile] = File{Data: []byte(first), Mode: 0o644}
	segment, err := deps.Initramfs(own)
	if err != nil {
		return "", nil, err
	}
	path = filepath.Join(dir, "initramfs")
	out, err := os.Create(path)
	if err != nil {
		return "", nil, err
	}
	defer out.Close() //nolint:errcheck // closed below when all went well
	if s.Packed {
		packed := gzip.NewWriter(out)
		err = errors.Join(concatenate(packed, image.Archive, segment), packed.Close())
	} else {
		err = concatenate(out, image.Archive, segment)
	}
	if err != nil {
		return "", nil, err
	}
	args = append([]string{"rdinit=" + image.Run}, image.Args...)
	return path, append(args, s.Args...), out.Close()
}

// concatenate writes files one behind the other.
func concatenate(out io.Writer, files ...string) error {
	for _, file := range files {
		in, err := os.Open(file)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, in)
		_ = in.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// noConsole is one that no machine has. The kernel takes no other in its place, where the line names one.
const noConsole = "none"

// system is what QEMU is told where it boots a kernel and an initramfs.
func (s Scenario) system(ctx context.Context, deps Deps, image Initramfs, dir, initrd string, args []string) ([]string, error) {
	m := deps.machine()
	console := m.console
	if s.NoConsole {
		console = noConsole
	}
	line := fmt.Sprintf("console=%s %s %s %s", console, kernelArguments, m.arguments, strings.Join(args, " "))
	if deps.Arch == AMD64 {
		line += " " + timeArguments()
	}
	firmware := []string{"-bios", filepath.Join(deps.Root, m.firmware)}
	kernel := image.Kernel
	if kernel == "" {
		find := deps.Vmlinuz
		if !s.UEFI && s.Image == nil {
			find = deps.Kernel
		}
		var err error
		if kernel, err = find(); err != nil {
			return nil, err
		}
	}
	if !s.UEFI && s.Image == nil {
		return []string{"-kernel", kernel, "-initrd", initrd, "-append", line}, nil
	}
	if s.Image == nil {
		return append(firmware, "-kernel", kernel, "-initrd", initrd, "-append", line), nil
	}
	program, err := s.Image(ctx, deps, Parts{Kernel: kernel, Initramfs: initrd, CommandLine: line, Dir: dir})
	if err != nil {
		return nil, err
	}
	esp := filepath.Join(dir, "esp")
	if err := os.MkdirAll(filepath.Dir(filepath.Join(esp, m.boot)), 0o755); err != nil { //nolint:gosec // a test's own
		return nil, err
	}
	if err := os.Link(program, filepath.Join(esp, m.boot)); err != nil {
		return nil, err
	}
	// QEMU shows the folder to the guest as a disk with a FAT file system.
	return append(firmware, "-drive", "if=none,id=esp,format=raw,readonly=on,file=fat:"+escape(esp), "-device", "virtio-blk-pci,drive=esp"), nil
}

// socket makes a pair of sockets: one end as a descriptor for QEMU, named by its number there, and one for us.
func (m *machine) socket() (number int, conn net.Conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, nil, fmt.Errorf("socketpair: %w", err)
	}
	ours := os.NewFile(uintptr(fds[0]), "ours")
	defer ours.Close() //nolint:errcheck // FileConn has its own
	m.theirs = append(m.theirs, os.NewFile(uintptr(fds[1]), "theirs"))
	if conn, err = net.FileConn(ours); err != nil {
		return 0, nil, err
	}
	m.ours = append(m.ours, conn)
	return 2 + len(m.theirs), conn, nil // exec.Cmd.ExtraFiles begin at 3
}

// kernelArguments are the same for every boot: what makes it quick under emulation, and a panic or a reset seen.
const kernelArguments = "quiet panic=-1 mitigations=off cryptomgr.notests"

func (m *machine) start(ctx context.Context, kind machineType, system []string) error {
	s := m.scenario
	cpu := kind.cpu
	if s.NoRDRAND {
		cpu = kind.cpuNoRandom
	}
	accelerator := "tcg"
	if s.KVM {
		accelerator = "kvm"
	}
	if s.Full {
		cpu = "max"
	}
	args := []string{
		"-accel", accelerator, "-cpu", cpu, "-smp", "1", "-m", fmt.Sprint(s.Memory), "-nodefaults", "-no-user-config", "-display", "none",
		"-smbios", "type=0,vendor=" + escape(s.Vendor),
		"-smbios", "type=1,manufacturer=" + escape(s.Vendor) + ",product=vServer,serial=" + escape(s.Serial),
	}
	if s.RTC != "" {
		args = append(args, "-rtc", "base="+escape(s.RTC))
	}
	if s.Disk != "" {
		format, err := formatOf(s.Disk)
		if err != nil {
			return err
		}
		args = append(args, "-drive", "if=none,id=disk,format="+format+",cache=unsafe,file="+escape(s.Disk), "-device", "virtio-blk-pci,drive=disk")
	}
	var lines []net.Conn
	for _, name := range []string{"console", "report", "qmp"} {
		fd, conn, err := m.socket()
		if err != nil {
			return err
		}
		lines = append(lines, conn)
		args = append(args, "-chardev", fmt.Sprintf("socket,id=%s,fd=%d", name, fd))
	}
	args = append(args, "-mon", "chardev=qmp,mode=control")
	args = append(args, kind.board...)
	args = append(args, system...)
	for i, nic := range s.NICs {
		fd, conn, err := m.socket()
		if err != nil {
			return err
		}
		if nic.Elsewhere != nil {
			nic.Elsewhere(newPort(conn))
		} else if err := m.cloud.Attach(nic.NIC, newPort(conn)); err != nil {
			return err
		}
		args = append(args, "-netdev", fmt.Sprintf("stream,id=net%d,addr.type=fd,addr.str=%d", i, fd))
		if nic.After > 0 { // it needs a slot that can be plugged
			args = append(args, "-device", fmt.Sprintf("pcie-root-port,id=slot%d,chassis=%d,slot=%d", i, i+1, i+1))
		} else {
			args = append(args, "-device", fmt.Sprintf("virtio-net-pci,id=nic%d,netdev=net%d,mac=%s,romfile=", i, i, nic.MAC))
		}
	}
	for i, disk := range s.Disks {
		args = append(args, disk.arguments(i)...)
	}
	m.qemu = exec.CommandContext(ctx, kind.emulator, args...) //nolint:gosec // a test's own machine
	m.qemu.ExtraFiles = m.theirs
	m.qemu.Stderr = &m.stderr
	m.qemu.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a test that is killed takes it along
	m.started = time.Now()
	if err := m.qemu.Start(); err != nil {
		return err
	}
	for _, f := range m.theirs {
		_ = f.Close()
	}
	m.theirs = nil
	m.work.Add(4)
	go m.read(lines[0], func(at time.Duration, text []byte) {
		l := parseLine(at, string(text))
		m.notes <- note{line: &l}
	})
	go m.read(lines[1], func(_ time.Duration, text []byte) {
		if e, err := report.Parse(text); err == nil {
			m.notes <- note{event: &e}
		}
	})
	go func() {
		defer m.work.Done()
		_ = m.qemu.Wait() // how it ended is in its events, or in stderr
		m.notes <- note{gone: true}
	}()
	m.monitor = newMonitor(lines[2])
	go func() {
		defer m.work.Done()
		m.monitor.read(func(name, reason string) { m.notes <- note{qmp: name, reason: reason} })
	}()
	return nil
}

// escape doubles commas, which part QEMU's options.
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }

func (m *machine) read(conn net.Conn, line func(time.Duration, []byte)) {
	defer m.work.Done()
	lines := bufio.NewReader(conn)
	for {
		text, err := lines.ReadBytes('\n')
		if text = bytes.TrimRight(text, "\r\n"); len(text) > 0 {
			line(time.Since(m.started), text)
		}
		if err != nil {
			return
		}
	}
}
