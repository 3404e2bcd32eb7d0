package cloud

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Link is a cable: how long it takes and what it does to frames. The zero value takes no time and loses nothing.
type Link struct {
	// RTT is the round-trip time, half of it in each direction.
	RTT time.Duration
	// Up is from the node to the cloud, Down the other way.
	Up, Down Impairment
}

// Impairment is what happens to the frames of one direction, each with its own probability from 0 to 1.
type Impairment struct {
	// Loss: the frame never arrives.
	Loss float64
	// Duplicate: it arrives twice.
	Duplicate float64
	// Reorder: it is held back, by half the round-trip time and at least 5 ms, so that later ones overtake it.
	Reorder float64
	// Corrupt: one bit of it is flipped. Checksums of IP, TCP and UDP catch that; ARP has none.
	Corrupt float64
}

// heldBack is how long a reordered frame waits at least.
const heldBack = 5 * time.Millisecond

func (l Link) check() error {
	if l.RTT < 0 {
		return fmt.Errorf("cloud: negative round-trip time %s", l.RTT)
	}
	for _, p := range []float64{
		l.Up.Loss, l.Up.Duplicate, l.Up.Reorder, l.Up.Corrupt,
		l.Down.Loss, l.Down.Duplicate, l.Down.Reorder, l.Down.Corrupt,
	} {
		if !(p >= 0 && p <= 1) { // not (p < 0 || p > 1): NaN
			return fmt.Errorf("cloud: probability %v is not within 0 and 1", p)
		}
	}
	return nil
}

// Counters count what a direction did to its frames.
type Counters struct {
	// Sent counts frames that entered the cable, the others what became of them.
	Sent, Lost, Duplicated, Reordered, Corrupted int
}

// direction is one direction of a cable. Frames that need no delay pass through the caller's goroutine; others wait in
// a queue in order of the time they are due and, for the same time, of their arrival.
type direction struct {
	out  func(frame []byte)
	done sync.WaitGroup

	passing sync.Mutex // held while a frame goes out, so that the port has one writer

	mu     sync.Mutex
	delay  time.Duration
	imp    Impairment
	alarm  alarm // nil as long as nothing ever waits
	rng    *rand.Rand
	queue  delayQueue
	seq    uint64
	count  Counters
	closed bool
}

func newDirection(delay time.Duration, imp Impairment, seed, stream uint64, out func([]byte)) (*direction, error) {
	d := &direction{out: out, rng: rand.New(rand.NewPCG(seed, stream))}
	return d, d.set(delay, imp)
}

// set changes what happens to frames from now on.
func (d *direction) set(delay time.Duration, imp Impairment) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return net.ErrClosed
	}
	if d.alarm == nil && (delay > 0 || imp.Reorder > 0) {
		a, err := newAlarm()
		if err != nil {
			return err
		}
		d.alarm = a
		spawn(&d.done, func() { d.run(a) })
	}
	d.delay, d.imp = delay, imp
	return nil
}

// fate is what happens to one frame.
type fate struct {
	lost, twice, late bool
	flip              int // the bit to flip; -1: none
}

// decide draws the same number of values for every frame, so that a change of one probability leaves the fate of all
// other frames as it was.
func (d *direction) decide(bits int) fate {
	loss, dup, late, corrupt, bit := d.rng.Float64(), d.rng.Float64(), d.rng.Float64(), d.rng.Float64(), d.rng.Float64()
	f := fate{lost: loss < d.imp.Loss, twice: dup < d.imp.Duplicate, late: late < d.imp.Reorder, flip: -1}
	if corrupt < d.imp.Corrupt && bits > 0 {
		f.flip = min(int(bit*float64(bits)), bits-1)
	}
	d.count.Sent++
	switch {
	case f.lost:
		d.count.Lost++
		return f
	case f.twice:
		d.count.Duplicated++
	}
	if f.late {
		d.count.Reordered++
	}
	if f.flip >= 0 {
		d.count.Corrupted++
	}
	return f
}

// send takes a frame, which it may change and does not keep.
func (d *direction) send(frame []byte) {
	d.mu.Lock()
	if d.closed {
		d.count.Sent++
		d.count.Lost++
		d.mu.Unlock()
		return
	}
	f := d.decide(8 * len(frame))
	if f.lost {
		d.mu.Unlock()
		return
	}
	if f.flip >= 0 {
		frame[f.flip/8] ^= 1 << (f.flip % 8)
	}
	wait := d.delay
	if f.late {
		wait += max(d.delay, heldBack)
	}
	copies := 1
	if f.twice {
		copies = 2
	}
	if wait > 0 {
		due := time.Now().Add(wait)
		for range copies {
			d.seq++
			heap.Push(&d.queue, delayed{due, d.seq, append([]byte(nil), frame...)})
		}
		if d.queue[0].seq == d.seq-uint64(copies)+1 { // it is the next to leave
			d.alarm.set(wait)
		}
		d.mu.Unlock()
		return
	}
	d.mu.Unlock()
	d.passing.Lock()
	defer d.passing.Unlock()
	for range copies {
		d.out(frame)
	}
}

// run lets frames go when they are due.
func (d *direction) run(a alarm) {
	var due []delayed
	for a.wait() {
		due = due[:0]
		d.mu.Lock()
		if d.closed {
			d.mu.Unlock()
			return
		}
		now := time.Now()
		for len(d.queue) > 0 && !d.queue[0].due.After(now) {
			due = append(due, heap.Pop(&d.queue).(delayed))
		}
		if len(d.queue) > 0 {
			a.set(d.queue[0].due.Sub(now))
		}
		d.mu.Unlock()
		d.passing.Lock()
		for _, f := range due {
			d.out(f.frame)
		}
		d.passing.Unlock()
	}
}

func (d *direction) counters() Counters {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.count
}

// close loses what is under way.
func (d *direction) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	d.closed = true
	if d.alarm != nil {
		d.alarm.close()
	}
}

func (d *direction) wait() { d.done.Wait() }

// delayed is a frame under way.
type delayed struct {
	due   time.Time
	seq   uint64
	frame []byte
}

// delayQueue is a heap: the next to leave first.
type delayQueue []delayed

func (q delayQueue) Len() int { return len(q) }
func (q delayQueue) Less(i, j int) bool {
	if !q[i].due.Equal(q[j].due) {
		return q[i].due.Before(q[j].due)
	}
	return q[i].seq < q[j].seq
}
func (q delayQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *delayQueue) Push(x any)   { *q = append(*q, x.(delayed)) }
func (q *delayQueue) Pop() any {
	last := len(*q) - 1
	f := (*q)[last]
	(*q)[last] = delayed{}
	*q = (*q)[:last]
	return f
}

// alarm wakes one waiter at a set time. Setting it again replaces the time.
type alarm interface {
	set(d time.Duration)
	wait() bool // false: closed
	close()
}
