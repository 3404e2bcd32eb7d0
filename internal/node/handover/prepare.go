//go:build linux

package handover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/joined"
	"github.com/nametag-boot/nametag/internal/node/kmsg"
	"github.com/nametag-boot/nametag/internal/safely"
	"github.com/nametag-boot/nametag/procfs"
)

// Config is what [Start] needs to know.
type Config struct {
	// CommandLine is the kernel's. Empty: it is read.
	CommandLine string
	// Then is what is done where the name cannot be given.
	Then procfs.Then
	// Console is where both processes speak, through an opening of their own. Nil:
	// standard error.
	Console *kmsg.Console
	// Way asks for Watch from the start. The zero value is Strict, with Watch where
	// ptrace is refused.
	Way Way
	// Executable is this program, whose main calls [ChildMain]. Empty:
	// /proc/self/exe, for which a procfs has to be on /proc.
	Executable string
	// Limits bounds the waits.
	Limits Limits
}

// A Handover is started, prepared with a name, committed, and done when this
// process executes the next init. It is used from one goroutine.
type Handover struct {
	order order
	line  string // the command line as it is
	way   Way
	why   string

	own      procRoot // for a look at the guardian
	file     *os.File // what will be on /proc/cmdline
	guardian *os.Process
	tracers  []int    // the guardian's children when it was ready: the tracer, which may outlive it
	in, life *os.File // to the guardian, to the tracer; an exec closes them, which is what they tell
	out      *os.File
	answers  <-chan answer
	deaf     chan error // why there are no more answers, other than that the guardian has ended
}

// Error is what went wrong before the next init was executed. The name was not
// given, and what to do is the caller's policy.
type Error struct {
	Op  string // "start", "prepare" or "commit"
	Err error
}

func (e *Error) Error() string { return "handover: " + e.Op + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Start makes all that does not need the name and starts the two processes that
// will give it, without waiting for them. It is meant to be called while there is
// something else to wait for, such as the network. The process must be the first
// of its pid namespace, and stay in its root and mount namespace.
//
// What follows is [Handover.Prepare] once there is a name, the unmounting of what
// the next init mounts itself, [Handover.Commit], and the exec. Where there is no
// exec after all, [Handover.Close]. Nothing is left in the folder tree.
func Start(cfg Config) (*Handover, error) {
	h := &Handover{line: cfg.CommandLine, own: -1}
	h.order = order{Then: cfg.Then, Way: cfg.Way, Limits: cfg.Limits.orDefaults()}
	executable := cfg.Executable
	if executable == "" {
		executable = procPath + "/self/exe"
	}
	if err := h.start(executable, cfg.Console); err != nil {
		h.end()
		return nil, &Error{Op: "start", Err: err}
	}
	return h, nil
}

func (h *Handover) start(executable string, console *kmsg.Console) error {
	if pid := os.Getpid(); pid != pid1 {
		return fmt.Errorf("this is process %d, and the next init will not be executed in it", pid)
	}
	own, err := detachedProc()
	if err != nil {
		return fmt.Errorf("a procfs of our own: %w", err)
	}
	h.own = own
	if h.line == "" {
		b, err := own.read(target)
		if err != nil {
			return err
		}
		h.line = string(b)
	}
	tree, f, err := newTree()
	if err != nil {
		return err
	}
	defer closeFD(tree)
	h.file = f
	speak, format, err := console.Spare()
	if err != nil {
		speak, format = os.Stderr, kmsg.Format{Prefix: "nametag", Unlimited: true}
	} else {
		defer speak.Close()
	}
	h.order.Console = format

	// The guardian's ends are closed here in any case, so that its end shows as theirs.
	var in, life, out, treeFile, procFile *os.File
	defer func() {
		for _, f := range []*os.File{in, life, out, treeFile, procFile} {
			f.Close() // nil is an error, and harmless
		}
	}()
	if in, h.in, err = os.Pipe(); err != nil {
		return err
	}
	if life, h.life, err = os.Pipe(); err != nil {
		return err
	}
	if h.out, out, err = os.Pipe(); err != nil {
		return err
	}
	h.deaf = make(chan error, 1)
	h.answers = hear(h.out, parseAnswer, func(err error) { h.deaf <- err })
	if treeFile, err = dup(tree, target); err != nil {
		return err
	}
	if procFile, err = dup(int(own), procPath); err != nil {
		return err
	}
	h.guardian, err = spawn(executable, roleGuardian, speak, in, out, life, treeFile, procFile)
	return err
}

// Prepare takes the name, the exact string that the cloud gave, domain included:
// any other spelling would be replaced by it later, which is a change of name. When
// it returns nil, both processes are ready and hold what they need. It is called
// once.
//
// The kernel's hostname is set back to "(none)" where it is the name already: the
// mount is taken away when the hostname becomes the name, and that must be seen to
// happen.
func (h *Handover) Prepare(ctx context.Context, name string) error {
	if err := h.prepare(ctx, name); err != nil {
		return &Error{Op: "prepare", Err: err}
	}
	return nil
}

func (h *Handover) prepare(ctx context.Context, name string) (err error) {
	if h.file == nil {
		return errors.New("called before, or after Close")
	}
	o := h.order
	o.Name = name
	line, err := amend(h.line, name)
	if err != nil {
		return err
	}
	if named(hostname(), name) {
		if err := unix.Sethostname([]byte(unnamed)); err != nil {
			return os.NewSyscallError("sethostname", err)
		}
	}
	o.Text, o.Before = raw(line), raw(hostname())
	_, err = h.file.WriteString(line)
	err = joined.Errors(err, h.file.Close())
	h.file = nil
	if err != nil {
		return err
	}
	// From a goroutine: a command line may be longer than a pipe is deep, and the
	// guardian may be dead. The end of the pipe ends it, which may be Close's: the field is not the goroutine's to read.
	in := h.in
	safely.Go("telling the guardian", func() {
		reached(stageTelling)
		tell(in, o)
	}, func(error) {}) // the guardian says nothing then, and that is noticed
	return h.await(ctx, 2*o.Limits.Seize)
}

// spawn starts this program in a role.
func spawn(executable, role string, console *os.File, files ...*os.File) (*os.Process, error) {
	return os.StartProcess(executable, []string{childName, role, executable}, &os.ProcAttr{
		// Two are enough, the traced and the traceless part; a trace of all goroutines
		// would drown the one line of a panic on a console.
		Env:   []string{"GOMAXPROCS=2", "GOTRACEBACK=none"},
		Files: append([]*os.File{console, console, console}, files...),
		// No terminal's signals, and not those for the first process' group.
		Sys: &unix.SysProcAttr{Setsid: true},
	})
}

// dup copies a descriptor, so that it can be passed on and closed as a file.
func dup(fd int, name string) (*os.File, error) {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(n), name), nil
}

