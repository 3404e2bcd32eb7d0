//go:build linux

package earlynet

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

// offered is a lease of an address by a gateway, from a server.
func offered(address, gateway, server string) *lease {
	return &lease{
		prefix: netip.PrefixFrom(netip.MustParseAddr(address), 32), server: netip.MustParseAddr(server), life: time.Hour,
		routes: []leaseRoute{{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr(gateway)}},
	}
}

func TestCandidates(t *testing.T) {
	heard := func(cs *candidates, l *lease, sender byte) *candidate {
		c, _ := cs.hear(l, l.yields([]netip.Addr{metadata}), [6]byte{sender})
		return c
	}
	empty := func() *candidates { return &candidates{rand: rand.New(rand.NewPCG(1, 1))} }

	t.Run("two servers that give the same are one, and what a server gives besides is another", func(t *testing.T) {
		cs := empty()
		a := heard(cs, offered("10.0.0.9", "10.0.0.1", "10.0.0.1"), 1)
		if b := heard(cs, offered("10.0.0.9", "10.0.0.1", "10.0.0.2"), 2); a != b || len(a.offers) != 2 {
			t.Errorf("%+v and %+v", a, b)
		}
		for _, l := range []*lease{offered("10.0.0.8", "10.0.0.1", "10.0.0.1"), offered("10.0.0.9", "10.0.0.3", "10.0.0.1")} {
			if b := heard(cs, l, 1); a == b {
				t.Errorf("%+v is taken for the same", l)
			}
		}
	})
	t.Run("who has led nowhere comes last, and what else he offers after what others do", func(t *testing.T) {
		cs := empty()
		bad := heard(cs, offered("10.0.0.7", "10.0.0.7", "10.0.0.7"), 7)
		too := heard(cs, offered("10.0.0.8", "10.0.0.7", "10.0.0.7"), 7)
		if best := cs.best(); best[0] != bad {
			t.Errorf("the first is not the one that was heard first: %+v", best)
		}
		cs.failed(bad, &bad.fruitless)
		good := heard(cs, offered("10.0.0.9", "10.0.0.1", "10.0.0.1"), 1)
		if best := cs.best(); len(best) != 1 || best[0] != good {
			t.Errorf("the best are %+v", best)
		}
		cs.failed(good, &good.unanswered)
		if best := cs.best(); len(best) != 1 || best[0] != too || cs.better(too) || !cs.better(good) {
			t.Errorf("the best are %+v", best)
		}
	})
	t.Run("a flood of a sender's pushes out his own, and neither the other's nor the one in use", func(t *testing.T) {
		cs := empty()
		cs.held = heard(cs, offered("10.0.0.7", "10.0.0.7", "10.0.0.7"), 7)
		cs.held.fruitless = 3
		good := heard(cs, offered("10.0.0.9", "10.0.0.1", "10.0.0.1"), 1)
		for i := range 1000 {
			heard(cs, offered(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}).String(), "10.0.0.7", "10.0.0.7"), 7)
		}
		if len(cs.all) != maxCandidates || cs.find(good.yield) != good || cs.find(cs.held.yield) != cs.held {
			t.Errorf("of %d candidates, these are left: %+v", maxCandidates, cs.all)
		}
	})
	t.Run("who makes up something new each time has every other turn at most, and not the first", func(t *testing.T) {
		cs := empty()
		var good *candidate
		turns := 0
		for round := range 40 {
			cs.asked++
			for i := range 8 {
				heard(cs, offered(netip.AddrFrom4([4]byte{10, 1, byte(round), byte(i)}).String(), "10.0.0.7", "10.0.0.7"), 7)
			}
			good = heard(cs, offered("10.0.0.9", "10.0.0.1", "10.0.0.1"), 1)
			next := cs.best()[0]
			if round == 1 && next != good {
				t.Errorf("after one that was of no use, another of the same sender's is next: %+v", next)
			}
			if next == good {
				turns++
			}
			cs.held, cs.last = next, next
			cs.turn++
			cs.failed(next, &next.fruitless) // the service itself is out of order
		}
		if turns < 19 {
			t.Errorf("of 40 turns the honest server has had %d", turns)
		}
	})
	t.Run("a flood of servers of one candidate is bounded too", func(t *testing.T) {
		cs := empty()
		for i := range 100 {
			heard(cs, offered("10.0.0.9", "10.0.0.1", netip.AddrFrom4([4]byte{10, 1, 0, byte(1 + i)}).String()), byte(i))
		}
		if len(cs.all) != 1 || len(cs.all[0].offers) != maxServers {
			t.Errorf("%+v", cs.all)
		}
	})
}
