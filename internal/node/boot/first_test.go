//go:build linux

package boot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/node/handover"
	"github.com/nametag-boot/nametag/internal/node/kmsg"
	"github.com/nametag-boot/nametag/internal/testvm/denied"
)

// The tests below boot in namespaces of their own: this binary is executed as process 1 and does a first process' work,
// with a worker that is a stand-in or our own, and a shell as the next init. reboot(2) in a pid namespace ends its first
// process with a signal that says which (reboot_pid_ns in kernel/pid_namespace.c).

// A trial is what process 1 is told.
type trial struct {
	Line  string // the kernel command line
	Panic stage  // in the first process
	Work  stage  // the worker is our own, and panics there; empty: it answers at once
	Storm bool   // signals all the time, to the first process
	Links string // a script that makes links, in front of everything; /proc is empty then, as in an initramfs
	Kill  string // with Links: a script that succeeds when the worker, which is our own, is to be killed
	// Alone has all other processes killed once there is a name: those of the handover.
	Alone bool
	// Refuse is the number of a system call that the kernel refuses; 0: none.
	Refuse int
}

const (
	envTrial = "NAMETAG_TRIAL"
	trialFD  = 3 // where the next init tells that it runs
	given    = "web-1"
)

func TestMain(m *testing.M) {
	switch {
	case handover.IsChild():
		os.Exit(handover.ChildMain())
	case IsWorker():
		os.Exit(standInWorkerMain())
	}
	text := os.Getenv(envTrial)
	if text == "" {
		os.Exit(m.Run())
	}
	var tr trial
	if err := json.Unmarshal([]byte(text), &tr); err != nil {
		panic(err)
	}
	if os.Args[0] == "storm" {
		storm()
	}
	tr.first()
}

// workFile tells the worker where to panic: it gets no environment.
const workFile = ownRoot + "/work"

// standInWorkerMain answers, or is the worker with a fault.
func standInWorkerMain() int {
	work, err := os.ReadFile(workFile)
	if err == nil && len(work) > 0 {
		panicAt(stage(work))
		return WorkerMain()
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	fmt.Printf(`{"Identity":{"hostname":%q,"instance_id":"42","path":{"method":"dhcp"}}}`, given)
	return 0
}

func panicAt(at stage) {
	reached = func(s stage) {
		if s == at {
			panic("the unthinkable")
		}
	}
}

// first is process 1.
func (tr trial) first() {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		panic(err)
	}
	countdown = time.Millisecond
	panicAt(tr.Panic)
	if tr.Alone {
		reached = func(s stage) {
			if s == stageLeaving {
				_ = unix.Kill(-1, unix.SIGKILL)
			}
		}
	}
	tr.links()
	if tr.Work != "" {
		reached = func(s stage) {
			if s == stageMounted {
				_ = os.WriteFile(workFile, []byte(tr.Work), 0o600)
			}
		}
	}
	script := fmt.Sprintf("read name </proc/sys/kernel/hostname; echo next init, $name >&%d", trialFD)
	if tr.Links != "" {
		script = fmt.Sprintf("mount -t proc proc /proc; exec >&%d 2>&1; %s", trialFD, linkState)
	}
	b := &boot{
		options: Options{Next: "/bin/sh", Args: []string{"-c", script}},
		began:   time.Now(), next: next{asked: "/bin/sh", self: os.Args[0]},
		line:    func() (string, error) { return tr.Line, nil },
		console: kmsg.New(os.Stderr, kmsg.Format{Unlimited: true}),
	}
	if tr.Panic == "the line" {
		b.line = func() (string, error) { return "", errors.New("there is none") }
	}
	if tr.Refuse != 0 {
		if err := (denied.Call{Number: tr.Refuse, Arg: denied.Any, Errno: unix.EPERM}).Impose(); err != nil {
			panic(err)
		}
	}
	b.deafen()
	if tr.Storm {
		r, w, err := os.Pipe() // closed by the exec of the next init, which is not to be hit
		if err != nil {
			panic(err)
		}
		cmd := &exec.Cmd{Path: "/proc/self/exe", Args: []string{"storm"}, Stdin: r, Stderr: os.Stderr}
		if err := cmd.Start(); err != nil {
			panic(err)
		}
		r.Close()
		defer w.Close()
	}
	b.guarded(b.run)
	b.stay("nothing is left to do")
}

// storm sends the first process what would end another one, until that executes something else.
func storm() {
	fds := []unix.PollFd{{Fd: 0, Events: unix.POLLIN}}
	for {
		if n, _ := unix.Poll(fds, 0); n > 0 {
			os.Exit(0)
		}
		for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGPIPE, unix.SIGUSR1, unix.SIGUSR2, unix.SIGPWR, unix.SIGCHLD, unix.SIGURG} {
			_ = unix.Kill(1, sig)
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// fate is how a trial ended.
type fate struct {
	signal  syscall.Signal // of process 1: SIGHUP for a reboot, SIGINT for a power-off or halt
	next    string         // what the next init told; empty: it did not run
	console string
}

// alone waits until no other run of these tests, from another folder of this machine, has a trial under way, and keeps
// others waiting until done is called. All of them make ownRoot in one root: who removes it, takes what the other one has
// mounted there with it, in every namespace.
func alone(t *testing.T) (done func()) {
	t.Helper()
	root, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	for {
		err := unix.Flock(int(root.Fd()), unix.LOCK_EX)
		if err == nil {
			return func() { root.Close() }
		}
		if !errors.Is(err, unix.EINTR) {
			root.Close()
			t.Fatalf("locking the root: %v", err)
		}
	}
}

func (tr trial) run(t *testing.T) fate {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("a boot in namespaces needs root")
		}
		t.Skip("SKIPPED: a boot in namespaces needs root")
	}
	defer alone(t)()
	text, err := json.Marshal(tr)
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	console, err := os.CreateTemp(t.TempDir(), "console")
	if err != nil {
		t.Fatal(err)
	}
	defer console.Close()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = []string{"HOME=/", envTrial + "=" + string(text)}
	cmd.ExtraFiles = []*os.File{w}
	cmd.Stdout, cmd.Stderr = console, console
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC, Pdeathsig: syscall.SIGKILL,
	}
	err = cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	limit := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	defer limit.Stop()
	told, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	said, err := os.ReadFile(console.Name())
	if err != nil {
		t.Fatal(err)
	}
	e := fate{next: strings.TrimSpace(string(told)), console: string(said)}
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		e.signal = ws.Signal()
	}
	return e
}

