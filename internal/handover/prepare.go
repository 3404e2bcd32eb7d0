package handover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/kmsg"
	"github.com/nametag-boot/nametag/procfs"
)

// Config is what [Prepare] needs to know.
type Config struct {
	// Hostname is the exact string that the cloud gave, domain included: any other
	// spelling would be replaced by it later, which is a change of name.
	Hostname string
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

// A Handover is prepared, and done when this process executes the next init. It is
// used from one goroutine.
type Handover struct {
	way    Way
	why    string
	limits Limits

	guardian *os.Process
	in, life *os.File // to the guardian, to the tracer; an exec closes them, which is what they tell
	out      *os.File
	answers  <-chan string
}

// Error is what went wrong before the next init was executed. The name was not
// given, nothing is left, and what to do is the caller's policy.
type Error struct {
	Op  string // "prepare", "start", "commit"
	Err error
}

func (e *Error) Error() string { return "handover: " + e.Op + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Prepare makes all that is needed to give the name to a Talos that is executed in
// this process next, which must be process 1, and starts the two processes that do
// it. When it returns without an error, they are ready and hold what they need.
//
// What follows is the caller's: unmount /dev, /proc and /sys, call
// [Handover.Commit], and execute the next init; or call [Handover.Close].
//
// Nothing is left of it in the folder tree. The kernel's hostname is set back to
// "(none)" where it is the name already: the processes take the mount away when the
// hostname becomes the name, and must see that happen.
func Prepare(ctx context.Context, cfg Config) (*Handover, error) {
	h, err := prepare(ctx, cfg)
	if err != nil {
		return nil, &Error{Op: "prepare", Err: err}
	}
	return h, nil
}

func prepare(ctx context.Context, cfg Config) (h *Handover, err error) {
	own, err := private()
	if err != nil {
		return nil, fmt.Errorf("a procfs of our own: %w", err)
	}
	defer own.close()
	line := cfg.CommandLine
	if line == "" {
		b, err := own.read(target)
		if err != nil {
			return nil, err
		}
		line = string(b)
	}
	o := order{Name: cfg.Hostname, Then: cfg.Then, Way: cfg.Way, Limits: cfg.Limits.orDefaults(), Executable: cfg.Executable}
	if o.Executable == "" {
		o.Executable = procPath + "/self/exe"
	}
	if o.Text, err = amend(line, cfg.Hostname); err != nil {
		return nil, err
	}
	if named(hostname(), cfg.Hostname) {
		if err := unix.Sethostname([]byte(unnamed)); err != nil {
			return nil, os.NewSyscallError("sethostname", err)
		}
	}
	o.Before = hostname()
	tree, err := newTree(o.Text)
	if err != nil {
		return nil, err
	}
	defer closeFD(tree)
	console, format, err := cfg.Console.Spare()
	if err != nil {
		console, format = os.Stderr, kmsg.Format{Prefix: "nametag", Unlimited: true}
	} else {
		defer console.Close()
	}
	o.Console = format
	return start(ctx, o, console, own, tree)
}

// start starts the guardian and waits for its word.
func start(ctx context.Context, o order, console *os.File, own procRoot, tree int) (*Handover, error) {
	h := &Handover{limits: o.Limits}
	if err := h.start(o, console, own, tree); err != nil {
		h.end()
		return nil, err
	}
	if err := h.await(ctx, 2*o.Limits.Seize); err != nil {
		h.end()
		return nil, err
	}
	return h, nil
}

func (h *Handover) start(o order, console *os.File, own procRoot, tree int) error {
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
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
	h.answers = hear(h.out)
	if treeFile, err = dup(tree, target); err != nil {
		return err
	}
	if procFile, err = dup(int(own), procPath); err != nil {
		return err
	}
	h.guardian, err = spawn(o.Executable, roleGuardian, console, in, out, life, treeFile, procFile)
	if err != nil {
		return err
	}
	// From a goroutine: a command line may be longer than a pipe is deep, and the
	// guardian may be dead. The end of the pipe ends it.
	go tell(h.in, string(text))
	return nil
}

// spawn starts this program in a role.
func spawn(executable, role string, console *os.File, files ...*os.File) (*os.Process, error) {
	return os.StartProcess(executable, []string{childName, role}, &os.ProcAttr{
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
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case line, ok := <-h.answers:
		word, rest, _ := strings.Cut(line, " ")
		switch {
		case !ok:
			return errors.New("the guardian has ended before its time")
		case word == wordReady:
			way, why, _ := strings.Cut(rest, " ")
			h.way, h.why = Strict, why
			if way == Watch.String() {
				h.way = Watch
			}
			return nil
		default:
			return errors.New("the guardian: " + line)
		}
	case <-timer.C:
		return fmt.Errorf("the guardian has said nothing for %v", limit)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Way returns how it will be done, and, for Watch, why not strictly.
func (h *Handover) Way() (Way, string) { return h.way, h.why }

// Commit says that the next thing this process does is to execute the next init,
// and makes sure that the two processes are still there: after the exec, the policy
// is theirs. On an error it is the caller's, who calls Close.
func (h *Handover) Commit(ctx context.Context) error {
	tell(h.life, wordGo)
	tell(h.in, wordGo)
	if err := h.await(ctx, h.limits.Seize); err != nil {
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

// end says stop to both processes and waits until they are gone: politely, then
// not. Their pipes must not simply end, which would mean an exec.
func (h *Handover) end() {
	if h.in != nil {
		tell(h.in, wordStop)
	}
	if h.life != nil {
		tell(h.life, wordStop)
	}
	if h.guardian != nil {
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			_, _ = h.guardian.Wait()
		}()
		timer := time.NewTimer(h.limits.Seize)
		defer timer.Stop()
		select {
		case <-gone:
		case <-timer.C:
			_ = h.guardian.Kill()
			<-gone
		}
		h.guardian = nil
	}
	for _, f := range []**os.File{&h.in, &h.life, &h.out} {
		if *f != nil {
			(*f).Close()
			*f = nil
		}
	}
}

// named reports whether the kernel's hostname is the name, or as much of it as a
// system gives the kernel.
func named(kernel, name string) bool { return kernel == name || kernel == short(name) }
