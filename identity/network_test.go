package identity

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"

	"github.com/nametag-boot/nametag/earlynet"
)

// fakeNet is a network without a kernel: paths and changes come when a test says.
type fakeNet struct {
	paths   chan *earlynet.Path
	changes chan struct{}
	status  []error
	undo    error // what Close returns

	mu     sync.Mutex
	kept   []string
	cfg    earlynet.Config
	opened int
	closed int
	live   map[string]context.CancelFunc
}

func newFakeNet() *fakeNet {
	return &fakeNet{paths: make(chan *earlynet.Path, 64), changes: make(chan struct{}, 1), live: make(map[string]context.CancelFunc)}
}

// up adds a path: "eth0", earlynet.DHCP.
func (n *fakeNet) up(ifname string, method earlynet.Method) {
	ctx, cancel := context.WithCancel(context.Background())
	p := earlynet.NewPath(ctx, ifname, method, func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("a scripted source does not dial")
	})
	n.mu.Lock()
	n.live[p.String()] = cancel
	n.mu.Unlock()
	n.paths <- p
}

// down ends a path.
func (n *fakeNet) down(path string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.live[path]()
}

func (n *fakeNet) change() {
	select {
	case n.changes <- struct{}{}:
	default:
	}
}

func (n *fakeNet) Paths() <-chan *earlynet.Path { return n.paths }
func (n *fakeNet) Changes() <-chan struct{}     { return n.changes }
func (n *fakeNet) Status() []error              { return n.status }

func (n *fakeNet) Keep(p *earlynet.Path) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.kept = append(n.kept, p.String())
	return nil
}

func (n *fakeNet) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed++
	for _, cancel := range n.live {
		cancel()
	}
	return n.undo
}

// over makes Resolve use n.
func over(n *fakeNet) Option {
	return func(c *config) {
		c.open = func(_ context.Context, cfg earlynet.Config) (network, error) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.opened++
			n.cfg = cfg
			return n, nil
		}
	}
}

// closedOnce checks that the network was closed as often as it was opened.
func (n *fakeNet) closedOnce(t *testing.T) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed != n.opened {
		t.Errorf("network opened %d times, closed %d times", n.opened, n.closed)
	}
}
