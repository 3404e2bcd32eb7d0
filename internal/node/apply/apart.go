//go:build linux

package apply

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/nametag-boot/nametag/internal/node/kmsg"
	"github.com/nametag-boot/nametag/internal/node/wait"
	"github.com/nametag-boot/nametag/internal/safely"
	"github.com/nametag-boot/nametag/procfs"
)

// Apart does what [Config.Do] does by a process of its own, which work starts and waits for. A panic is an error to a program;
// the kernel's want of memory, or a fault of Go's runtime, ends its process, and may do so at every boot. Where work returns a
// [DiedError], a node that knows its name goes on under it, as in an outage of the service. Any other has work begin again,
// until the policy's time is up. So has one with rename=stop: the process may have heard of a rename, with which the known
// name does not count any more.
func (c Config) Apart(ctx context.Context, work func(context.Context, Order) error) error {
	why, _ := c.nothingToDo() // what cannot be read is told by whoever asks
	if _, recorded := c.recorded(); recorded || why != "" {
		return c.Do(ctx) // nobody is asked: here it is only looked whether it takes a process, what counts is what Do reads
	}
	policy, began := c.Line.Policy, time.Now()
	inTime, cancel := policy.WithDeadline(ctx, began)
	defer cancel()
	atMost := policy
	if policy.Then == procfs.Halt { // with which it stays, and says why
		atMost.Mode = procfs.Forever
	}
	working, cancel := atMost.WithDeadline(ctx, began.Add(overtime))
	defer cancel()
	var o Order
	for pause := again; ; pause = min(2*pause, maxPause) {
		o.Elapsed = time.Since(began)
		err := work(working, o)
		var died *DiedError
		switch {
		case err == nil || ctx.Err() != nil:
			return err
		case working.Err() != nil:
			err = &DiedError{How: errors.New("it did not come to an end")}
		case !errors.As(err, &died):
			return err
		}
		c.Reporter.Say(Line{Level: kmsg.Error, Event: "failed", Err: err, Text: err.Error()})
		o.Spoken = policy.Rename == procfs.RenameStop
		_, counts := policy.KnownAfter()
		known := counts && !o.Spoken && c.recall().For(c.Instance).Known()
		if _, recorded := c.recorded(); recorded || known {
			c.Find = nil
			return c.Do(ctx)
		}
		if !wait.Sleep(inTime, pause) {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return c.ending(ctx, err)
		}
	}
}

// An Order is what the process of [Config.Apart] is told.
type Order struct {
	Elapsed time.Duration // since the wait for a name began
	Spoken  bool          // see Config
}

// By returns c as it is by the order.
func (c Config) By(o Order) Config {
	c.Began, c.Spoken = time.Now().Add(-o.Elapsed), o.Spoken
	return c
}

const (
	// maxPause is how long it is waited at most before a process is started again that has died.
	maxPause = 10 * time.Second
	// overtime is how long a process may take beyond the policy's time: it puts the links back, and tells what comes.
	overtime = 2 * time.Minute
)

// A DiedError says that a process of ours came to an end that it has not chosen.
type DiedError struct{ How error }

// Error is one line.
func (e *DiedError) Error() string { return fmt.Sprintf("nametag's own process has died (%v)", e.How) }

// Unwrap returns How.
func (e *DiedError) Unwrap() error { return e.How }

const (
	// goFault is the exit status of a Go program that its runtime has ended.
	goFault = 2
	// leaveTime is how long a process may take to end that was asked to: it puts the links back. Then it is killed.
	leaveTime = 80 * time.Second
	// killTime is how long that may take. What hangs in the kernel does not end.
	killTime = 2 * time.Second
)

// Work starts this program as name, with these arguments, and returns its exit status. The program calls [Working], and is told
// the order as JSON on its standard input, which ends when who started it does. It is asked to end when ctx does. The error is
// a [DiedError] where it did not end by itself, and that of ctx where this is why; any other says that it has not begun.
func Work(ctx context.Context, name string, args []string, o Order) (status int, err error) {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Args[0] = name
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = leaveTime
	orders, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	_ = json.NewEncoder(orders).Encode(o) // where it has ended by now, that counts
	ended := make(chan error, 1)
	safely.Go("waiting for the process that asks", func() { ended <- cmd.Wait() }, func(err error) { ended <- err })
	select {
	case err = <-ended:
	case <-ctx.Done():
		var came bool
		if err, came = wait.For(ended, leaveTime+killTime); !came {
			return 0, context.Cause(ctx)
		}
	}
	if status = cmd.ProcessState.ExitCode(); status >= 0 && status != goFault {
		return status, nil
	}
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	return 0, &DiedError{How: err}
}

// Working is for the process that [Work] has started. It returns its order, and a context that also ends when who started it
// has: nobody is to hold the links, or to carry a policy out, for a boot that has gone on without.
func Working(ctx context.Context) (working context.Context, stop context.CancelFunc, o Order, err error) {
	if err := json.NewDecoder(os.Stdin).Decode(&o); err != nil {
		return nil, nil, o, fmt.Errorf("this process was not started by nametag: %w", err)
	}
	working, stop = context.WithCancel(ctx)
	safely.Go("waiting for the end of who started this", func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}, func(error) { stop() })
	return working, stop, o, nil
}
