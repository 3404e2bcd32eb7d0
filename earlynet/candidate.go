//go:build linux

package earlynet

import (
	"cmp"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"
)

const (
	maxCandidates = 16 // that are remembered
	maxServers    = 4  // of one candidate
	maxAsked      = 4  // candidates at one time
	maxSenders    = 64 // that are remembered for the trouble that they have made
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

	rounds     int // questions of ours in which it was offered
	round      int // the last of them
	fruitless  int // times that it was in use and led nowhere
	unanswered int // times that it was asked for in vain
	overtaken  int // times that one which was asked later has answered before it

	requested time.Time // when it was asked for last, and has not answered since; zero: it is not waited for
	grant     *lease    // what it has answered when its turn was over; nil: nothing
}

// waitFor notes that these were asked for, and that an answer may come yet: a server that is slow takes longer than anybody
// waits.
func waitFor(these []*candidate, when time.Time) {
	for _, c := range these {
		c.requested = when
	}
}

// take returns what the candidate has granted when its turn was over, once. It returns nil where that is nothing, or over.
func (c *candidate) take() *lease {
	l := c.grant
	if l == nil {
		return nil
	}
	c.grant, c.requested = nil, time.Time{}
	if l.until(time.Now()) <= leaseGrain {
		return nil
	}
	return l
}

// failed notes that a candidate was in use and led nowhere, or was asked for in vain.
func (cs *candidates) failed(c *candidate, count *int) {
	*count++
	if cs.by == nil || len(cs.by) >= maxSenders {
		cs.by = make(map[[6]byte]int)
	}
	cs.by[c.sender]++
}

// mostOvertaken is how often one may be overtaken. Each time it is asked for once more before anybody else is: a server that is
// slow must not lose for ever to those who are quick, and always new. One that is silent then was asked for in vain.
const mostOvertaken = 3

// overtake notes that a candidate has answered before those that were asked for before it.
func (cs *candidates) overtake(by *candidate, asked []*candidate) {
	for _, c := range asked {
		if c == by {
			return
		}
		if c.overtaken++; c.overtaken > mostOvertaken {
			c.overtaken = 0
			cs.failed(c, &c.unanswered)
		}
	}
}

func (c *candidate) trouble() int { return c.fruitless + c.unanswered }

// candidates are what the servers on a link have offered. There may be any number
// of servers, and of lies: the number of candidates is bounded.
type candidates struct {
	rand *rand.Rand
	all  []*candidate    // in the order in which they were first heard of
	held *candidate      // in use: it is not forgotten
	last *candidate      // that was in use last
	by   map[[6]byte]int // trouble that senders have made, with what is forgotten since too

	asked int // questions
	turn  int // of the candidates: see best
}

// hear takes an offer, and reports whether it is a new candidate.
func (cs *candidates) hear(l *lease, y yield, sender [6]byte) (c *candidate, fresh bool) {
	if c = cs.find(y); c == nil {
		if len(cs.all) == maxCandidates {
			cs.forget()
		}
		c = &candidate{yield: y, sender: sender}
		cs.all = append(cs.all, c)
		fresh = true
	}
	if c.round != cs.asked || fresh {
		c.round = cs.asked
		c.rounds++
	}
	c.offers = slices.DeleteFunc(c.offers, func(o *lease) bool { return o.server == l.server })
	c.offers = slices.Insert(c.offers, 0, l)
	c.offers = c.offers[:min(len(c.offers), maxServers)]
	return c, fresh
}

func (cs *candidates) find(y yield) *candidate {
	for _, c := range cs.all {
		if c.yield == y {
			return c
		}
	}
	return nil
}

// forget makes room. Of all candidates, those go first that were offered in the fewest
// of our questions: who makes up a new one each time pushes out his own, and an honest
// server gives the same answer each time. Of these, those of the sender that has
// offered the most, and of these, those with the most trouble.
func (cs *candidates) forget() {
	of := make(map[[6]byte]int)
	for _, c := range cs.all {
		of[c.sender]++
	}
	var worst []*candidate
	compare := func(a, b *candidate) int {
		return cmp.Or(cmp.Compare(b.rounds, a.rounds), cmp.Compare(of[a.sender], of[b.sender]), cmp.Compare(a.trouble(), b.trouble()))
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

// steady is in how many questions a candidate is offered that is not made up for one.
const steady = 3

// best returns the candidates to try next, all of them as good as each other, at most
// maxAsked, in the order in which they were first heard of.
//
// Turns alternate. One is for what has not been tried yet, of the senders that have
// made the least trouble. The other is for what has been tried: it may have led nowhere
// for another reason, and must not wait for somebody to run out of new lies.
func (cs *candidates) best() []*candidate {
	if cs.turn%2 == 1 {
		tried := pick(cs.all, func(c *candidate) bool { return c.trouble() > 0 && c != cs.last }, func(a, b *candidate) int {
			return cmp.Or(cmp.Compare(min(b.rounds, steady), min(a.rounds, steady)), cmp.Compare(a.trouble(), b.trouble()))
		})
		if len(tried) > 0 {
			return tried
		}
	}
	return pick(cs.all, func(*candidate) bool { return true }, func(a, b *candidate) int {
		return cmp.Or(cmp.Compare(a.trouble(), b.trouble()), cmp.Compare(cs.by[a.sender], cs.by[b.sender]))
	})
}

// pick returns the least of those that are wanted, at most maxAsked.
func pick(all []*candidate, wanted func(*candidate) bool, compare func(a, b *candidate) int) []*candidate {
	var best []*candidate
	for _, c := range all {
		switch {
		case !wanted(c):
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
