//go:build linux

package earlynet

import (
	"context"
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

// On a busy machine the kernel takes seconds for all that is to be taken back: what counts is that it goes on.
func TestASlowKernelTakesAllBack(t *testing.T) {
	c := plug(t)
	c.serve()
	restored(t)
	n := openOver(context.Background(), t, Config{Methods: []Method{LinkLocal}}, func(kernel *netlink.Conn) rtnl {
		t.Cleanup(func() { kernel.Close() })
		return rtnl{netlink.NewConn(&slowKernel{Conn: kernel, takes: undoTime / 8}, kernel.PID())}
	})
	next(t, n)
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}
