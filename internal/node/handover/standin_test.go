//go:build linux

package handover

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/node/kmsg"
	"github.com/nametag-boot/nametag/internal/testvm/denied"
	"github.com/nametag-boot/nametag/procfs"
)

// The tests boot, in namespaces of their own: this binary is executed as process 1
// and then executes itself, as nametag, as /init and as /sbin/machined, each of
// which behaves as the design has found Talos' to behave. reboot(2) in a pid
// namespace ends its first process with a signal that says which (reboot_pid_ns in
// kernel/pid_namespace.c), so that the policy's end is the real one.

// A boot is what the stand-ins do.
type boot struct {
	Name     string // to be given; "" for the example's
	Way      Way    // asked of Prepare
	MoveMnt  bool   // /proc comes by fsmount and move_mount (Talos 1.12), not by mount (1.9)
	Threads  int    // that make noise beside the one that mounts; 0: 4
	Covered  bool   // /init goes on to the new root when the name is on its command line, and not before
	Await    bool   // /init goes on to the new root when all is in place that has to be, and not before
	Subset   bool   // the new procfs has no cmdline
	Bytes    bool   // the command line has a byte that is no UTF-8, and the end of a line in it
	NoMount  bool   // /init never mounts /proc
	Refuse   string // "ptrace": refused, as under yama scope 3; "info": a kernel before 5.3
	Config   string // a name that the machine config gives, above the command line
	At       string // where Do happens: started (with Early), prepared, committed, exec, mounted, moved
	Do       string // "kill" or "stop", then the roles: "kill guardian", "stop tracer"
	Continue string // where what was stopped goes on: "named"
	Early    bool   // there is no exec: Start, what Do says, Close
	Preset   string // the kernel's hostname before
	Panic    fault
	Hang     fault // the process gets no further
	Storm    bool  // signals all the time, to all three
	Then     procfs.Then
	Limits   Limits
}

// A fault is a panic.
type fault struct {
	In string // a role; "first" for the first process
	At moment
}

// faultFile is where the children find theirs.
const faultFile = "/panic"

func (f fault) arm(do func()) {
	reached = func(m moment) {
		if m == f.At {
			do()
		}
	}
}

func panics() { panic("the unthinkable") }

func hangs() { time.Sleep(time.Hour) }

// storm sends signals that end nobody who was told to heed none, until the machine ends.
func (s *standIn) storm() {
	for {
		_ = unix.Kill(1, unix.SIGCHLD)
		for _, pid := range []int{s.pids.Guardian, s.pids.Tracer} {
			for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGPIPE, unix.SIGCHLD, unix.SIGURG, unix.SIGCONT} {
				_ = unix.Kill(pid, sig)
			}
		}
		time.Sleep(time.Millisecond)
	}
}

// fate is how a boot ended.
type fate struct {
	Reached  string // how far the stand-ins came: "commit", "init", "machined"
	Err      string // what they met
	Way, Why string
	First    string   // the first name that machined set
	Line     []byte   // the command line that it read
	Mounter  int      // the thread of /init that mounted /proc
	Left     []string // what was left in the end: processes, mounts, tracers, a refused pod
	Waited   time.Duration
	Prepare  time.Duration // what the calls took
	Commit   time.Duration
	PeakKB   int // the larger of the two processes' peak memory

	signal  syscall.Signal // that ended process 1: SIGHUP for a reboot, SIGINT for a power-off or halt
	console string
}

const exampleName = "my-server.example.com"

const (
	envRole = "NAMETAG_STANDIN"
	envBoot = "NAMETAG_STANDIN_BOOT"
	envPIDs = "NAMETAG_STANDIN_PIDS"
	envRoot = "NAMETAG_STANDIN_ROOT"
	fateFD  = 3
)

