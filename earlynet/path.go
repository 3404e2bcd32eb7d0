package earlynet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
)

// A Path is one way to reach the destinations: an interface, a source address
// and a dialer that uses nothing else. It is safe for concurrent use.
type Path struct {
	Interface string     // the NIC's name when the path was made; empty for [Host]
	Index     int        // the NIC's index; 0 for [Host]
	Source    netip.Addr // the local address; with its zone for [IPv6]; zero for [Host]
	Method    Method
	Gateway   netip.Addr // the router of the first destination; zero where it is on the link

	dial   DialFunc
	ctx    context.Context // ends with the path
	cancel context.CancelCauseFunc

	dialled, answered atomic.Bool // ever, and ever with success

	// mu guards the connections, each of which is ended by whoever dialled it, in a goroutine of his, or with the path.
	mu    sync.Mutex
	conns map[*pathConn]struct{} // nil: the path has ended

	attempt *attempt // what the path stands on; nil for Host and NewPath
}

// A DialFunc opens a connection, as (*net.Dialer).DialContext does.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// NewPath returns a path over any dialer; nil: one like (*net.Dialer).DialContext. It is
// meant for tests and for sources of one's own. The path lasts until ctx ends.
func NewPath(ctx context.Context, ifname string, method Method, dial DialFunc) *Path {
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	p := &Path{Interface: ifname, Method: method}
	p.init(ctx, dial)
	context.AfterFunc(p.ctx, func() { p.end(context.Cause(p.ctx)) })
	return p
}

// init makes a path usable; its identity must have been set.
func (p *Path) init(ctx context.Context, dial DialFunc) {
	p.dial = dial
	p.ctx, p.cancel = context.WithCancelCause(ctx)
	p.conns = make(map[*pathConn]struct{})
}

// String returns the interface and the method: "eth0/linklocal".
func (p *Path) String() string {
	if p.Interface == "" {
		return p.Method.String()
	}
	return p.Interface + "/" + p.Method.String()
}

// Done is closed when the link or the address below the path is gone, or its
// network is closed. Connections over the path are closed then.
func (p *Path) Done() <-chan struct{} { return p.ctx.Done() }

// Err returns nil while the path lasts, and then an error that wraps
// [ErrPathDone] and says why it ended.
func (p *Path) Err() error {
	if p.ctx.Err() == nil {
		return nil
	}
	if err := context.Cause(p.ctx); !errors.Is(err, ErrPathDone) {
		return fmt.Errorf("%w: %w", ErrPathDone, err)
	}
	return context.Cause(p.ctx)
}

// DialContext connects to a literal address over this path: through its
// interface, from its source address, whatever the routes of other interfaces
// say. A path of [Host] dials as any program does, names too; for others a name
// is an [ErrName]. The connection is closed when the path ends. Who is done with it, and with
// the path soon after, ends it by [Reset].
func (p *Path) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)()

	p.dialled.Store(true)
	conn, err := p.dial(ctx, network, address)
	if err == nil || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) {
		p.answered.Store(true)
	}
	if done := p.Err(); done != nil {
		if err == nil {
			Reset(conn)
		}
		return nil, &net.OpError{Op: "dial", Net: network, Err: done}
	}
	if err != nil {
		return nil, err
	}
	return p.track(conn)
}

// track notes a connection, to be closed with the path.
func (p *Path) track(conn net.Conn) (net.Conn, error) {
	c := &pathConn{Conn: conn, path: p}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns == nil {
		Reset(conn)
		return nil, p.Err()
	}
	p.conns[c] = struct{}{}
	return c, nil
}

// end closes Done and every connection. Only the first cause counts.
func (p *Path) end(cause error) {
	p.cancel(cause)
	p.mu.Lock()
	conns := p.conns
	p.conns = nil
	p.mu.Unlock()
	for c := range conns {
		Reset(c.Conn)
	}
}

// busy reports whether a connection over the path is open.
func (p *Path) busy() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns) > 0
}

// Reset closes a connection at once. A TCP connection is reset: with its
// address about to go, the kernel would try for minutes to end it politely,
// and the server would wait as long.
func Reset(conn net.Conn) {
	if tcp, ok := conn.(interface{ SetLinger(seconds int) error }); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// A pathConn forgets itself when it is closed.
type pathConn struct {
	net.Conn
	path *Path
}

// SetLinger is that of [net.TCPConn], for [Reset]. Other connections have nothing to linger for.
func (c *pathConn) SetLinger(seconds int) error {
	if tcp, ok := c.Conn.(interface{ SetLinger(int) error }); ok {
		return tcp.SetLinger(seconds)
	}
	return nil
}

func (c *pathConn) Close() error {
	c.path.mu.Lock()
	delete(c.path.conns, c)
	c.path.mu.Unlock()
	return c.Conn.Close()
}
