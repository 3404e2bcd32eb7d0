//go:build linux

package handover

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

	"github.com/nametag-boot/nametag/procfs"
)

// run boots in fresh namespaces, with a user namespace where asked or needed, and
// says how it ended.
func run(t *testing.T, b boot, userns bool) fate {
	t.Helper()
	b.Name = cmpOr(b.Name, exampleName)
	b.Limits.Countdown = -1
	text, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), envRole+"=nametag", envBoot+"="+string(text), envRoot+"="+t.TempDir())
	cmd.ExtraFiles = []*os.File{w} // fateFD
	console, err := os.CreateTemp(t.TempDir(), "console")
	if err != nil {
		t.Fatal(err)
	}
	defer console.Close()
	cmd.Stdout, cmd.Stderr = console, console
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS}
	if userns || os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	if err := cmd.Start(); err != nil {
		w.Close()
		if os.Getenv("CI") == "" {
			t.Skipf("SKIPPED: a boot needs namespaces of its own, which this machine refuses: %v", err)
		}
		t.Fatal(err)
	}
	w.Close()
	// All that could block this is in the pid namespace, and ends with its first process.
	limit := time.AfterFunc(5*time.Minute, func() { _ = cmd.Process.Kill() })
	defer limit.Stop()
	fates, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	var f fate
	for line := range strings.Lines(string(fates)) {
		f = fate{}
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
	}
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		f.signal = ws.Signal()
	}
	said, err := os.ReadFile(console.Name())
	if err != nil {
		t.Fatal(err)
	}
	f.console = string(said)
	if strings.Contains(f.console, "DATA RACE") {
		t.Errorf("a race:\n%s", f.console)
	}
	return f
}

// rightly fails the test unless the first name was the right one, read off the
// amended line, and nothing was left.
func rightly(t *testing.T, f fate) {
	t.Helper()
	switch {
	case f.Reached != "machined" || f.Err != "" || f.signal != 0:
		t.Errorf("the boot came to %q: %q, signal %v", f.Reached, f.Err, f.signal)
	case f.First != "my-server":
		t.Errorf("the first name is %q", f.First)
	case strings.TrimPrefix(string(f.Line), aByte+" ") != "console=ttyS0 quiet talos.platform=hcloud -- init args talos.hostname="+exampleName+"\n":
		t.Errorf("the command line read %q", f.Line)
	case len(f.Left) > 0:
		t.Errorf("left behind: %s", strings.Join(f.Left, "\n"))
	default:
		if testing.Verbose() {
			t.Log(f.console)
		}
		return
	}
	t.Logf("way %s %s\n%s", f.Way, f.Why, f.console)
}

// many is how often each of the plain boots is made.
func many() int {
	if testing.Short() || raceEnabled {
		return 2
	}
	return 20
}

func TestBoot(t *testing.T) {
	for _, tt := range []struct {
		name string
		boot boot
		way  Way
	}{
		{"strictly, /proc mounted by mount(2)", boot{}, Strict},
		{"strictly, /proc mounted by move_mount(2)", boot{MoveMnt: true}, Strict},
		{"strictly, with no time between the mount and the new root", boot{Threads: 1}, Strict},
		{"strictly, among many threads", boot{Threads: 24, MoveMnt: true}, Strict},
		{"by watching, as asked", boot{Way: Watch, Await: true}, Watch},
		{"by watching, where ptrace is refused", boot{Refuse: "ptrace", MoveMnt: true, Await: true}, Watch},
	} {
		for _, userns := range []bool{false, true} {
			if !userns && os.Getuid() != 0 {
				continue
			}
			name := tt.name
			if userns {
				name += ", in a user namespace"
			}
			t.Run(name, func(t *testing.T) {
				var waited, prepare, commit time.Duration
				peak := 0
				for i := range many() {
					f := run(t, tt.boot, userns)
					if rightly(t, f); t.Failed() {
						t.Fatalf("in boot %d", i+1)
					}
					if f.Way != tt.way.String() {
						t.Fatalf("by %s: %s", f.Way, f.Why)
					}
					if tt.way == Strict && (!strings.Contains(f.console, fmt.Sprintf("at the return of the mount by thread %d,", f.Mounter)) || !strings.Contains(f.console, "let go of ")) {
						t.Fatalf("thread %d mounted /proc, and the tracer did not come to its end there by itself:\n%s", f.Mounter, f.console)
					}
					waited, peak = max(waited, f.Waited), max(peak, f.PeakKB)
					prepare, commit = max(prepare, f.Prepare), max(commit, f.Commit)
				}
				t.Logf("%d boots; at most: Prepare %v, Commit %v, all gone %v after the name was set, %d kB a process",
					many(), prepare.Round(time.Millisecond), commit.Round(10*time.Microsecond), waited.Round(time.Millisecond), peak)
			})
		}
	}
}