func TestMain(m *testing.M) {
	if IsChild() {
		var b boot
		if text, err := os.ReadFile(faultFile); err == nil && json.Unmarshal(text, &b) == nil {
			switch os.Args[1] {
			case b.Panic.In:
				b.Panic.arm(panics)
			case b.Hang.In:
				b.Hang.arm(hangs)
			}
		}
		os.Exit(ChildMain())
	}
	role := os.Getenv(envRole)
	if role == "" {
		os.Exit(m.Run())
	}
	s := &standIn{}
	if err := json.Unmarshal([]byte(os.Getenv(envBoot)), &s.boot); err != nil {
		panic(err)
	}
	_ = json.Unmarshal([]byte(os.Getenv(envPIDs)), &s.pids)
	var err error
	switch role {
	case "nametag":
		s.fate.Reached = "commit"
		err = s.nametag()
	case "init":
		s.fate.Reached = "init"
		err = s.init()
	case "machined":
		s.fate.Reached = "machined"
		err = s.machined()
	case "storm":
		s.storm()
	case "pod":
		if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if err != nil {
		s.fate.Err = err.Error()
	}
	s.tell()
	os.Exit(0)
}

type standIn struct {
	boot boot
	fate fate
	pids struct {
		Guardian, Tracer, Mounter int
		Storm                     int
		Way, Why                  string
		Prepare, Commit           time.Duration
	}
}

// tell writes the fate where the test reads it. The last one counts.
func (s *standIn) tell() {
	text, _ := json.Marshal(s.fate)
	_, _ = unix.Write(fateFD, append(text, '\n'))
}

// at does what is to happen at a moment of the boot.
func (s *standIn) at(moment string) {
	if s.boot.Continue == moment {
		for _, pid := range []int{s.pids.Guardian, s.pids.Tracer} {
			_ = unix.Kill(pid, unix.SIGCONT)
		}
	}
	if s.boot.At != moment {
		return
	}
	words := strings.Fields(s.boot.Do)
	sig := unix.SIGKILL
	if words[0] == "stop" {
		sig = unix.SIGSTOP
	}
	for _, role := range words[1:] {
		pid := map[string]int{roleGuardian: s.pids.Guardian, roleTracer: s.pids.Tracer}[role]
		if pid == 0 {
			continue
		}
		if err := unix.Kill(pid, sig); err != nil {
			s.fate.Err = fmt.Sprintf("%s %s at %s: %v", words[0], role, moment, err)
			s.tell()
		}
	}
	if sig == unix.SIGSTOP && s.pids.Guardian != 0 && slices.Contains(words, roleGuardian) { // until its last thread stands
		_ = unix.Waitid(unix.P_PID, s.pids.Guardian, nil, unix.WSTOPPED|unix.WNOWAIT, nil)
	}
}

// nametag is the helper up to the exec of /init.
func (s *standIn) nametag() error {
	root := os.Getenv(envRoot)
	if err := enter(root); err != nil {
		return fmt.Errorf("making an initramfs: %w", err)
	}
	if err := unix.Sethostname([]byte(cmpOr(s.boot.Preset, unnamed))); err != nil {
		return err
	}
	if s.boot.Refuse != "" {
		if err := refusePtrace(s.boot.Refuse == "info"); err != nil {
			return fmt.Errorf("seccomp: %w", err)
		}
	}
	text, err := json.Marshal(boot{Panic: s.boot.Panic, Hang: s.boot.Hang})
	if err == nil {
		err = os.WriteFile(faultFile, text, 0o644)
	}
	if err != nil {
		return err
	}
	if s.boot.Panic.In == "first" {
		s.boot.Panic.arm(panics)
	}
	console := kmsg.New(os.Stderr, kmsg.Format{Prefix: "nametag", Unlimited: true})
	before, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	line := "console=ttyS0 quiet talos.platform=hcloud -- init args\n"
	if s.boot.Bytes {
		line = aByte + " " + line
	}
	h, err := Start(Config{
		CommandLine: line,
		Then:        s.boot.Then, Console: console, Way: s.boot.Way, Limits: s.boot.Limits,
	})
	if err != nil {
		return err
	}
	if s.boot.Early {
		return s.early(h)
	}
	time.Sleep(50 * time.Millisecond) // the network
	start := time.Now()
	if err := h.Prepare(context.Background(), s.boot.Name); err != nil {
		return errors.Join(err, h.Close())
	}
	after, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || !bytes.Equal(before, after) {
		return fmt.Errorf("there is a mount left (%w):\n%s", err, after)
	}
	if left, _ := filepath.Glob("/.nametag*"); len(left) > 0 {
		return fmt.Errorf("there is %v left", left)
	}
	s.pids.Prepare = time.Since(start)
	s.pids.Guardian, s.pids.Tracer = find(roleGuardian), find(roleTracer)
	s.at("prepared")
	if err := unix.Unmount("/proc", 0); err != nil { // busy if we, or they, had anything open there
		return fmt.Errorf("unmounting /proc: %w", err)
	}
	if s.boot.Storm {
		pids, _ := json.Marshal(s.pids)
		storm := exec.Command("/init") // which holds nothing open in /proc
		storm.Env = []string{envRole + "=storm", envBoot + "={}", envPIDs + "=" + string(pids)}
		storm.Stdin = os.Stdin // there is no /dev/null
		storm.Stdout, storm.Stderr = os.Stderr, os.Stderr
		if err := storm.Start(); err != nil {
			return err
		}
		s.pids.Storm = storm.Process.Pid
	}
	start = time.Now()
	err = h.Commit(context.Background())
	s.pids.Commit = time.Since(start)
	way, why := h.Way()
	s.pids.Way, s.pids.Why = way.String(), why
	if err != nil {
		h.Close()
		if e := unix.Mount("proc", "/proc", "proc", 0, ""); e != nil {
			return e
		}
		s.fate.Left = append(s.fate.Left, s.processes()...)
		return err
	}
	s.at("committed")
	if s.boot.NoMount && s.boot.Limits.Exec > 0 && s.boot.At == "never" { // never executes anything
		time.Sleep(time.Hour)
	}
	if err := s.exec("/init", "init"); err != nil {
		h.Close()
		return err
	}
	return nil
}

// early ends it before there is a name.
func (s *standIn) early(h *Handover) error {
	for find(roleGuardian) == 0 || find(roleTracer) == 0 {
		time.Sleep(time.Millisecond)
	}
	if s.boot.Do != "" {
		s.pids.Guardian, s.pids.Tracer = find(roleGuardian), find(roleTracer)
		s.at("started")
		if err := h.Prepare(context.Background(), s.boot.Name); err == nil {
			way, why := h.Way()
			s.fate.Way, s.fate.Why = way.String(), why
		} else {
			s.fate.Err = err.Error()
		}
	}
	if err := h.Close(); err != nil {
		return err
	}
	s.fate.Left = s.processes()
	return nil
}

// exec executes this binary's copy at path in a role.
func (s *standIn) exec(path, role string) error {
	pids, _ := json.Marshal(s.pids)
	text, _ := json.Marshal(s.boot)
	return syscall.Exec(path, []string{path}, []string{envRole + "=" + role, envBoot + "=" + string(text), envPIDs + "=" + string(pids)})
}

// enter makes an initramfs with this binary as /init and goes there for good.
func enter(root string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("rootfs", root, "tmpfs", 0, "mode=0755"); err != nil {
		return err
	}
	for _, dir := range []string{"proc", "dev", "sys", "run", "root"} {
		if err := os.Mkdir(root+"/"+dir, 0o755); err != nil {
			return err
		}
	}
	if err := copyFile("/proc/self/exe", root+"/init"); err != nil {
		return err
	}
	if err := libraries("", root); err != nil {
		return err
	}
	// While the old one is in sight: a user namespace allows no procfs without another
	// that shows as much. Hence one that stays, where there is such a namespace.
	if err := unix.Mount("proc", root+"/proc", "proc", 0, ""); err != nil {
		return err
	}
	if inUserns() {
		if err := os.Mkdir(root+"/seen", 0o755); err != nil {
			return err
		}
		if err := unix.Mount("proc", root+"/seen", "proc", 0, ""); err != nil {
			return err
		}
	}
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return err
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return err
	}
	return os.Chdir("/")
}

