package hetzner

import (
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

// panickyConn panics when it is read.
type panickyConn struct{ cannedConn }

func (*panickyConn) Read([]byte) (int, error) { panic("read") }

func TestAPanicBelowAnAttemptIsAnError(t *testing.T) {
	for about, dial := range map[string]func(context.Context, string, string) (net.Conn, error){
		"in dialling": func(context.Context, string, string) (net.Conn, error) { panic("dial") },
		"in reading":  func(context.Context, string, string) (net.Conn, error) { return &panickyConn{}, nil },
	} {
		t.Run(about, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			r := identity.Resolver{Source: panicking{Source(), dial}, Host: true, Facts: &dmi.Facts{Vendor: Vendor, Serial: "42"}}
			r.OnEvent = func(e identity.Event) {
				if e.Kind == identity.EventFailed {
					cancel()
				}
			}
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
