//go:build linux

// Package standin is what the programs of the Talos-shaped guest share: what a test asks of them on the kernel
// command line, and how PID 1 gives up.
//
// The arguments have no dot in their name: the kernel then hands them to the first process in its environment, where
// /init finds them before it has a /proc; and a helper in between that drops the environment is found out.
package standin

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/testvm/qemu/report"
)

// The kernel arguments that the stand-ins know.
const (
	// MountBy is how /init mounts its pseudo file systems: "mount", mount(2) as Talos v1.9 does (the default), or
	// "fsmount", fsopen, fsmount and move_mount as v1.12 does.
	MountBy = "standin_mount"
	// Traced is what /init does where one of its threads is traced when it execs /sbin/init: "refuse", as SELinux
	// refuses a traced process another domain (the default), or "allow".
	Traced = "standin_traced"
	// At asks for an action at a stage of the boot, "STAGE:ACTION"; see Hook.
	At = "standin_at"
	// Clock is how often the wall clock jumps from the first process on, ten times a second: to 1970, a century on, and
	// in between. It is the guest's own clock; nobody else's could be set.
	Clock = "standin_clock"
	// State is what machined does with the partition STATE: "read" waits for it and applies what is in it; "write" writes the
	// platform's name and the configuration there, "dirty" too, and leaves it as a cut of the power does. "": nothing.
	State = "standin_state"
	// Unlocks is the name that stands on a STATE that is encrypted.
	Unlocks = "standin_unlocks"
	// Waits is "no" where machined settles without waiting for the platform's answer.
	Waits = "standin_waits"
)

// Arguments are the stand-ins' own, by name.
type Arguments map[string]string

// FromEnvironment reads them where the kernel puts them for the first process.
func FromEnvironment() Arguments { return parse(os.Environ()) }

// FromCommandLine reads them from /proc/cmdline.
func FromCommandLine() Arguments {
	line, _ := os.ReadFile("/proc/cmdline")
	return parse(strings.Fields(string(line)))
}

func parse(words []string) Arguments {
	a := Arguments{}
	for _, w := range words {
		if k, v, ok := strings.Cut(w, "="); ok && strings.HasPrefix(k, "standin_") {
			a[k] = v
		}
	}
	return a
}

// Hook does what the test asked for at the stage: "kill" ends every other process, "stop" stays here for ever, a
// duration sleeps. The stages, in order: "init", "dev", "proc", "sys" (each before its mount), "mounted", "switch", "exec"
// in /init; "machined", "named" in machined.
func (a Arguments) Hook(stage string, log *report.Writer) {
	at, action, ok := strings.Cut(a[At], ":")
	if !ok || at != stage {
		return
	}
	switch action {
	case "kill":
		// -1 spares PID 1 and the kernel's threads (kill(2)).
		if err := unix.Kill(-1, unix.SIGKILL); err != nil && err != unix.ESRCH {
			Die(log, fmt.Errorf("hook %s: kill: %w", stage, err))
		}
	case "stop":
		fmt.Fprintf(os.Stderr, "standin: stops at %s\n", stage)
		Pause()
	default:
		d, err := time.ParseDuration(action)
		if err != nil {
			Die(log, fmt.Errorf("hook %s: %w", stage, err))
		}
		time.Sleep(d)
	}
}

// Die says why PID 1 cannot go on, on the console and in the report, and stays: PID 1 that ends is a panic, which
// would be a different failure.
func Die(log *report.Writer, err error) {
	fmt.Fprintf(os.Stderr, "standin: %v\n", err)
	log.Write(report.Event{Kind: report.Fatal, Text: err.Error()})
	Pause()
}

// Pause never returns.
func Pause() {
	for {
		_ = unix.Pause()
	}
}
