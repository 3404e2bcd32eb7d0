package cloud

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/bits"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"
)

// pass sends n numbered frames through one direction and returns the numbers that come out, in order; a changed frame
// comes out as -1.
func pass(t *testing.T, delay time.Duration, imp Impairment, seed uint64, n int) ([]int, Counters) {
	t.Helper()
	var (
		mu  sync.Mutex
		got []int
	)
	d, err := newDirection(delay, imp, seed, 0, func(f []byte) {
		mu.Lock()
		defer mu.Unlock()
		if k := binary.BigEndian.Uint64(f); bytes.Equal(f[8:], make([]byte, 56)) && k < uint64(n) {
			got = append(got, int(k))
			return
		}
		got = append(got, -1)
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		f := make([]byte, 64)
		binary.BigEndian.PutUint64(f, uint64(i))
		d.send(f)
	}
	for deadline := time.Now().Add(soon); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		d.mu.Lock()
		waiting := len(d.queue)
		d.mu.Unlock()
		if waiting == 0 {
			break
		}
	}
	d.close()
	d.wait() // what had left the queue is out now
	return got, d.counters()
}

func TestImpairment(t *testing.T) {
	const n = 2000
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	t.Run("a clean cable passes everything in order, with delay and without", func(t *testing.T) {
		for _, delay := range []time.Duration{0, time.Millisecond} {
			if got, _ := pass(t, delay, Impairment{}, 1, n); !slices.Equal(got, all) {
				t.Errorf("delay %s: %d frames, sorted %t", delay, len(got), slices.IsSorted(got))
			}
		}
	})
	t.Run("the same seed meets the same fate and another seed another", func(t *testing.T) {
		imp := Impairment{Loss: 0.2, Duplicate: 0.1, Corrupt: 0.1}
		a, ca := pass(t, 0, imp, 7, n)
		b, cb := pass(t, time.Millisecond, imp, 7, n)
		c, _ := pass(t, 0, imp, 8, n)
		if !slices.Equal(a, b) || ca != cb {
			t.Errorf("%+v, then %+v", ca, cb)
		}
		if slices.Equal(a, c) {
			t.Error("the seed does not matter")
		}
	})
	t.Run("one probability does not shift the others' decisions", func(t *testing.T) {
		a, _ := pass(t, 0, Impairment{Loss: 0.2}, 7, n)
		b, _ := pass(t, 0, Impairment{Loss: 0.2, Duplicate: 0.5}, 7, n)
		if !slices.Equal(a, slices.Compact(b)) {
			t.Error("other frames were lost")
		}
	})
	t.Run("a probability of one is always and of nothing never", func(t *testing.T) {
		if got, c := pass(t, 0, Impairment{Loss: 1}, 3, n); len(got) != 0 || c.Lost != n {
			t.Errorf("%d frames came through: %+v", len(got), c)
		}
		if got, _ := pass(t, 0, Impairment{Duplicate: 1}, 3, n); len(got) != 2*n || !slices.Equal(slices.Compact(got), all) {
			t.Errorf("%d frames", len(got))
		}
	})
	t.Run("a corrupted frame differs in one bit", func(t *testing.T) {
		flipped, clean := 0, make([]byte, 64)
		d, err := newDirection(0, Impairment{Corrupt: 1}, 3, 0, func(f []byte) {
			for i := range f {
				flipped += bits.OnesCount8(f[i] ^ clean[i])
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		for range n {
			d.send(slices.Clone(clean))
		}
		if flipped != n {
			t.Errorf("%d bits in %d frames", flipped, n)
		}
	})
	t.Run("rates are about what was asked for", func(t *testing.T) {
		_, c := pass(t, 0, Impairment{Loss: 0.2, Duplicate: 0.1, Corrupt: 0.3}, 11, n)
		about := func(what string, got int, want float64) {
			if f := float64(got) / n; f < want-0.05 || f > want+0.05 {
				t.Errorf("%s: %.3f instead of %.3f", what, f, want)
			}
		}
		about("lost", c.Lost, 0.2)
		about("duplicated", c.Duplicated, 0.1*0.8)
		about("corrupted", c.Corrupted, 0.3*0.8)
	})
	t.Run("reordered frames are overtaken and none is lost", func(t *testing.T) {
		for _, delay := range []time.Duration{0, time.Millisecond} {
			got, c := pass(t, delay, Impairment{Reorder: 0.1}, 5, n)
			if slices.IsSorted(got) || c.Reordered == 0 {
				t.Errorf("delay %s: all in order", delay)
			}
			slices.Sort(got)
			if !slices.Equal(got, all) {
				t.Errorf("delay %s: %d frames", delay, len(got))
			}
		}
	})
}

func TestLinkOfACloud(t *testing.T) {
	t.Run("an exchange takes as many round trips as it has", func(t *testing.T) {
		const rtt = 30 * time.Millisecond
		h := plugHost(t, newCloud(t, Config{Link: Link{RTT: rtt}}), NIC{}, linkLocal, netip.Addr{})
		began := time.Now()
		if got := h.get("metadata/hostname", soon); got.err != nil {
			t.Fatal(got.err)
		}
		if took := time.Since(began); took < 3*rtt {
			t.Errorf("ARP, TCP and HTTP took %s", took)
		}
	})
	t.Run("an answer comes through in spite of every fault at once", func(t *testing.T) {
		bad := Impairment{Loss: 0.2, Duplicate: 0.2, Reorder: 0.2, Corrupt: 0.1}
		c := newCloud(t, Config{Link: Link{RTT: time.Millisecond, Up: bad, Down: bad}, Seed: 4})
		h := plugHost(t, c, NIC{Name: "eth0"}, linkLocal, netip.Addr{})
		if got := h.get("metadata/hostname", time.Minute); got.err != nil || got.body != "my-server" {
			t.Errorf("got %+v", got)
		}
		if up, down := c.Traffic("eth0"); up.Sent == 0 || down.Sent == 0 {
			t.Errorf("up %+v, down %+v", up, down)
		}
	})
	t.Run("a NIC may have a cable of its own", func(t *testing.T) {
		c := newCloud(t, Config{})
		w := plugWire(t, c, NIC{Link: &Link{Up: Impairment{Loss: 1}}})
		if mac := w.arp(netip.MustParseAddr("169.254.0.1"), Service, quiet); mac != nil {
			t.Error("a frame came through")
		}
	})
	t.Run("a partition comes and goes", func(t *testing.T) {
		c := newCloud(t, Config{})
		w := plugWire(t, c, NIC{Name: "eth0"})
		own := netip.MustParseAddr("169.254.0.1")
		for _, step := range []struct {
			link Link
			heal bool
		}{{Link{Down: Impairment{Loss: 1}}, false}, {Link{RTT: time.Millisecond}, true}, {Link{Up: Impairment{Loss: 1}}, false}, {Link{}, true}} {
			if err := c.SetLink("eth0", step.link); err != nil {
				t.Fatal(err)
			}
			if mac := w.arp(own, Service, map[bool]time.Duration{true: soon, false: quiet}[step.heal]); (mac != nil) != step.heal {
				t.Errorf("%+v: answer %s", step.link, mac)
			}
		}
		if err := c.SetLink("eth1", Link{}); err == nil {
			t.Error("a NIC that is not there was changed")
		}
	})
}

func TestPcap(t *testing.T) {
	t.Run("every frame of both directions is in the file", func(t *testing.T) {
		var file bytes.Buffer
		c, err := New(Config{Pcap: &file})
		if err != nil {
			t.Fatal(err)
		}
		h := plugHost(t, c, NIC{Name: "eth0"}, linkLocal, netip.Addr{})
		if got := h.get("metadata/hostname", soon); got.err != nil {
			t.Fatal(got.err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		up, down := c.Traffic("eth0")
		frames := readPcap(t, file.Bytes())
		if len(frames) != up.Sent+down.Sent-down.Lost {
			t.Errorf("%d frames of %d up and %d down", len(frames), up.Sent, down.Sent)
		}
		if !bytes.Contains(slices.Concat(frames...), []byte("GET /hetzner/v1/metadata/hostname")) {
			t.Error("the request is not there")
		}
	})
	t.Run("what is lost on the way up is there and what is lost on the way down is not", func(t *testing.T) {
		for _, test := range []struct {
			link Link
			want int
		}{{Link{Up: Impairment{Loss: 1}}, 1}, {Link{Down: Impairment{Loss: 1}}, 1}, {Link{}, 2}} {
			var file bytes.Buffer
			c, err := New(Config{Pcap: &file, Link: test.link})
			if err != nil {
				t.Fatal(err)
			}
			w := plugWire(t, c, NIC{})
			w.arp(netip.MustParseAddr("169.254.0.1"), Service, quiet)
			c.Close()
			if got := len(readPcap(t, file.Bytes())); got != test.want {
				t.Errorf("%+v: %d frames", test.link, got)
			}
		}
	})
	t.Run("a file that cannot be written is told at the end", func(t *testing.T) {
		full := errors.New("disk full")
		c, err := New(Config{Pcap: failing{full}})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); !errors.Is(err, full) {
			t.Errorf("got %v", err)
		}
	})
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// readPcap reads a file as its format says, not as our writer does.
func readPcap(t *testing.T, b []byte) [][]byte {
	t.Helper()
	le := binary.LittleEndian
	if len(b) < 24 || le.Uint32(b) != 0xa1b23c4d || le.Uint32(b[20:]) != 1 {
		t.Fatalf("not a pcap of Ethernet frames: %x", b[:min(24, len(b))])
	}
	var frames [][]byte
	var last time.Time
	for b = b[24:]; len(b) > 0; {
		at := time.Unix(int64(le.Uint32(b)), int64(le.Uint32(b[4:])))
		if at.Before(last) {
			t.Error("time runs backwards")
		}
		last = at
		n := le.Uint32(b[8:])
		if n != le.Uint32(b[12:]) {
			t.Error("a frame was cut")
		}
		frames = append(frames, b[16:16+n])
		b = b[16+n:]
	}
	return frames
}
