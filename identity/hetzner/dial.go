package hetzner

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
)

// The kernel repeats a lost SYN, or the ARP request before it, after a second,
// and no socket option makes it faster. So a further connection is begun while
// the first is silent, after delays that double; from the third on the oldest
// makes room. One that needs longer than its time, on a link with a round trip
// of a second, has it when the delays have grown.
const (
	maxDials  = 2
	firstDial = 75 * time.Millisecond
	lastDial  = 1200 * time.Millisecond
)

// A dialled connection, or why there is none.
type dialled struct {
	cancel context.CancelFunc
	conn   net.Conn
	err    error
	old    bool // made room
}

// connect returns the first connection that comes about, or the first refusal.
// Its goroutines have ended when it returns.
func (g *guard) connect(ctx context.Context, req *http.Request) (net.Conn, error) {
	host, port := req.URL.Hostname(), req.URL.Port()
	if _, err := netip.ParseAddr(host); err != nil || req.URL.Scheme != "http" {
		return nil, fmt.Errorf("%.80q is no http URL with an IP address: names are not resolved here", req.URL.Redacted())
	}
	if port == "" {
		port = "80"
	}
	address := net.JoinHostPort(host, port)

	var open []*dialled
	results := make(chan *dialled)
	begin := func() {
		d := new(dialled)
		var dctx context.Context
		dctx, d.cancel = context.WithCancel(ctx)
		open = append(open, d)
		go func() {
			d.conn, d.err = g.dial(dctx, "tcp", address)
			results <- d
		}()
	}
	defer func() {
		for _, d := range open {
			d.cancel()
		}
		for range open {
			if d := <-results; d.conn != nil {
				earlynet.Reset(d.conn)
			}
		}
	}()

	delay := firstDial
	timer := time.NewTimer(delay)
	defer timer.Stop()
	begin()
	for {
		select {
		case d := <-results:
			d.cancel()
			open = slices.DeleteFunc(open, func(o *dialled) bool { return o == d })
			if d.conn != nil || !d.old {
				return d.conn, d.err
			}
		case <-timer.C:
			if len(open) >= maxDials {
				open[0].old = true
				open[0].cancel()
			}
			if len(open) <= maxDials { // one that does not heed its context counts on
				begin()
			}
			delay = min(2*delay, lastDial)
			timer.Reset(delay)
		}
	}
}
