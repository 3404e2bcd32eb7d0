//go:build linux

package earlynet

import (
	"context"
	"errors"
	"iter"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
)

// slowKernel is the kernel's socket for requests on a machine on which each takes the kernel a while. The while passes in
// the deadline alone: it comes nearer by it.
type slowKernel struct {
	*netlink.Conn
	takes time.Duration

	mu       sync.Mutex
	deadline time.Time
}

func (s *slowKernel) SetDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = t
	return nil
}

func (s *slowKernel) Send(m netlink.Message) error {
	_, err := s.Conn.Send(m)
	return err
}

func (s *slowKernel) SendMessages(all []netlink.Message) error {
	_, err := s.Conn.SendMessages(all)
	return err
}

func (s *slowKernel) Receive() ([]netlink.Message, error) {
	all, err := s.Conn.Receive()
	for i := range all {
		all[i].Header.Flags &^= netlink.Multi // all of them are here
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.deadline.IsZero() {
		if s.deadline = s.deadline.Add(-s.takes); time.Now().After(s.deadline) {
			return nil, os.ErrDeadlineExceeded
		}
	}
	return all, err
}

func (s *slowKernel) ReceiveIter() iter.Seq2[netlink.Message, error] {
	return func(yield func(netlink.Message, error) bool) {
		all, err := s.Receive()
		for _, m := range all {
			if !yield(m, nil) {
				return
			}
		}
		if err != nil {
			yield(netlink.Message{}, err)
		}
	}
}

// openSlow is Open over a kernel that takes so long for each request.
func openSlow(t *testing.T, cfg Config, takes time.Duration) *Network {
	t.Helper()
	cfg.Methods = []Method{LinkLocal}
	return openOver(context.Background(), t, cfg, func(kernel *netlink.Conn) rtnl {
		t.Cleanup(func() { kernel.Close() })
		return over(netlink.NewConn(&slowKernel{Conn: kernel, takes: takes}, kernel.PID()))
	})
}

// On a starved machine the kernel takes seconds for each thing that is to be taken back: what counts is that it goes on.
func TestASlowKernelTakesAllBack(t *testing.T) {
	serving(t)
	restored(t)
	n := openSlow(t, Config{}, undoTime*9/10)
	next(t, n)
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

// A kernel that is too slow even for that is asked for each thing all the same, and does it: the link is down, whatever Close
// says.
func TestWhatTheKernelIsAskedItDoesWhoeverWaits(t *testing.T) {
	serving(t)
	n := openSlow(t, Config{Alone: true}, 2*undoTime)
	next(t, n)
	err := n.Close()
	if _, undone := errors.AsType[*UndoError](err); !undone || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Close: %v", err)
	}
	if up(t) {
		t.Error("the link is up")
	}
}