func TestChildDies(t *testing.T) {
	stuck := Limits{Silence: 1200 * time.Millisecond}
	for _, tt := range []struct {
		at, do string
		way    Way
		limits Limits
	}{
		{at: "prepared", do: "kill tracer"},
		{at: "committed", do: "kill guardian"},
		{at: "committed", do: "kill tracer"},
		{at: "exec", do: "kill guardian"},
		{at: "exec", do: "kill tracer"},
		{at: "mounted", do: "kill guardian"},
		{at: "mounted", do: "kill tracer"},
		{at: "moved", do: "kill guardian"},
		{at: "moved", do: "kill tracer"},
		{at: "prepared", do: "stop tracer", limits: stuck},
		{at: "committed", do: "stop tracer", limits: stuck},
		{at: "exec", do: "stop tracer", limits: stuck},
		{at: "exec", do: "kill guardian", way: Watch},
		{at: "exec", do: "kill tracer", way: Watch},
		{at: "moved", do: "kill guardian", way: Watch},
		{at: "moved", do: "kill tracer", way: Watch},
	} {
		t.Run(fmt.Sprintf("%s at %s, %s: the name is right all the same", tt.do, tt.at, tt.way), func(t *testing.T) {
			for range 1 + many()/10 {
				rightly(t, run(t, boot{At: tt.at, Do: tt.do, Way: tt.way, Limits: tt.limits, Await: true}, false))
			}
		})
	}
	t.Run("a guardian that gets no time to run until the name is set finds that all is well", func(t *testing.T) {
		for range 1 + many()/4 {
			rightly(t, run(t, boot{At: "exec", Do: "stop guardian", Continue: "named"}, false))
		}
	})
	t.Run("kill guardian when it has mounted and told nobody, and /proc is in the new root: the mount is taken away", func(t *testing.T) {
		for range 1 + many()/10 {
			rightly(t, run(t, boot{Way: Watch, Hang: fault{roleGuardian, stageBinding}, Covered: true, At: "moved", Do: "kill guardian"}, false))
		}
	})
	for _, do := range []string{"kill guardian", "kill tracer guardian", "stop guardian"} {
		t.Run(do+" before the exec: the caller is told, and nothing is left", func(t *testing.T) {
			f := run(t, boot{At: "prepared", Do: do, Limits: Limits{Seize: 2 * time.Second}}, false)
			if f.Reached != "commit" || !strings.Contains(f.Err, "handover: commit: the guardian") || f.signal != 0 {
				t.Errorf("%+v", f)
			}
			if len(f.Left) > 0 {
				t.Errorf("left behind: %v", f.Left)
			}
		})
	}
}