const waits = "talos.hostname.wait=1m"

// A panic of the first process, at whatever stage, is said, and then the policy is carried out. Where nobody asked to
// wait, or the policy is to go on, that is the next init.
func TestAPanicInTheFirstProcess(t *testing.T) {
	all := []stage{stageBegun, stageDecided, stageMounted, stageAsked, stageWaiting, stageReading, stageAnswered, stageLeaving, stageExecuting}
	for _, policy := range []struct {
		line   string
		stages []stage
		signal syscall.Signal
	}{
		{"", []stage{stageBegun, stageDecided, stageLeaving, stageExecuting, "the line"}, 0},
		{waits + ",then=reboot", all[1:], syscall.SIGHUP},
		{waits + ",then=poweroff", []stage{stageDecided, stageLeaving}, syscall.SIGINT},
		{waits + ",then=continue", all, 0},
	} {
		for _, at := range policy.stages {
			t.Run(fmt.Sprintf("%q, %s", policy.line, at), func(t *testing.T) {
				e := trial{Line: policy.line, Panic: at}.run(t)
				signal := policy.signal
				if at == stageWaiting { // there is an answer all the same
					signal = 0
				}
				if e.signal != signal || (e.next == "") != (signal != 0) {
					t.Errorf("it ended by %v, the next init told %q; the console:\n%s", e.signal, e.next, e.console)
				}
				if at != "the line" && !strings.Contains(e.console, "the unthinkable") {
					t.Errorf("the console does not say it:\n%s", e.console)
				}
			})
		}
	}
	t.Run("no panic at all", func(t *testing.T) {
		if e := (trial{Line: waits}).run(t); e.next != "next init, "+given || e.signal != 0 {
			t.Errorf("it ended by %v, the next init told %q; the console:\n%s", e.signal, e.next, e.console)
		}
	})
}

// A panic in the worker ends the search, or only what goes on beside it; the first process carries the policy out.
func TestAPanicInTheWorker(t *testing.T) {
	for _, scenario := range []struct {
		at   stage
		ends bool // the search; else it goes on to its bound
	}{
		{stageWorking, true},
		{stageLoading, false},
		{stageTelling, false},
	} {
		t.Run(string(scenario.at), func(t *testing.T) {
			line := "talos.hostname.wait=1s,then=reboot"
			if scenario.ends {
				line = waits
			}
			e := trial{Line: line, Work: scenario.at}.run(t)
			if e.signal != syscall.SIGHUP || e.next != "" {
				t.Errorf("it ended by %v, the next init told %q; the console:\n%s", e.signal, e.next, e.console)
			}
			// A reboot comes at once where the wait has counted down to it, and is announced else.
			if want := map[bool]string{true: ": reboot in ", false: ": reboot now"}[scenario.ends]; !strings.Contains(e.console, want) {
				t.Errorf("the console does not say %q:\n%s", want, e.console)
			}
			// What the others say is on the machine's console.
			if strings.Contains(e.console, "panic: the worker: the unthinkable") != scenario.ends {
				t.Errorf("the console says:\n%s", e.console)
			}
		})
	}
}

// A handover that is lost in the last moment is a name that cannot be given: the policy says what comes of it. To stay where
// the machine is, it says in no case.
func TestAHandoverThatEndsBeforeTheNextInit(t *testing.T) {
	for _, c := range []struct {
		then   string
		signal syscall.Signal
	}{
		{"continue", 0},
		{"reboot", syscall.SIGHUP},
		{"poweroff", syscall.SIGINT},
	} {
		t.Run("then="+c.then, func(t *testing.T) {
			e := trial{Line: waits + ",then=" + c.then + " talos.platform=hcloud", Alone: true}.run(t)
			if e.signal != c.signal || (e.next == "") != (c.signal != 0) || e.next == "next init, "+given || !strings.Contains(e.console, "cannot be handed over") {
				t.Errorf("it ended by %v, the next init told %q; the console:\n%s", e.signal, e.next, e.console)
			}
		})
	}
}

// Signals change nothing, at no stage.
func TestAStormOfSignalsAtTheFirstProcess(t *testing.T) {
	for _, line := range []string{"", waits, waits + " talos.platform=hcloud"} {
		t.Run(fmt.Sprintf("%q", line), func(t *testing.T) {
			e := trial{Line: line, Storm: true}.run(t)
			if !strings.HasPrefix(e.next, "next init, ") {
				t.Errorf("it ended by %v, the next init told %q; the console:\n%s", e.signal, e.next, e.console)
			}
		})
	}
}
