//go:build linux

package earlynet

import (
	"net/netip"
	"testing"
)

func TestLinkLocal(t *testing.T) {
	t.Run("a NIC that is down becomes a path that reaches the service, and nothing is left", func(t *testing.T) {
		serving(t)
		p := next(t, traceless(t, LinkLocal))
		reaches(t, p)
		if !netip.MustParsePrefix("169.254.0.0/16").Contains(p.Source) {
			t.Errorf("the path says %v", p.Source)
		}
	})
}
