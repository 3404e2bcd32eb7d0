//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"sync"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm/cloud"
)

// A condition is a network that the clients are measured on.
type condition struct {
	shape cloud.Shape
	rtt   time.Duration
	loss  float64 // in each direction
	quick bool
}

func (c condition) String() string {
	return fmt.Sprintf("%s, %s, %.0f %% loss", c.shape, c.rtt, 100*c.loss)
}

// flagship is the condition whose 99th percentile is promised; promisedRuns is how often it is measured.
var flagship = condition{shape: cloud.Public, rtt: 5 * time.Millisecond, loss: 0.2}

const promisedRuns = 200

// plan is every condition that is measured.
func plan(quick bool, wanted string) ([]condition, error) {
	match, err := regexp.Compile(wanted)
	if err != nil {
		return nil, fmt.Errorf("-conditions: %w", err)
	}
	var all []condition
	for _, loss := range []float64{0, 0.2} {
		for _, shape := range []cloud.Shape{cloud.Public, cloud.Private} {
			for _, rtt := range []time.Duration{0, 5 * time.Millisecond, 20 * time.Millisecond} {
				c := condition{shape: shape, rtt: rtt, loss: loss, quick: quick}
				// In short: no loss where nothing and where much is to be waited for, and loss once.
				short := (loss == 0 && rtt != 5*time.Millisecond) || c.is(flagship)
				if (short || !quick) && match.MatchString(c.String()) {
					all = append(all, c)
				}
			}
		}
	}
	if len(all) == 0 {
		return nil, errors.New("-conditions: none matches")
	}
	return all, nil
}

func (c condition) is(other condition) bool {
	return c.shape == other.shape && c.rtt == other.rtt && c.loss == other.loss
}

// An effort is how often a client is measured: at most runs times; from the third run on no more than fits into the
// time that all its runs together may take.
type effort struct {
	runs int
	time time.Duration
}

const leastRuns = 3

// effort is what a client is worth under this condition.
func (c condition) effort(of client) effort {
	e := effort{runs: 25, time: 6 * time.Second}
	switch {
	case of.name == nametag && c.is(flagship):
		e = effort{runs: promisedRuns, time: 4 * time.Minute}
	case c.loss > 0 && of.resolves:
		e = effort{runs: 60, time: 12 * time.Second}
	case c.loss > 0:
		e = effort{runs: 30, time: 20 * time.Second} // in a lane
	case of.patient:
		e = effort{runs: 10, time: 12 * time.Second} // in a lane
	}
	if c.quick {
		e = effort{runs: max(leastRuns, e.runs/4), time: e.time / 3}
	}
	return e
}

// measure measures all clients under all conditions. First, one condition after the other, those that are busy from
// start to end, alone and in turn. Then those that mostly wait for timers, for all conditions at once and beside one
// another: in turn they would take an hour.
func measure(ctx context.Context, progress io.Writer, all []client, conditions []condition) ([]series, error) {
	began := time.Now()
	step := func(what any) { fmt.Fprintf(progress, "bench: %v (%s)\n", what, time.Since(began).Round(time.Second)) }
	taken := make([][]*turns, len(conditions))
	measured := make([]series, len(conditions))
	var patient []*turns
	for i, c := range conditions {
		step(c)
		measured[i] = series{Shape: c.shape.String(), RTT: ms(c.rtt), Loss: c.loss, Load: load1()}
		var busy []*turns
		for _, cl := range all {
			if cl.missing != "" || cl.trips[c.shape] == 0 || c.leaveOut(cl) {
				continue
			}
			t := &turns{client: cl, where: c, effort: c.effort(cl)}
			taken[i] = append(taken[i], t)
			if cl.patient || c.loss > 0 && !cl.resolves {
				patient = append(patient, t)
			} else {
				busy = append(busy, t)
			}
		}
		if err := take(ctx, busy, 1); err != nil {
			return nil, err
		}
	}
	step("clients that wait for timers")
	if err := take(ctx, patient, lanes()); err != nil {
		return nil, err
	}
	for i := range measured {
		for _, t := range taken[i] {
			measured[i].Rows = append(measured[i].Rows, t.row())
		}
	}
	return measured, nil
}

// leaveOut leaves nametag by one method alone out where frames are lost, but for the network of the promise: it takes
// long and says little.
func (c condition) leaveOut(cl client) bool {
	return c.loss > 0 && !c.is(flagship) && cl.resolves && cl.name != nametag
}

// turns are the runs of one client under one condition.
type turns struct {
	client  client
	where   condition
	effort  effort
	started int
	spent   time.Duration
	runs    []run
}

// row is what came of them.
func (t *turns) row() row {
	row := row{Client: t.client.name, Trips: t.client.trips[t.where.shape]}
	for _, r := range t.runs {
		if r.failed != "" {
			row.Failed = append(row.Failed, r.failed)
			continue
		}
		row.Name, row.Exit = append(row.Name, ms(r.name)), append(row.Exit, ms(r.exit))
	}
	return row
}

func (t *turns) over() bool {
	return t.started >= t.effort.runs || t.started >= leastRuns && t.spent >= t.effort.time
}

// take lets them take turns, so many at a time.
func take(ctx context.Context, all []*turns, lanes int) error {
	var (
		mu     sync.Mutex
		failed error
		next   int
		wg     sync.WaitGroup
	)
	// pick gives the next in turn that has runs left.
	pick := func() (*turns, uint64) {
		mu.Lock()
		defer mu.Unlock()
		for range all {
			t := all[next%len(all)]
			next++
			if failed == nil && !t.over() {
				t.started++
				// The n-th turn of every client meets the same fate, frame by frame.
				return t, uint64(t.started)
			}
		}
		return nil, 0
	}
	for range lanes {
		wg.Go(func() {
			for t, seed := pick(); t != nil; t, seed = pick() {
				began := time.Now()
				r, err := once(ctx, t.client, t.where, seed, nil)
				mu.Lock()
				t.runs, t.spent = append(t.runs, r), t.spent+time.Since(began)
				failed = errors.Join(failed, err)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return failed
}