func TestBeforeTheName(t *testing.T) {
	t.Run("an early end leaves nothing", func(t *testing.T) {
		if f := run(t, boot{Early: true}, false); f.Reached != "commit" || f.Err != "" || len(f.Left) > 0 || f.console != "" {
			t.Errorf("%+v", f)
		}
	})
	t.Run("a guardian that was killed shows when there is a name", func(t *testing.T) {
		f := run(t, boot{Early: true, At: "started", Do: "kill guardian"}, false)
		if !strings.Contains(f.Err, "handover: prepare: the guardian has ended") || len(f.Left) > 0 {
			t.Errorf("%+v", f)
		}
	})
	t.Run("without the tracer it is done by watching", func(t *testing.T) {
		f := run(t, boot{Early: true, At: "started", Do: "kill tracer"}, false)
		if f.Err != "" || f.Way != "watch" || !strings.Contains(f.Why, "tracer has ended") || len(f.Left) > 0 {
			t.Errorf("%+v", f)
		}
	})
	t.Run("a hostname that is the name already does not end it early", func(t *testing.T) {
		rightly(t, run(t, boot{Preset: "my-server"}, false))
	})
	t.Run("a name that is no hostname is refused", func(t *testing.T) {
		for _, name := range []string{"a b", "a\nb", "a=\"b", "-a", "a..b", strings.Repeat("a", 64)} {
			f := run(t, boot{Name: name}, false)
			if !strings.Contains(f.Err, "handover: prepare: ") || f.Reached != "commit" {
				t.Errorf("%q: %+v", name, f)
			}
		}
	})
	t.Run("only the first process can hand over", func(t *testing.T) {
		var e *Error
		if _, err := Start(Config{}); !errors.As(err, &e) || e.Op != "start" {
			t.Errorf("got %v", err)
		}
	})
}

// aByte is an argument in an encoding of old, and the end of a line behind it.
const aByte = "title=gr\xfcn\nnoresume"

func TestTheBytesOfACommandLineStayAsTheyAre(t *testing.T) {
	for _, way := range []Way{Strict, Watch} {
		t.Run(way.String(), func(t *testing.T) {
			f := run(t, boot{Bytes: true, Way: way, Await: true}, os.Getuid() != 0)
			if rightly(t, f); !strings.HasPrefix(string(f.Line), aByte) {
				t.Errorf("the command line read %q", f.Line)
			}
		})
	}
}

func TestOldKernel(t *testing.T) {
	for _, do := range []string{"", "kill guardian", "kill tracer"} {
		t.Run(cmpOr(do, "kill nobody")+": without PTRACE_GET_SYSCALL_INFO the mount table is watched", func(t *testing.T) {
			f := run(t, boot{Refuse: "info", At: "moved", Do: cmpOr(do, "kill"), Await: true}, false)
			rightly(t, f)
			if !strings.Contains(f.console, "watching the mount table instead") {
				t.Errorf("the console does not say so:\n%s", f.console)
			}
		})
	}
}

func TestPolicy(t *testing.T) {
	ends := map[procfs.Then]syscall.Signal{procfs.Reboot: syscall.SIGHUP, procfs.PowerOff: syscall.SIGINT, procfs.Halt: syscall.SIGINT}
	// Only where it never comes, what is waited for is given up soon: on a busy machine nothing may happen for seconds.
	quick := Limits{Mount: 2 * time.Second, Exec: 5 * time.Second, Grace: time.Second}
	patient := Limits{Grace: time.Second}
	for then, signal := range ends {
		for _, tt := range []struct {
			name string
			boot boot
			says string
		}{
			{"the next init never mounts /proc", boot{NoMount: true}, "has not mounted /proc, and nothing has happened for"},
			{"the same, while watching", boot{NoMount: true, Way: Watch}, "has not mounted /proc, and nothing has happened for"},
			{"the same, with the guardian killed", boot{NoMount: true, At: "exec", Do: "kill guardian"}, "has not mounted /proc, and nothing has happened for"},
			{"the new /proc has no command line", boot{Subset: true, Limits: patient}, "move_mount /proc/cmdline: no such file"},
			{"the same, while watching", boot{Subset: true, Way: Watch, Await: true, Limits: patient}, "move_mount /proc/cmdline: no such file"},
			{"the next init is never executed", boot{NoMount: true, At: "never", Limits: Limits{Exec: time.Second}}, "has not executed the next init"},
			{"the watching came too late", boot{Way: Watch, At: "exec", Do: "stop guardian", Continue: "named", Limits: patient}, `has named itself "talos-8qy-c5p"`},
		} {
			t.Run(then.String()+" when "+tt.name, func(t *testing.T) {
				tt.boot.Then, tt.boot.Limits = then, cmpOr(tt.boot.Limits, quick)
				f := run(t, tt.boot, false)
				if f.signal != signal {
					t.Errorf("ended by %v, want %v; %+v", f.signal, signal, f)
				}
				if !strings.Contains(f.console, tt.says) || !strings.Contains(f.console, ": "+then.String()+" now") {
					t.Errorf("the console does not say %q and %s:\n%s", tt.says, then, f.console)
				}
			})
		}
	}
	t.Run("continue lets the system boot under a name of its own, and leaves nothing", func(t *testing.T) {
		f := run(t, boot{Subset: true, Then: procfs.Continue, Limits: patient}, false)
		// Such a /proc has no cmdline for machined either.
		if f.Reached != "machined" || f.signal != 0 || !strings.Contains(f.console, "then=continue") {
			t.Errorf("%+v", f)
		}
		f = run(t, boot{Way: Watch, At: "exec", Do: "stop guardian", Continue: "named", Then: procfs.Continue}, false)
		if f.First != "talos-8qy-c5p" || len(f.Left) > 0 || f.signal != 0 {
			t.Errorf("%+v", f)
		}
	})
	t.Run("a machine config that names the machine otherwise is no failure", func(t *testing.T) {
		f := run(t, boot{Config: "chosen", Limits: patient}, false)
		if f.First != "chosen" || len(f.Left) > 0 || f.signal != 0 {
			t.Errorf("%+v", f)
		}
		if !strings.Contains(f.console, `named itself "chosen" although`) {
			t.Errorf("the console does not say so:\n%s", f.console)
		}
	})
}

