package hetzner

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/dmi"
	"github.com/nametag-boot/nametag/internal/safely"
)

// TestConnect is about lost SYNs, in virtual time.
func TestConnect(t *testing.T) {
	type dialer = func(ctx context.Context, network, address string) (net.Conn, error)
	lost := func(ctx context.Context) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
	connect := func(t *testing.T, dial dialer) (net.Conn, time.Duration, error) {
		began := time.Now()
		c, err := newClient("http://169.254.169.254/x", dial)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := c.connect(t.Context())
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

// TestABlackHoleIsDialledTwiceAnAttempt: thousands may be doing the same.
func TestABlackHoleIsDialledTwiceAnAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dials atomic.Int32
		via := earlynet.NewPath(t.Context(), "eth0", earlynet.LinkLocal, func(ctx context.Context, _, _ string) (net.Conn, error) {
			dials.Add(1)
			<-ctx.Done()
			return nil, ctx.Err()
		})
		for range 10 {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			if _, err := Source().Fetch(ctx, via); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
			cancel()
		}
		if dials.Load() != 20 {
			t.Errorf("%d connections were begun in ten attempts, want 20", dials.Load())
		}
	})
}

func TestClosedClient(t *testing.T) {
	t.Run("an exchange that ends after Close leaves no connection", func(t *testing.T) {
		conn := &cannedConn{r: bytes.NewReader([]byte("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nmy-server"))}
		c, err := newClient("http://169.254.169.254/x", func(context.Context, string, string) (net.Conn, error) { return conn, nil })
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if body, _, err := c.get(t.Context(), "hostname"); string(body) != "my-server" || err != nil || !conn.closed.Load() {
			t.Errorf("got %q, %v, closed: %v", body, err, conn.closed.Load())
		}
	})
}

// panickyConn panics when it is read.
type panickyConn struct{ cannedConn }

func (*panickyConn) Read([]byte) (int, error) { panic("read") }

func TestAPanicBelowAnAttemptIsAnError(t *testing.T) {
	for about, dial := range map[string]func(context.Context, string, string) (net.Conn, error){
		"in dialling": func(context.Context, string, string) (net.Conn, error) { panic("dial") },
		"in reading":  func(context.Context, string, string) (net.Conn, error) { return &panickyConn{}, nil },
	} {
		t.Run(about, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			r := identity.Resolver{Source: panicking{Source(), dial}, Host: true, Facts: &dmi.Facts{Vendor: Vendor, Serial: "42"}}
			_, err := r.Resolve(ctx)
			if _, caught := errors.AsType[*safely.PanicError](err); !caught {
				t.Errorf("got %v", err)
			}
		})
	}
}

// panicking asks over a path that dials so.
type panicking struct {
	identity.Source
	dial func(context.Context, string, string) (net.Conn, error)
}

func (p panicking) Fetch(ctx context.Context, _ *earlynet.Path) (identity.Answer, error) {
	return p.Source.Fetch(ctx, earlynet.NewPath(ctx, "eth0", earlynet.LinkLocal, p.dial))
}
