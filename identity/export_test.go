package identity

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity/dmi"
)

// FakeNet is a network without a kernel: paths and changes come when a test says.
type FakeNet struct {
	paths   chan *earlynet.Path
	changes chan struct{}
	OnClose func() // called first by Close
	Reports []error
	Broken  error // what Close returns
	Unkept  error // what Keep returns

	mu      sync.Mutex
	Kept    []string
	Config  earlynet.Config
	Opening context.Context // that it was opened with
	opened  int
	closed  int
	live    map[string]context.CancelFunc
}

func NewFakeNet() *FakeNet {
	return &FakeNet{paths: make(chan *earlynet.Path, 64), changes: make(chan struct{}, 1), live: make(map[string]context.CancelFunc)}
}

// Up adds a path: "eth0", earlynet.DHCP.
func (n *FakeNet) Up(ifname string, method earlynet.Method) {
	n.UpWith(ifname, method, func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("a scripted source does not dial")
	})
}

// UpWith adds a path that dials so.
func (n *FakeNet) UpWith(ifname string, method earlynet.Method, dial earlynet.DialFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	p := earlynet.NewPath(ctx, ifname, method, dial)
	n.mu.Lock()
	n.live[p.String()] = cancel
	n.mu.Unlock()
	n.paths <- p
}

// Hand adds a path that somebody else ends.
func (n *FakeNet) Hand(p *earlynet.Path) { n.paths <- p }

// Down ends a path.
func (n *FakeNet) Down(path string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.live[path]()
}

func (n *FakeNet) Change() {
	select {
	case n.changes <- struct{}{}:
	default:
	}
}

func (n *FakeNet) Paths() <-chan *earlynet.Path { return n.paths }
func (n *FakeNet) Changes() <-chan struct{}     { return n.changes }
func (n *FakeNet) Status() []error              { return n.Reports }

func (n *FakeNet) Keep(p *earlynet.Path) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.Kept = append(n.Kept, p.String())
	return n.Unkept
}

func (n *FakeNet) Close() error {
	if n.OnClose != nil {
		n.OnClose()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed++
	for _, cancel := range n.live {
		cancel()
	}
	return n.Broken
}

// A Tweak changes a resolver.
type Tweak = func(*Resolver)

// ResolveWith is Resolve of a resolver with this source and these changes.
func ResolveWith(ctx context.Context, src Source, tweaks ...Tweak) (*Identity, error) {
	r := Resolver{Source: src}
	for _, tweak := range tweaks {
		tweak(&r)
	}
	return r.Resolve(ctx)
}

// WithFacts sets the facts.
func WithFacts(f dmi.Facts) Tweak { return func(r *Resolver) { r.Facts = &f } }

// WithObserver sets OnEvent.
func WithObserver(fn func(Event)) Tweak { return func(r *Resolver) { r.OnEvent = fn } }

// Backoff is the back-off of a path.
type Backoff = backoff

// Over makes Resolve use n.
func Over(n *FakeNet) Tweak {
	return func(c *Resolver) {
		c.open = func(ctx context.Context, cfg earlynet.Config) (network, error) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.opened++
			n.Config, n.Opening = cfg, ctx
			return n, nil
		}
	}
}

// WithBackoff sets the back-off of each path, and where its random numbers come from.
func WithBackoff(b Backoff) Tweak { return func(c *Resolver) { c.backoff = b } }

// ClosedOnce checks that the network was closed as often as it was opened.
func (n *FakeNet) ClosedOnce(t *testing.T) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed != n.opened {
		t.Errorf("network opened %d times, closed %d times", n.opened, n.closed)
	}
}

// Opened is how often the network was opened.
func (n *FakeNet) Opened() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.opened
}

// OverBroken makes the network fail to open.
func OverBroken(err error) Tweak {
	return func(c *Resolver) {
		c.open = func(context.Context, earlynet.Config) (network, error) { return nil, err }
	}
}

// OverReluctant makes Resolve use n once the network has failed to open with each of the errors.
func OverReluctant(n *FakeNet, refusals ...error) Tweak {
	return func(c *Resolver) {
		Over(n)(c)
		open := c.open
		c.open = func(ctx context.Context, cfg earlynet.Config) (network, error) {
			if len(refusals) == 0 {
				return open(ctx, cfg)
			}
			err := refusals[0]
			refusals = refusals[1:]
			return nil, err
		}
	}
}