// A panic of ours, wherever, is said, and ends neither the machine nor its boot: the other process does the rest, or
// whoever was to hand over is told, whose policy it is then.
func TestPanic(t *testing.T) {
	for _, tt := range []struct {
		in   string
		at   moment
		told bool // before the exec: the caller is told
	}{
		{"first", stageHearing, true},
		{"first", stageTelling, true},
		{roleGuardian, stageHearing, true},
		{roleGuardian, stageGuards, true},
		{roleGuardian, stageOrdered, true},
		{roleGuardian, stageSettled, true},
		{roleGuardian, stageCommitted, true},
		{roleGuardian, stageGiving, false},
		{roleGuardian, stageWatching, false},
		{roleGuardian, stageFinishing, false},
		{roleTracer, stageHearing, false},
		{roleTracer, stageStands, false},
		{roleTracer, stageSeizing, false},
		{roleTracer, stageFollowing, false},
		{roleTracer, stageMounted, false},
		{roleTracer, stageReleasing, false},
	} {
		t.Run(fmt.Sprintf("in %s: %s", tt.in, tt.at), func(t *testing.T) {
			f := run(t, boot{Panic: fault{tt.in, tt.at}, Await: true, Limits: Limits{Seize: time.Second}}, false)
			if !tt.told {
				rightly(t, f)
			} else if f.Reached != "commit" || !strings.Contains(f.Err, "handover: ") || f.signal != 0 || len(f.Left) > 0 {
				t.Errorf("%+v", f)
			}
			if tt.in != "first" && !strings.Contains(f.console, "the unthinkable") || strings.Contains(f.Err+f.console, "goroutine ") {
				t.Errorf("the console does not say it in a line:\n%s", f.console)
			}
		})
	}
	t.Run("in the carrying out of the policy: it is carried out all the same", func(t *testing.T) {
		f := run(t, boot{Panic: fault{roleGuardian, stageEnforcing}, NoMount: true, Limits: Limits{Mount: time.Second}}, false)
		if f.signal != syscall.SIGHUP {
			t.Errorf("ended by %v; %+v", f.signal, f)
		}
	})
}

// Signals that ask a process to end, or tell it of a child, change nothing, whoever of the three gets them and when.
func TestAStormOfSignals(t *testing.T) {
	for _, tt := range []struct{ at, do string }{
		{"", "kill"}, {"exec", "kill tracer"}, {"mounted", "kill tracer"}, {"exec", "kill guardian"}, {"moved", "kill guardian"},
	} {
		for _, way := range []Way{Strict, Watch} {
			t.Run(fmt.Sprintf("%s at %s, %s", tt.do, tt.at, way), func(t *testing.T) {
				rightly(t, run(t, boot{Storm: true, At: tt.at, Do: tt.do, Way: way, Await: true, MoveMnt: true}, false))
			})
		}
	}
}