// await waits for the guardian's word on what was said last.
func (h *Handover) await(ctx context.Context, limit time.Duration) error {
	beats := time.NewTicker(heartbeat)
	defer beats.Stop()
	patience := newPatience(h.own, limit, 0, h.guardian.Pid)
	for {
		select {
		case <-beats.C:
			patience.pids = append(h.own.children(h.guardian.Pid), h.guardian.Pid)
			if patience.beat(0) {
				return fmt.Errorf("the guardian has said nothing, and %s", patience)
			}
		case <-ctx.Done():
			return ctx.Err()
		case err := <-h.deaf:
			return err
		case a, ok := <-h.answers:
			return h.answered(a, ok)
		}
	}
}

// answered takes the guardian's word.
func (h *Handover) answered(a answer, ok bool) error {
	switch {
	case !ok:
		return errors.New("the guardian has ended before its time")
	case !a.ready:
		return errors.New("the guardian: " + a.text)
	}
	h.tracers = h.own.children(h.guardian.Pid)
	h.way, h.why = a.way, a.text
	return nil
}

// Way returns how it will be done, and, for Watch, why not strictly.
func (h *Handover) Way() (Way, string) { return h.way, h.why }

// Commit says that the next thing this process does is to execute the next init,
// and makes sure that the two processes are still there: after the exec, the policy
// is theirs. On an error it is the caller's, who calls Close.
func (h *Handover) Commit(ctx context.Context) error {
	tell(h.in, wordGo)
	if err := h.await(ctx, h.order.Limits.Seize); err != nil {
		return &Error{Op: "commit", Err: err}
	}
	return nil
}

// Close ends the two processes and leaves nothing, where there will be no exec after
// all, or it failed. An exec needs no Close: it closes what Close would.
func (h *Handover) Close() error {
	h.end()
	return nil
}

// end says stop to both processes, waits until they have ended, and kills the guardian
// where that takes too long. Without the word, the end of their pipes would mean an exec
// to them.
func (h *Handover) end() {
	if h.in != nil {
		tell(h.in, wordStop)
	}
	if h.life != nil {
		tell(h.life, wordStop)
	}
	if h.guardian != nil {
		gone := make(chan struct{})
		guardian := h.guardian
		safely.Go("waiting for the guardian", func() {
			defer close(gone)
			_, _ = guardian.Wait()
		}, func(error) {})
		await(gone, newPatience(h.own, h.order.Limits.Seize, 0, h.guardian.Pid))
		_ = h.guardian.Kill() // or it has ended
		// Not without a bound: what hangs in the kernel does not end when it is killed.
		await(gone, newPatience(h.own, h.order.Limits.Seize, 0, h.guardian.Pid))
		h.guardian = nil
		h.orphan()
	}
	for _, f := range []**os.File{&h.file, &h.in, &h.life, &h.out} {
		if *f != nil {
			(*f).Close()
			*f = nil
		}
	}
	h.own.close()
	h.own = -1
}

// orphan waits until the tracer has ended, which the guardian waits for unless it
// was killed: until nobody reads the tracer's line any more.
func (h *Handover) orphan() {
	fds := []unix.PollFd{{Fd: int32(h.life.Fd())}} // asks for nothing, gets POLLERR
	patience := newPatience(h.own, h.order.Limits.Seize, 0, h.tracers...)
	beat := time.Now()
	for {
		if n, err := unix.Poll(fds, 100); n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		if time.Since(beat) >= heartbeat {
			beat = time.Now()
			if patience.beat(0) {
				return
			}
		}
	}
}

// named reports whether the kernel's hostname is the name, or as much of it as a
// system gives the kernel.
func named(kernel, name string) bool { return kernel == name || kernel == short(name) }
