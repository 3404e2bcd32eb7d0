//go:build linux

package apply

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/nametag-boot/nametag/internal/node/kmsg"
	"github.com/nametag-boot/nametag/internal/node/wait"
)

// Apart does what [Config.Do] does by a process of its own, which work starts and waits for. A panic is an error to a program;
// the kernel's want of memory, or a fault of Go's runtime, ends its process, and may do so at every boot. Where work returns a
// [DiedError], a node that knows its name goes on under it, as in an outage of the service. Else work is asked again, until
// the policy's time is up.
func (c Config) Apart(ctx context.Context, work func(context.Context) error) error {
	why, _ := c.nothingToDo() // what cannot be read is told by whoever asks
	if _, recorded := c.recorded(); recorded || why != "" {
		return c.Do(ctx) // nobody is asked
	}
	inTime, cancel := c.Line.Policy.WithDeadline(ctx, time.Now())
	defer cancel()
	for pause := again; ; pause = min(2*pause, maxPause) {
		err := work(ctx)
		var died *DiedError
		if !errors.As(err, &died) {
			return err
		}
		c.Reporter.Say(Line{Level: kmsg.Error, Event: "failed", Err: err, Text: err.Error()})
		if _, counts := c.Line.Policy.KnownAfter(); counts && c.recall().For(c.Instance).Known() {
			c.Find = nil
			return c.Do(ctx)
		}
		if !wait.Sleep(inTime, pause) {
			return c.ending(ctx, err)
		}
	}
}

// maxPause is how long it is waited at most before a process is started again that has died.
const maxPause = 10 * time.Second

// A DiedError says that a process of ours came to an end that it has not chosen.
type DiedError struct{ How error }

// Error is one line.
func (e *DiedError) Error() string { return fmt.Sprintf("nametag's own process has died (%v)", e.How) }

// Unwrap returns How.
func (e *DiedError) Unwrap() error { return e.How }

// goFault is the exit status of a Go program that its runtime has ended.
const goFault = 2

// leaveTime is how long a process may take to end that was asked to: it puts the links back.
const leaveTime = 40 * time.Second

// Work starts this program as name, with these arguments, and returns its exit status. It is asked to end when ctx does.
// The error is a [DiedError] where it did not end by itself; any other says that it has not begun.
func Work(ctx context.Context, name string, args []string) (status int, err error) {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Args[0] = name
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = leaveTime
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	err = cmd.Wait()
	if status = cmd.ProcessState.ExitCode(); status >= 0 && status != goFault {
		return status, nil
	}
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	return 0, &DiedError{How: err}
}
