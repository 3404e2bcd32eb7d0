package earlynet

import (
	"cmp"
	"math/rand/v2"
	"net/netip"
	"slices"
)

const (
	maxCandidates = 16 // that are remembered
	maxServers    = 4  // of one candidate
	maxAsked      = 4  // candidates at one time
)

// A yield is what a lease is good for: where one leads that has it. It is what a
// candidate is judged by, not who gave it, for a server's identifier is what
// anybody on the link can write into a packet. Two servers that give the same,
// as those that stand in for each other do, are one candidate.
type yield struct{ source, gateway netip.Addr }

// yields returns what a lease is good for on the way to the first of the
// destinations that it can lead to.
func (l *lease) yields(destinations []netip.Addr) yield {
	y := yield{source: l.prefix.Addr()}
	for _, d := range destinations {
		if d.Is4() {
			y.gateway, _ = l.via(d)
			break
		}
	}
	return y
}

// A candidate is something that was offered, and what came of it.
type candidate struct {
	yield  yield
	offers []*lease // one of each server, the youngest first
	sender [6]byte  // the hardware address that it came from first

	fruitless  int // times that it was in use and led nowhere
	unanswered int // times that it was asked for in vain
}

func (c *candidate) trouble() int { return c.fruitless + c.unanswered }

// candidates are what the servers on a link have offered. There may be any number
// of servers, and of lies: the number of candidates is bounded.
type candidates struct {
	rand *rand.Rand
	all  []*candidate // in the order in which they were first heard of
	held *candidate   // in use: it is not forgotten
}

// hear takes an offer, and reports whether it is a new candidate.
func (cs *candidates) hear(l *lease, y yield, sender [6]byte) (c *candidate, news bool) {
	if c = cs.find(y); c == nil {
		if len(cs.all) == maxCandidates {
			cs.forget()
		}
		c = &candidate{yield: y, sender: sender}
		cs.all = append(cs.all, c)
		news = true
	}
	c.offers = slices.DeleteFunc(c.offers, func(o *lease) bool { return o.server == l.server })
	c.offers = slices.Insert(c.offers, 0, l)
	c.offers = c.offers[:min(len(c.offers), maxServers)]
	return c, news
}

func (cs *candidates) find(y yield) *candidate {
	for _, c := range cs.all {
		if c.yield == y {
			return c
		}
	}
	return nil
}

// forget makes room: of those with the most trouble, one of the sender that has
// offered the most. So who makes up offers without end pushes out his own.
func (cs *candidates) forget() {
	of := make(map[[6]byte]int)
	for _, c := range cs.all {
		of[c.sender]++
	}
	var worst []*candidate
	compare := func(a, b *candidate) int {
		return cmp.Or(cmp.Compare(a.trouble(), b.trouble()), cmp.Compare(of[a.sender], of[b.sender]))
	}
	for _, c := range cs.all {
		switch {
		case c == cs.held:
		case len(worst) == 0 || compare(c, worst[0]) == 0:
			worst = append(worst, c)
		case compare(c, worst[0]) > 0:
			worst = append(worst[:0], c)
		}
	}
	out := worst[cs.rand.IntN(len(worst))]
	cs.all = slices.DeleteFunc(cs.all, func(c *candidate) bool { return c == out })
}

// best returns the candidates to try next, all of them as good as each other: those
// with the least trouble, of the senders that have made the least; at most maxAsked.
// They come in the order in which they were first heard of.
func (cs *candidates) best() []*candidate {
	by := make(map[[6]byte]int)
	for _, c := range cs.all {
		by[c.sender] += c.trouble()
	}
	var best []*candidate
	compare := func(a, b *candidate) int {
		return cmp.Or(cmp.Compare(a.trouble(), b.trouble()), cmp.Compare(by[a.sender], by[b.sender]))
	}
	for _, c := range cs.all {
		switch {
		case len(best) == 0 || compare(c, best[0]) == 0:
			best = append(best, c)
		case compare(c, best[0]) < 0:
			best = append(best[:0], c)
		}
	}
	return best[:min(len(best), maxAsked)]
}

// better reports whether there is a candidate that has made less trouble than c.
func (cs *candidates) better(c *candidate) bool {
	return slices.ContainsFunc(cs.all, func(o *candidate) bool { return o.trouble() < c.trouble() })
}
