//go:build linux

package earlynet

import (
	"context"
	"strings"
	"testing"
)

func TestALinkThatSomebodyStandsOnIsLeftUp(t *testing.T) {
	for _, tc := range []struct{ name, set, del, why string }{
		{"a bridge that has taken it as a port", "ip link add br0 type bridge; ip link set br0 up; ip link set eth0 master br0", "br0", "a port of br0"},
		{"a macvlan on it", "ip link add link eth0 name mv0 type macvlan; ip link set mv0 up", "mv0", "mv0 is on it"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			plug(t)
			var r recorder
			n := open(context.Background(), t, Config{Methods: []Method{LinkLocal}, Observer: r.observe})
			next(t, n)
			run(t, tc.set)
			t.Cleanup(func() { run(t, "ip link del "+tc.del) })
			if err := n.Close(); err != nil {
				t.Error(err)
			}
			if l := run(t, "ip -o link show eth0"); !strings.Contains(l, ",UP") {
				t.Errorf("link: %s", l)
			}
			if !r.saw(LinkLeftUp, tc.why) {
				t.Error("nobody was told why")
			}
		})
	}
	t.Run("but not one that a macvlan stood on before", func(t *testing.T) {
		plug(t)
		run(t, "ip link add link eth0 name mv0 type macvlan")
		t.Cleanup(func() { run(t, "ip link del mv0") })
		restored(t)
		next(t, open(context.Background(), t, Config{Methods: []Method{LinkLocal}}))
	})
	t.Run("but not one that was a port that was a port before, of a bridge that is down", func(t *testing.T) {
		plug(t)
		run(t, "ip link add br0 type bridge; ip link set eth0 master br0")
		t.Cleanup(func() { run(t, "ip link del br0") })
		restored(t)
		next(t, open(context.Background(), t, Config{Methods: []Method{LinkLocal}}))
	})
}
