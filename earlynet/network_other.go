//go:build !linux

package earlynet

import (
	"context"
	"errors"
	"time"

	"github.com/nametag-boot/nametag/internal/safely"
)

// A Network is one that somebody else configured: see [Host]. Links are brought up
// on Linux only. Its methods are safe for concurrent use.
type Network struct {
	paths   chan *Path
	changes chan struct{}
	host    *Path
	cancel  context.CancelFunc
	ended   chan struct{} // closed when paths is
}

// An attempt is what a path stands on. Here that is never ours.
type attempt struct{}

// Open fails, with an [*Error] that is [errors.ErrUnsupported]: links are brought up
// on Linux only. [Host] works here too.
func Open(context.Context, Config) (*Network, error) {
	return nil, &Error{Op: "bring up a link", Err: needsLinux{}}
}

// Repair fails as [Open] does.
func Repair(context.Context, Config) error {
	return &Error{Op: "repair a link", Err: needsLinux{}}
}

// needsLinux is why this system cannot do what was asked for.
type needsLinux struct{}

func (needsLinux) Error() string { return "this needs Linux" }

func (needsLinux) Is(target error) bool { return target == errors.ErrUnsupported }

// Host returns a network that somebody else configured: one path over it, with
// an ordinary dialer. It changes nothing and needs no privilege. Of cfg only
// Observer is used.
func Host(ctx context.Context, cfg Config) (*Network, error) {
	ctx, cancel := context.WithCancel(ctx)
	n := &Network{
		paths: make(chan *Path), changes: make(chan struct{}),
		host: &Path{Method: HostNetwork}, cancel: cancel, ended: make(chan struct{}),
	}
	n.host.init(context.Background(), hostDialer())
	if cfg.Observer != nil {
		e := Event{Method: HostNetwork, Kind: PathReady, Time: time.Now()}
		_ = safely.Do("the observer", func() error { cfg.Observer(e); return nil })
	}
	safely.Go("offering the path", func() {
		defer close(n.ended)
		defer close(n.paths)
		select {
		case n.paths <- n.host:
			<-ctx.Done()
		case <-ctx.Done():
		}
	}, func(error) {})
	return n, nil
}

// Paths delivers the path once. It is closed when the context ends or the network is
// closed.
func (n *Network) Paths() <-chan *Path { return n.paths }

// Changes delivers nothing: the system does not tell. It is never closed.
func (n *Network) Changes() <-chan struct{} { return n.changes }

// Status returns nothing: there is one path, and it is there.
func (n *Network) Status() []error { return nil }

// Keep does nothing: nothing that the path stands on is ours.
func (n *Network) Keep(*Path) error { return nil }

// Close closes every connection over the network's path.
func (n *Network) Close() error {
	n.cancel()
	n.host.end(&Error{Op: "closed"})
	<-n.ended
	return nil
}
