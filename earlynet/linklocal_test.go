package earlynet

import (
	"context"
	"net/netip"
	"testing"
)

func TestLinkLocal(t *testing.T) {
	ctx := context.Background()
	t.Run("a NIC that is down becomes a path that reaches the service, and nothing is left", func(t *testing.T) {
		c := plug(t)
		c.serve()
		restored(t)
		n := open(ctx, t, Config{Methods: []Method{LinkLocal}})
		p := next(t, n)
		got, err := ask(ctx, p)
		if err != nil {
			t.Fatal(err)
		}
		if got != p.Source.String() || !netip.MustParsePrefix("169.254.0.0/16").Contains(p.Source) {
			t.Errorf("the service saw %s, the path says %v", got, p.Source)
		}
	})
}
