package metadata

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestConnect is about lost SYNs, in virtual time.
func TestConnect(t *testing.T) {
	type dialer = func(ctx context.Context, network, address string) (net.Conn, error)
	lost := func(ctx context.Context) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
	connect := func(t *testing.T, dial dialer) (net.Conn, time.Duration, error) {
		began := time.Now()
		c := Client{Dial: dial}
		conn, err := c.connect(t.Context(), "169.254.169.254:80")
		return conn, time.Since(began), err
	}
	// scenario runs dial with the number of each connection that is begun.
	scenario := func(about string, dial func(ctx context.Context, n int32) (net.Conn, error), check func(t *testing.T, begun int32, took time.Duration, conn net.Conn, err error)) {
		t.Run(about, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var n, under, most atomic.Int32
				conn, took, err := connect(t, func(ctx context.Context, _, _ string) (net.Conn, error) {
					i := n.Add(1)
					most.Store(max(most.Load(), under.Add(1)))
					defer under.Add(-1)
					return dial(ctx, i)
				})
				if under.Load() != 0 {
					t.Errorf("%d dials are left", under.Load())
				}
				if most.Load() > maxDials {
					t.Errorf("%d dials at one time", most.Load())
				}
				check(t, n.Load(), took, conn, err)
				if conn != nil {
					conn.Close()
				}
			})
		})
	}
	pipe := func() net.Conn { c, _ := net.Pipe(); return c }

	scenario("a link that loses nothing is dialled once",
		func(context.Context, int32) (net.Conn, error) { time.Sleep(60 * time.Millisecond); return pipe(), nil },
		func(t *testing.T, n int32, took time.Duration, conn net.Conn, err error) {
			if n != 1 || took != 60*time.Millisecond || conn == nil || err != nil {
				t.Errorf("%d dials, %v, %v, %v", n, took, conn, err)
			}
		})
	scenario("a lost SYN costs 75 ms, not the kernel's second",
		func(ctx context.Context, n int32) (net.Conn, error) {
			if n == 1 {
				return lost(ctx)
			}
			return pipe(), nil
		},
		func(t *testing.T, n int32, took time.Duration, conn net.Conn, err error) {
			if n != 2 || took != 75*time.Millisecond || conn == nil || err != nil {
				t.Errorf("%d dials, %v, %v, %v", n, took, conn, err)
			}
		})
	scenario("a round trip of 2 s is survived",
		func(ctx context.Context, _ int32) (net.Conn, error) {
			select {
			case <-time.After(2 * time.Second):
				return pipe(), nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
		func(t *testing.T, n int32, took time.Duration, conn net.Conn, err error) {
			if conn == nil || took > 5*time.Second {
				t.Errorf("%d dials, %v, %v, %v", n, took, conn, err)
			}
		})
	refused := errors.New("refused")
	scenario("a refusal is told at once",
		func(context.Context, int32) (net.Conn, error) { return nil, refused },
		func(t *testing.T, n int32, took time.Duration, conn net.Conn, err error) {
			if n != 1 || took != 0 || !errors.Is(err, refused) || conn != nil {
				t.Errorf("%d dials, %v, %v, %v", n, took, conn, err)
			}
		})
	var late net.Conn
	scenario("two that come about at one moment leave one",
		func(_ context.Context, n int32) (net.Conn, error) {
			if n == 1 {
				time.Sleep(100 * time.Millisecond)
				return pipe(), nil
			}
			time.Sleep(25*time.Millisecond + time.Nanosecond)
			late = pipe()
			return late, nil
		},
		func(t *testing.T, _ int32, _ time.Duration, conn net.Conn, _ error) {
			if _, err := late.Write([]byte{0}); conn == late || err == nil {
				t.Errorf("the second is open still: %v", err)
			}
		})
}

func TestClosedClient(t *testing.T) {
	t.Run("an exchange that ends after Close leaves no connection", func(t *testing.T) {
		conn := &cannedConn{r: bytes.NewReader([]byte("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nmy-server"))}
		c := Client{Dial: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}
		c.Close()
		if body, err := c.Get(t.Context(), "http://169.254.169.254/hostname"); string(body) != "my-server" || err != nil || !conn.closed.Load() {
			t.Errorf("got %q, %v, closed: %v", body, err, conn.closed.Load())
		}
	})
}

// cannedConn gives bytes and swallows what it is told.
type cannedConn struct {
	r      *bytes.Reader
	closed atomic.Bool
}

func (c *cannedConn) Read(b []byte) (int, error)     { return c.r.Read(b) }
func (*cannedConn) Write(b []byte) (int, error)      { return len(b), nil }
func (c *cannedConn) Close() error                   { c.closed.Store(true); return nil }
func (*cannedConn) LocalAddr() net.Addr              { return nil }
func (*cannedConn) RemoteAddr() net.Addr             { return nil }
func (*cannedConn) SetDeadline(time.Time) error      { return nil }
func (*cannedConn) SetReadDeadline(time.Time) error  { return nil }
func (*cannedConn) SetWriteDeadline(time.Time) error { return nil }
