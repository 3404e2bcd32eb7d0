//go:build linux

// Command nametag makes a server's name final before its first service starts.
//
// As the first process of an initramfs it does so by itself; `nametag apply` is the same for a service of systemd and for
// the hooks of an initramfs.
//
// On a running system, `nametag resolve` brings up a minimal link by itself, asks the cloud's metadata service who this
// server is, prints the proven name and undoes what it did to the network.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/nametag-boot/nametag/internal/node/boot"
	"github.com/nametag-boot/nametag/internal/node/handover"
	"github.com/nametag-boot/nametag/internal/output"
	"github.com/nametag-boot/nametag/internal/release/buildinfo"
)

// version is set by the linker in a release build.
var version string

// The exit statuses. They are part of the interface: scripts and units tell outcomes apart by them.
const (
	exitOK          = 0
	exitFailed      = 1 // something else went wrong; the message says what
	exitUsage       = 2 // the command line is not understood
	exitTimedOut    = 3 // the bound passed without a valid name
	exitNotPresent  = 4 // this is not a server of that cloud
	exitPermission  = 5 // the capabilities for the network are missing
	exitInterrupted = 6 // SIGINT, SIGTERM or SIGHUP came first
	exitUnnamed     = 7 // status: nametag has not named this system in this boot
	exitRenamed     = 8 // status: another name is in effect, and nobody is known to want that
	exitOperator    = 9 // status: an operator's name is in effect, which nametag leaves alone
)

const usage = `nametag finds out a server's name before anything else needs it.

Usage:
  nametag resolve [flags]    find the name over a minimal link of its own, print it
  nametag apply [flags]      find the name and give it to this system, for good
  nametag status             say which name this system was given, and whether it is in effect
  nametag pin                keep the name that this system has, whatever the cloud says later
  nametag init [flags]       be the first process of the initramfs; the default as process 1
  nametag version            print the version

Example:
  nametag resolve --wait 30s --output json

'nametag help resolve' lists its flags and the exit statuses.
`

func main() {
	switch {
	case handover.IsChild():
		os.Exit(handover.ChildMain())
	case boot.IsWorker():
		os.Exit(boot.WorkerMain())
	case isGenerator():
		os.Exit(runGenerator(os.Args[1:], os.Stderr))
	case os.Getpid() == 1 && (!inContainer() || !asksForCommand(os.Args)):
		firstProcess()
	}
	ctx, stop := interruptible()
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// interruptible returns a context that ends by the signals that ask a program to end, so that the network is put back
// first. A reader of what it says that has gone (| head -1) is an error of the writing and not the end: that, too, would
// leave the network as it is at that moment.
func interruptible() (context.Context, context.CancelFunc) {
	signal.Ignore(syscall.SIGPIPE)
	signals := []os.Signal{syscall.SIGINT, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup
		signals = append(signals, syscall.SIGHUP)
	}
	return signal.NotifyContext(context.Background(), signals...)
}

// inContainer tells process 1 of a container from that of a machine, which finds no /proc: nobody was there before it
// to mount one.
func inContainer() bool {
	_, err := os.Stat("/proc/self")
	return err == nil
}

// asksForCommand reports whether a process 1 was given a command. That of a machine is given the words on the kernel
// command line that the kernel did not know, whatever they are.
func asksForCommand(args []string) bool {
	if len(args) < 2 {
		return false
	}
	switch args[1] {
	case "resolve", "apply", "status", "pin", "version", "-version", "--version", "-v", "help":
		return true
	case "init":
		return len(args) > 2 && asksForHelp(args[2])
	}
	return asksForHelp(args[1])
}

func asksForHelp(arg string) bool { return arg == "-h" || arg == "-help" || arg == "--help" }

// run is main without the process: arguments and streams in, exit status out.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	out := &output.Page{To: stdout}
	code := carryOut(ctx, args, out, stderr)
	if code == exitOK { // else it has been said what is wrong
		code = report(stderr, out.Err)
	}
	return code
}

func carryOut(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return exitUsage
	}
	if len(args) == 2 && args[0] == "help" {
		args = []string{args[1], "--help"}
	}
	switch args[0] {
	case "resolve":
		return report(stderr, runResolve(ctx, args[1:], stdout, stderr))
	case "apply":
		return report(stderr, runApply(ctx, args[1:], stdout, stderr))
	case "status":
		return report(stderr, runStatus(args[1:], stdout))
	case "pin":
		return report(stderr, runPin(args[1:], stdout))
	case "init":
		return report(stderr, runInit(args[1:], stdout))
	case "version", "--version", "-version", "-v":
		if len(args) > 1 {
			return report(stderr, &usageError{fmt.Errorf("version takes no arguments, and this is one: %q", args[1])})
		}
		fmt.Fprintln(stdout, buildinfo.Line("nametag", version))
		return exitOK
	case "help", "--help", "-help", "-h":
		fmt.Fprint(stdout, usage)
		return exitOK
	default:
		return report(stderr, &usageError{fmt.Errorf("unknown command %q; 'nametag help' lists them", args[0])})
	}
}

// A usageError is a command line that cannot be understood.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// report says on stderr what went wrong, if anything, and returns the exit status for it.
func report(stderr io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	if text := err.Error(); text != "" {
		fmt.Fprintf(stderr, "nametag: %s\n", text)
	}
	return exitStatus(err)
}