// inUserns reports whether this is not the machine's own user namespace.
func inUserns() bool {
	text, _ := os.ReadFile("/proc/self/uid_map")
	return strings.Join(strings.Fields(string(text)), " ") != "0 0 4294967295"
}

// libraries makes the host's seen below root: a test binary with the race detector
// is not static.
func libraries(from, root string) error {
	for _, dir := range []string{"/usr", "/lib", "/lib64"} {
		if link, err := os.Readlink(from + dir); err == nil {
			if err := os.Symlink(link, root+dir); err != nil {
				return err
			}
			continue
		}
		if _, err := os.Stat(from + dir); err != nil {
			continue
		}
		if err := os.Mkdir(root+dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(from+dir, root+dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// init is Talos' /init.
func (s *standIn) init() error {
	s.fate.Way, s.fate.Why, s.fate.Prepare, s.fate.Commit = s.pids.Way, s.pids.Why, s.pids.Prepare, s.pids.Commit
	s.at("exec")
	if s.boot.NoMount {
		s.tell()
		time.Sleep(time.Hour) // the policy ends this
		return nil
	}
	if s.boot.MoveMnt {
		runtime.LockOSThread() // so that it is not thread 1 that mounts
	}
	stop := noise(cmpOr(s.boot.Threads, 4))
	defer stop()
	mounted, mounter := make(chan error), 0
	go func() {
		runtime.LockOSThread()
		mounter = unix.Gettid()
		mounted <- s.mountProc()
	}()
	if err := <-mounted; err != nil {
		return fmt.Errorf("error mounting proc: %w", err)
	}
	s.pids.Mounter = mounter
	s.at("mounted")
	for s.boot.Await || s.boot.Covered { // the squashfs and its layers, which take longer than whoever watches
		line, _ := os.ReadFile("/proc/cmdline")
		if strings.Contains(string(line), "talos.hostname=") && (s.boot.Covered || holds(s.pids.Guardian) && holds(s.pids.Tracer)) {
			break
		}
		time.Sleep(time.Millisecond)
	}

	if err := unix.Mount("tmpfs", "/root", "tmpfs", 0, "mode=0755"); err != nil {
		return err
	}
	for _, dir := range []string{"proc", "sbin"} {
		if err := os.Mkdir("/root/"+dir, 0o755); err != nil {
			return err
		}
	}
	if err := errors.Join(libraries("", "/root"), copyFile("/init", "/root/sbin/init")); err != nil {
		return err
	}
	if err := unix.Mount("/proc", "/root/proc", "", unix.MS_MOVE, ""); err != nil {
		return err
	}
	if err := os.RemoveAll("/init"); err != nil { // the initramfs' content
		return err
	}
	if err := os.Chdir("/root"); err != nil {
		return err
	}
	if err := unix.Mount("/root", "/", "", unix.MS_MOVE, ""); err != nil {
		return err
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	s.at("moved")
	// As SELinux enforcing does: a traced process may not change its domain.
	if left := tracers(); len(left) > 0 {
		return fmt.Errorf("error executing /sbin/init: %v", left)
	}
	return s.exec("/sbin/init", "machined")
}

func (s *standIn) mountProc() error {
	options := ""
	if s.boot.Subset {
		options = "subset=pid"
	}
	if !s.boot.MoveMnt {
		return unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NOEXEC|unix.MS_NODEV, options)
	}
	ctx, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return err
	}
	if s.boot.Subset {
		if err := unix.FsconfigSetString(ctx, "subset", "pid"); err != nil {
			return err
		}
	}
	if err := unix.FsconfigCreate(ctx); err != nil {
		return err
	}
	fd, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return unix.MoveMount(fd, "", unix.AT_FDCWD, "/proc", unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// noise makes system calls, signals and threads, as a Go runtime under load does.
func noise(threads int) (stop func()) {
	var stopped atomic.Bool
	for range threads {
		go func() {
			runtime.LockOSThread()
			for !stopped.Load() {
				unix.Getppid()
				_ = unix.Mkdir("/", 0) // fails
				time.Sleep(50 * time.Microsecond)
				done := make(chan struct{})
				go func() { // a thread that is born and dies
					runtime.LockOSThread()
					unix.Getppid()
					close(done)
				}()
				<-done
			}
		}()
	}
	return func() { stopped.Store(true) }
}

// machined reads its name, sets it, and looks at what it was left with.
func (s *standIn) machined() error {
	s.fate.Way, s.fate.Why, s.fate.Prepare, s.fate.Commit = s.pids.Way, s.pids.Why, s.pids.Prepare, s.pids.Commit
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	s.fate.Line, s.fate.Mounter = line, s.pids.Mounter
	name := "talos-8qy-c5p"
	for f := range strings.FieldsSeq(string(line)) {
		if v, ok := strings.CutPrefix(f, "talos.hostname="); ok && name == "talos-8qy-c5p" {
			name = short(v)
		}
	}
	if s.boot.Config != "" {
		name = s.boot.Config
	}
	covered := strings.Contains(string(line), "talos.hostname=")
	if covered && !inUserns() && pod() == nil {
		s.fate.Left = append(s.fate.Left, "the mount is no hindrance for a pod, so this test proves nothing")
	}
	for _, pid := range []int{s.pids.Guardian, s.pids.Tracer} {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if v, err := field(status, "VmHWM:"); err == nil {
			kb, _ := strconv.Atoi(strings.TrimSuffix(v, " kB"))
			s.fate.PeakKB = max(s.fate.PeakKB, kb)
		}
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return err
	}
	s.fate.First = name
	s.tell()
	s.at("named")
	start := time.Now()
	var left []string
	for time.Since(start) < time.Minute {
		for { // as any first process does
			if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
		left = slices.Concat(s.processes(), mounts(), tracers())
		now, _ := os.ReadFile("/proc/cmdline")
		if strings.Contains(string(now), "talos.hostname") {
			left = append(left, "the command line is still covered")
		}
		if len(left) == 0 {
			if err := pod(); err != nil {
				left = append(left, err.Error())
			}
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	s.fate.Waited = time.Since(start)
	s.fate.Left = append(s.fate.Left, left...)
	return nil
}

// holds reports whether a process has the new /proc open, without which it cannot take the mount away later; or is no more.
func holds(pid int) bool {
	dir := fmt.Sprintf("/proc/%d/", pid)
	if line, _ := os.ReadFile(dir + "cmdline"); len(line) == 0 {
		return true
	}
	return slices.ContainsFunc(globs(dir+"fd/*"), func(fd string) bool {
		to, _ := os.Readlink(fd)
		return to == "/proc"
	})
}

// processes are all but the first.
func (s *standIn) processes() (left []string) {
	for _, dir := range globs("/proc/[0-9]*") {
		if dir != "/proc/1" && dir != fmt.Sprintf("/proc/%d", s.pids.Storm) {
			text, _ := os.ReadFile(dir + "/cmdline")
			if len(text) > 0 { // not a zombie, which is the first process' to reap
				left = append(left, fmt.Sprintf("process %s %q", filepath.Base(dir), text))
			}
		}
	}
	return left
}

func mounts() (left []string) {
	text, _ := os.ReadFile("/proc/self/mountinfo")
	for l := range strings.Lines(string(text)) {
		if strings.Contains(l, "cmdline") || strings.Contains(l, "nametag") {
			left = append(left, "mount "+l)
		}
	}
	return left
}

func tracers() (left []string) {
	for _, dir := range globs("/proc/self/task/*") {
		status, _ := os.ReadFile(dir + "/status")
		if v, err := field(status, "TracerPid:"); err == nil && v != "0" {
			left = append(left, "thread "+filepath.Base(dir)+" is traced by "+v)
		}
	}
	return left
}

// pod mounts a procfs in a user namespace, as a pod with hostUsers: false does.
func pod() error {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{envRole + "=pod", envBoot + "={}"}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		UidMappings: []syscall.SysProcIDMap{{Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{Size: 1}},
	}
	cmd.Stdin = os.Stdin // there is no /dev/null
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("a pod cannot mount /proc: %w %s", err, out)
	}
	return nil
}

func globs(pattern string) []string {
	names, _ := filepath.Glob(pattern)
	return names
}

// find looks a process up by its role.
func find(role string) int {
	for _, dir := range globs("/proc/[0-9]*") {
		text, _ := os.ReadFile(dir + "/cmdline")
		if strings.HasPrefix(string(text), childName+"\x00"+role+"\x00") {
			pid, _ := strconv.Atoi(filepath.Base(dir))
			return pid
		}
	}
	return 0
}

// refusePtrace makes the kernel answer ptrace with EPERM, or only what an old kernel
// does not know of it with EIO, in this process and all that come of it.
func refusePtrace(info bool) error {
	if info {
		return denied.Call{Number: unix.SYS_PTRACE, Arg: 0, Is: unix.PTRACE_GET_SYSCALL_INFO, Errno: unix.EIO}.Impose()
	}
	return denied.Call{Number: unix.SYS_PTRACE, Arg: denied.Any, Errno: unix.EPERM}.Impose()
}

func cmpOr[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}
