//go:build linux

package boot

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/internal/node/kmsg"
	"github.com/nametag-boot/nametag/procfs"
)

// standInWorker is a boot whose worker is a script.
func standInWorker(t *testing.T, script string, wait time.Duration) (*boot, *bytes.Buffer) {
	t.Helper()
	root := t.TempDir()
	exe := filepath.Join(root, "proc/self/exe")
	if err := os.MkdirAll(filepath.Dir(exe), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(exe, []byte("#!/bin/sh\n"+script), 0o755); err != nil { //nolint:gosec // it is to be executed
		t.Fatal(err)
	}
	console := new(bytes.Buffer)
	return &boot{
		began:    time.Now(),
		mounts:   mounts{root},
		console:  kmsg.New(console, kmsg.Format{Unlimited: true}),
		decision: decision{policy: procfs.Policy{Mode: procfs.Bounded, Wait: wait}},
	}, console
}

func TestAWorkerThatFailsIsAnErrorAndNotTheEnd(t *testing.T) {
	for _, scenario := range []struct {
		name, script  string
		wait          time.Duration
		says, console string
	}{
		{"it panics", "echo 'panic: index out of range' >&2; exit 2", time.Minute, "exit status 2", "panic: index out of range"},
		{"it is killed", "kill -9 $$", time.Minute, "killed", ""},
		{"it says nothing", "exit 0", time.Minute, "without an answer", ""},
		{"it talks nonsense", "echo hello", time.Minute, "without an answer", ""},
		{"it answers with nothing", "echo '{}'", time.Minute, "without an answer", ""},
		{"it hangs beyond the bound", "exec sleep 60", 50 * time.Millisecond, "deadline exceeded", ""},
	} {
		t.Run(scenario.name, func(t *testing.T) {
			b, console := standInWorker(t, scenario.script, scenario.wait)
			b.began = b.began.Add(-workerGrace) // so that none has to be waited for
			var r result
			answer, err := b.startWorker(request{Policy: b.decision.policy})
			if err == nil { // on a busy machine its time may be up before it is started
				r, err = answer()
			}
			if err == nil || !strings.Contains(err.Error(), scenario.says) {
				t.Errorf("the error is %v, want %q", err, scenario.says)
			}
			if r.Identity != nil {
				t.Errorf("it came up with %+v", r.Identity)
			}
			if !strings.Contains(console.String(), scenario.console) {
				t.Errorf("the console says %q, not %q", console, scenario.console)
			}
		})
	}
}

// Where it dies at every boot, the node goes on under a name that it knows, by another worker; else the policy counts.
func TestAfterAWorkerThatHasDiedAnotherLooksIntoTheMemory(t *testing.T) {
	for _, scenario := range []struct {
		name, line, script string
		want, console      string
	}{
		{"which knows the name", "talos.platform=hcloud", `{"Identity":{"hostname":"web-1"}}`, "web-1", "in its own memory"},
		{"which the operator has named", "talos.platform=hcloud", `{"BootOn":true,"Why":"by-hand"}`, "on", "in its own memory"},
		{"which knows nothing", "talos.platform=hcloud", `{"Why":"there is no name in it"}`, "", "there is no name in it"},
		{"which dies too", "talos.platform=hcloud", "", "", "memory cannot be read: the worker ended without an answer"},
		{"which there is none of", "console=ttyS0", `{"Identity":{"hostname":"web-1"}}`, "", ""},
	} {
		t.Run(scenario.name, func(t *testing.T) {
			b, console := standInWorker(t, `grep -q '"Recall":true' && echo '`+scenario.script+`'`, time.Minute)
			d, err := decide(scenario.line + " talos.hostname.wait=1m")
			if err != nil {
				t.Fatal(err)
			}
			b.decision = d
			r, ok := b.recall(b.question(scenario.line), errors.New("it has died"))
			got := ""
			switch {
			case ok && r.Identity != nil:
				got = r.Identity.Hostname
			case ok && r.BootOn:
				got = "on"
			}
			if got != scenario.want {
				t.Errorf("it came up with %q, %v: %+v", got, ok, r)
			}
			if said := console.String(); !strings.Contains(said, scenario.console) || scenario.console != "" && !strings.Contains(said, "it has died") {
				t.Errorf("the console says\n%s", said)
			}
		})
	}
}

func TestAWorkerIsToldTheCommandLineByteForByte(t *testing.T) {
	const line = "root=LABEL=gr\xfcn talos.hostname.wait=1m\n"
	asked := filepath.Join(t.TempDir(), "asked")
	b, _ := standInWorker(t, "cat > "+asked, time.Minute)
	answer, err := b.startWorker(b.question(line))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := answer(); err == nil {
		t.Error("it has answered nothing, and that was taken for an answer")
	}
	var r request
	text, err := os.ReadFile(asked)
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil || string(r.CommandLine) != line {
		t.Errorf("%q, %v", r.CommandLine, err)
	}
}

func TestAWorkersAnswersAreTaken(t *testing.T) {
	b, _ := standInWorker(t, `cat >/dev/null; echo '{"Identity":{"hostname":"web-1","instance_id":"42","path":{"method":"dhcp"}}}'`, time.Minute)
	answer, err := b.startWorker(b.question("talos.hostname.wait=1m"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := answer()
	if err != nil || r.Identity == nil || r.Identity.Hostname != "web-1" {
		t.Errorf("the answer is %+v: %v", r, err)
	}
}

func TestAWorkerThatCannotBeStartedIsAnError(t *testing.T) {
	b := &boot{mounts: mounts{t.TempDir()}, began: time.Now()}
	if _, err := b.startWorker(request{Policy: b.decision.policy}); err == nil {
		t.Error("there was no error")
	}
}

func TestWhereTheWorkerHasDiedTheMemoryCountsUnlessItMayHaveHeardOfARename(t *testing.T) {
	for line, want := range map[string]bool{
		"talos.hostname.wait=1m":               true,
		"talos.hostname.wait=1m,rename=follow": true,
		"talos.hostname.wait=1m,rename=stop":   false,
		"talos.hostname.wait=1m,known=off":     false,
	} {
		parsed, err := procfs.ParseString(line)
		if err != nil {
			t.Fatal(err)
		}
		if got := (request{Policy: parsed.Policy, Talos: true}).recalls(); got != want {
			t.Errorf("%s: %v", line, got)
		}
	}
}

func TestAPanicOfTheFirstProcessEndsInThePolicy(t *testing.T) {
	// then=halt stays, and keeps saying why: in a goroutine of its own, which the test leaves to it.
	said := make(chan string, 100)
	b := &boot{
		began:    time.Now(),
		console:  kmsg.New(writerFunc(func(p []byte) (int, error) { said <- string(p); return len(p), nil }), kmsg.Format{Unlimited: true}),
		decision: decision{wait: true, policy: procfs.Policy{Mode: procfs.Forever, Then: procfs.Halt}},
	}
	go b.guarded(func() ending { panic("the unthinkable") })
	for _, want := range []string{"the unthinkable", "staying here"} {
		for line := ""; !strings.Contains(line, want); {
			select {
			case line = <-said:
			case <-time.After(10 * time.Second):
				t.Fatalf("the console does not say %q", want)
			}
		}
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
