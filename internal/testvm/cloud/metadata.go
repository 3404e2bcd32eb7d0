package cloud

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Request is one request that the metadata service got.
type Request struct {
	// At is when it came, on the schedule's clock.
	At time.Duration
	// NIC is the name of the NIC that it came through.
	NIC string
	// Source is the client.
	Source netip.AddrPort
	// Method, Host and Path are those of the request; the path with its query, as it was sent.
	Method, Host, Path string
	// Header is the request's.
	Header http.Header
}

// serve answers a request as the schedule says.
func (c *Cloud) serve(w http.ResponseWriter, r *http.Request) {
	rec := Request{Method: r.Method, Host: r.Host, Path: r.RequestURI, Header: r.Header.Clone()}
	rec.Source, _ = netip.ParseAddrPort(r.RemoteAddr)
	if conn := connOf(r); conn != nil {
		rec.NIC = conn.nic.desc.Name
		conn.pace.Store(0)
	}
	if !c.record(rec) {
		panic(http.ErrAbortHandler) // closed
	}
	defer c.handlers.Done()
	c.behaviour().around(http.HandlerFunc(c.right)).ServeHTTP(w, r)
}

// right gives the true answer.
func (c *Cloud) right(w http.ResponseWriter, r *http.Request) {
	if c.cfg.Documents != nil {
		c.cfg.Documents.ServeHTTP(w, r)
		return
	}
	c.server().ServeHTTP(w, r)
}

// server is the server as its metadata shows it now: what is not set is filled in, in accord with the NICs it has.
func (c *Cloud) server() Server {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cfg.Server.complete(c.nics)
}

// conn is a connection to the metadata service.
type conn struct {
	*gonet.TCPConn
	ep   tcpip.Endpoint
	nic  *nic
	pace atomic.Int64 // bytes a second for answers; 0: as fast as it goes
}

// reset ends the connection with a RST.
func (c *conn) reset() { c.ep.Abort() }

// pieces is how many writes a slow answer makes a second at most.
const pieces = 20

func (c *conn) Write(p []byte) (int, error) {
	pace := int(c.pace.Load())
	if pace <= 0 {
		return c.TCPConn.Write(p)
	}
	piece := max(1, pace/pieces)
	pause := time.NewTicker(time.Duration(piece) * time.Second / time.Duration(pace))
	defer pause.Stop()
	sent := 0
	for sent < len(p) {
		select {
		case <-pause.C:
		case <-c.nic.cloud.done:
			return sent, net.ErrClosed
		}
		n, err := c.TCPConn.Write(p[sent:min(sent+piece, len(p))])
		sent += n
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}

type connKey struct{}

// withConn puts the connection where handlers find it.
func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// connOf is the connection of a request, nil for one that came another way.
func connOf(r *http.Request) *conn {
	c, _ := r.Context().Value(connKey{}).(*conn)
	return c
}

// backlog is how many connections may wait to be accepted.
const backlog = 128

// listener accepts connections to the service on one NIC. It does what gonet's does and keeps the endpoint at hand,
// which gonet hides and a reset needs.
type listener struct {
	nic    *nic
	ep     tcpip.Endpoint
	wq     *waiter.Queue
	ready  chan struct{}
	entry  waiter.Entry
	closed atomic.Bool
	done   chan struct{}
}

func (n *nic) listen(proto tcpip.NetworkProtocolNumber, addr netip.Addr) (*listener, error) {
	l := &listener{nic: n, wq: new(waiter.Queue), done: make(chan struct{})}
	ep, terr := n.stack.NewEndpoint(tcp.ProtocolNumber, proto, l.wq)
	if terr != nil {
		return nil, stackError(terr)
	}
	l.ep = ep
	l.entry, l.ready = waiter.NewChannelEntry(waiter.ReadableEvents)
	l.wq.EventRegister(&l.entry)
	bind := tcpip.FullAddress{Addr: toAddress(addr), Port: 80}
	if proto == header.IPv6ProtocolNumber {
		bind.NIC = nicID // a link-local address needs its link
	}
	if terr := ep.Bind(bind); terr != nil {
		ep.Close()
		return nil, stackError(terr)
	}
	if terr := ep.Listen(backlog); terr != nil {
		ep.Close()
		return nil, stackError(terr)
	}
	return l, nil
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		ep, wq, err := l.ep.Accept(nil)
		if err == nil {
			return &conn{TCPConn: gonet.NewTCPConn(wq, ep), ep: ep, nic: l.nic}, nil
		}
		if _, wait := err.(*tcpip.ErrWouldBlock); !wait {
			return nil, stackError(err)
		}
		select {
		case <-l.ready:
		case <-l.done:
			return nil, net.ErrClosed
		}
	}
}

func (l *listener) Close() error {
	if l.closed.CompareAndSwap(false, true) {
		close(l.done)
		l.wq.EventUnregister(&l.entry)
		l.ep.Close()
	}
	return nil
}

func (l *listener) Addr() net.Addr { return &net.TCPAddr{IP: Service.AsSlice(), Port: 80} }
