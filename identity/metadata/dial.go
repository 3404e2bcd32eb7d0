package metadata

import (
	"context"
	"net"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/internal/safely"
)

// hedgeDial is how long a connection may be silent before a second one is begun beside it. The kernel repeats a lost SYN,
// or the ARP request before it, after a second, and no socket option makes it faster. There are two connections an attempt
// and no more: where two get no answer the service is away, or thousands ask at once, and Resolve's next attempt is there
// soon enough.
const (
	hedgeDial = 75 * time.Millisecond
	maxDials  = 2
)

// An outcome is a connection, or why there is none.
type outcome struct {
	conn net.Conn
	err  error
}

// connect returns the first connection that comes about, or the first refusal. Its goroutines have ended when it returns.
func (c *Client) connect(ctx context.Context, address string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	results := make(chan outcome)
	open := 0
	begin := func() {
		open++
		safely.Go("dialling", func() {
			conn, err := c.Dial(ctx, "tcp", address)
			results <- outcome{conn, err}
		}, func(err error) { results <- outcome{nil, err} })
	}
	defer func() {
		cancel()
		for ; open > 0; open-- {
			if d := <-results; d.conn != nil {
				earlynet.Reset(d.conn)
			}
		}
	}()

	hedge := time.NewTimer(hedgeDial)
	defer hedge.Stop()
	begin()
	for {
		select {
		case d := <-results:
			open--
			return d.conn, d.err
		case <-hedge.C:
			begin()
		}
	}
}
