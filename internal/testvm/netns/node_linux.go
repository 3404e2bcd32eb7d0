package netns

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// Options say what a node is like.
type Options struct {
	// Hostname, when set, gives the node a UTS namespace of its own with this name, as the kernel has it before
	// anybody sets one: "(none)" is what an initramfs finds.
	Hostname string
}

// Node is a network namespace with loopback up and a /sys to match, apart from this process: commands are started in it,
// and NICs are plugged into it. Its methods may be called from several goroutines.
type Node struct {
	calls chan func()
	done  chan struct{}

	mu       sync.Mutex
	cleanups []func() error
	closed   bool
}

// ErrClosed is what a node's methods return after Close.
var ErrClosed = errors.New("netns: the node is closed")

// New makes a node. Close it. It needs rights that [Enter] sees to; without them the error is an *[Unavailable].
func New(o Options) (*Node, error) {
	n := &Node{calls: make(chan func()), done: make(chan struct{})}
	ready := make(chan error)
	go n.run(o, ready)
	if err := <-ready; err != nil {
		return nil, err
	}
	return n, nil
}

// run is the thread that lives in the node. Processes that it starts inherit its namespaces. It is never unlocked, so
// the runtime ends it with the goroutine and no other goroutine ever runs on it.
func (n *Node) run(o Options, ready chan<- error) {
	runtime.LockOSThread()
	defer close(n.done)
	if err := birth(o); err != nil {
		ready <- err
		return
	}
	ready <- nil
	for f := range n.calls {
		f()
	}
}

func birth(o Options) error {
	flags := unix.CLONE_NEWNET | unix.CLONE_NEWNS
	if o.Hostname != "" {
		flags |= unix.CLONE_NEWUTS
	}
	if err := unix.Unshare(flags); err != nil {
		return unavailable(fmt.Errorf("unshare: %w", err))
	}
	if o.Hostname != "" {
		if err := unix.Sethostname([]byte(o.Hostname)); err != nil {
			return fmt.Errorf("netns: set the hostname: %w", err)
		}
	}
	if err := privateSys(); err != nil {
		return fmt.Errorf("netns: %w", err)
	}
	return loopbackUp()
}

// Do runs f on the node's thread and returns what it returns. What f opens, and the processes that it starts, belong to
// the node; goroutines that it starts do not. Calls run one after the other.
func (n *Node) Do(f func() error) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.do(f)
}

// do is Do with the lock held.
func (n *Node) do(f func() error) error {
	if n.closed {
		return ErrClosed
	}
	result := make(chan error, 1)
	n.calls <- func() { result <- f() }
	return <-result
}

// Start starts cmd in the node. Wait for it as usual.
//
// Its parent-death signal, when set, is tied to the node: it comes at [Node.Close] at the latest.
func (n *Node) Start(cmd *exec.Cmd) error { return n.Do(cmd.Start) }

// Run starts cmd in the node and waits until it ends.
func (n *Node) Run(cmd *exec.Cmd) error {
	if err := n.Start(cmd); err != nil {
		return err
	}
	return cmd.Wait()
}

// Plug is the package's [Plug], in the node. Close removes what is still plugged.
func (n *Node) Plug(ifname string, opts ...PlugOption) (*Cable, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var port *Cable
	err := n.do(func() error {
		var (
			cleanup func() error
			err     error
		)
		if port, cleanup, err = Plug(ifname, opts...); err == nil {
			n.cleanups = append(n.cleanups, cleanup)
		}
		return err
	})
	return port, err
}

// Snap is the package's [Snap] of the node's network; goroutines and descriptors are this process's.
func (n *Node) Snap() (s Snapshot, err error) {
	err = n.Do(func() error {
		s, err = Snap()
		return err
	})
	return s, err
}

// Close removes the NICs and gives up the namespaces, which live on as long as a process in them does. It may be called
// more than once.
func (n *Node) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil
	}
	n.closed = true
	close(n.calls)
	<-n.done
	var errs []error
	for _, cleanup := range n.cleanups {
		errs = append(errs, cleanup())
	}
	return errors.Join(errs...)
}
