package cloud

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Phase is one stretch of the metadata service's schedule.
type Phase struct {
	// Until is when the phase ends, on the clock that [New] and [Cloud.Restart] start.
	Until time.Duration
	// Answer is what clients get in it: by the time of the packet for what happens below HTTP, by the time of the
	// request for what happens in it.
	Answer Behaviour
}

// A Behaviour is how the metadata service treats its clients. The zero value gives right answers. The constructors
// below cover what was seen in the field; a scenario may as well make its own, and [All] joins several.
type Behaviour struct {
	// Reach is what happens to packets before there is a connection.
	Reach Reach
	// Wrap, when set, is put around the handler that gives the right answers.
	Wrap func(right http.Handler) http.Handler
}

// Reach says how far packets for the metadata service get.
type Reach uint8

const (
	// Reached packets arrive.
	Reached Reach = iota
	// Vanished is a service that is not there: ARP and neighbour requests for its address stay unanswered where the
	// service answers them itself, and packets for it that go through a gateway are lost.
	Vanished
	// Filtered is a service behind a firewall: ARP is answered, packets are lost.
	Filtered
	// Closed is a host without the service: connections are refused with a reset.
	Closed
)

// Right answers rightly and at once.
func Right() Behaviour { return Behaviour{} }

// Unreachable makes everything sent to the service vanish, ARP included.
func Unreachable() Behaviour { return Behaviour{Reach: Vanished} }

// Dropped answers ARP but loses every packet to the service, as a firewall does.
func Dropped() Behaviour { return Behaviour{Reach: Filtered} }

// Refused resets every connection attempt, and every older connection at its next packet.
func Refused() Behaviour { return Behaviour{Reach: Closed} }

// Handler answers every request by h.
func Handler(h http.HandlerFunc) Behaviour {
	return Behaviour{Wrap: func(http.Handler) http.Handler { return h }}
}

// Silent takes the connection and the request and then says nothing until the client gives up.
func Silent() Behaviour {
	return Handler(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
}

// Status answers with a status, and with headers given as name, value, name, value. The body, where the status allows
// one, is the status's text.
func Status(code int, header ...string) Behaviour {
	return Handler(func(w http.ResponseWriter, _ *http.Request) {
		for pair := range slices.Chunk(header, 2) {
			if len(pair) == 2 {
				w.Header().Add(pair[0], pair[1])
			}
		}
		w.WriteHeader(code)
		if code >= 200 && code != http.StatusNoContent && code != http.StatusNotModified {
			_, _ = io.WriteString(w, http.StatusText(code)+"\n")
		}
	})
}

// Body answers 200 with the same body for every path.
func Body(body string) Behaviour {
	return Handler(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = io.WriteString(w, body)
	})
}

// Redirect sends every request on to location.
func Redirect(location string) Behaviour { return Status(http.StatusFound, "Location", location) }

// Endless answers 200 with the letter a, without an end.
func Endless() Behaviour {
	return Handler(func(w http.ResponseWriter, _ *http.Request) {
		chunk := bytes.Repeat([]byte("a"), 4096)
		for {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
}

// Other answers with the documents of another server. Fields that s leaves empty are empty, not examples.
func Other(s Server) Behaviour {
	return Handler(func(w http.ResponseWriter, r *http.Request) { s.ServeHTTP(w, r) })
}

// Ending is how a connection ends after raw bytes.
type Ending uint8

const (
	// Close ends it in order, with a FIN.
	Close Ending = iota
	// Reset ends it with a RST.
	Reset
	// Hang leaves it open and silent.
	Hang
)

// Raw answers a request with exactly these bytes on the connection, for answers that are cut short or are no HTTP.
func Raw(answer string, then Ending) Behaviour {
	return Handler(func(w http.ResponseWriter, r *http.Request) {
		c := connOf(r)
		hj, ok := w.(http.Hijacker)
		if c == nil || !ok {
			panic(http.ErrAbortHandler)
		}
		raw, _, err := hj.Hijack()
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(raw, answer)
		switch then {
		case Close:
			_ = raw.Close()
		case Reset:
			c.reset()
		case Hang:
			// Until the client hangs up or the cloud closes: both end this read.
			_, _ = io.Copy(io.Discard, raw)
			_ = raw.Close()
		}
	})
}

// Slow sends answers at so many bytes a second, each as its own segment when the rate is low.
func Slow(bytesPerSecond int) Behaviour {
	return Behaviour{Wrap: func(right http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if c := connOf(r); c != nil {
				c.pace.Store(int64(bytesPerSecond))
			}
			right.ServeHTTP(w, r)
		})
	}}
}

// Delay waits before it answers.
func Delay(d time.Duration) Behaviour {
	return Behaviour{Wrap: func(right http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			timer := time.NewTimer(d)
			defer timer.Stop()
			select {
			case <-timer.C:
				right.ServeHTTP(w, r)
			case <-r.Context().Done():
			}
		})
	}}
}

// On applies b to requests whose path ends with suffix, such as "/hostname". What b says below HTTP is left out.
func On(suffix string, b Behaviour) Behaviour {
	return Behaviour{Wrap: func(right http.Handler) http.Handler {
		special := b.around(right)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, suffix) {
				special.ServeHTTP(w, r)
				return
			}
			right.ServeHTTP(w, r)
		})
	}}
}

// OnName applies b to what has the host name in it: the whole document, and the name by itself.
func OnName(b Behaviour) Behaviour { return All(On("/metadata", b), On("/hostname", b)) }

// Document answers a request for the whole document with this text, and other requests as they should be.
func Document(text string) Behaviour { return On("/metadata", Body(text)) }

// InTurn gives the n-th request of a path the n-th of the behaviours, and the last one from then on. What they say
// below HTTP is left out.
func InTurn(bs ...Behaviour) Behaviour {
	var mu sync.Mutex
	seen := map[string]int{}
	return Behaviour{Wrap: func(right http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			i := seen[r.URL.Path]
			seen[r.URL.Path]++
			mu.Unlock()
			if len(bs) == 0 {
				right.ServeHTTP(w, r)
				return
			}
			bs[min(i, len(bs)-1)].around(right).ServeHTTP(w, r)
		})
	}}
}

// First gives the first n requests, whatever their paths, this behaviour, and all that come later the right answers.
// What it says below HTTP is left out.
func First(n int64, b Behaviour) Behaviour {
	var seen atomic.Int64
	return Behaviour{Wrap: func(right http.Handler) http.Handler {
		bad := b.around(right)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if seen.Add(1) > n {
				right.ServeHTTP(w, r)
				return
			}
			bad.ServeHTTP(w, r)
		})
	}}
}

// All joins behaviours, the first outermost: All(Slow(1), Body("my-server")). The first that keeps packets from
// arriving decides how.
func All(bs ...Behaviour) Behaviour {
	joined := Behaviour{Wrap: func(right http.Handler) http.Handler {
		for _, b := range slices.Backward(bs) {
			right = b.around(right)
		}
		return right
	}}
	for _, b := range bs {
		if b.Reach != Reached {
			joined.Reach = b.Reach
			break
		}
	}
	return joined
}

// around puts b around the handler of right answers.
func (b Behaviour) around(right http.Handler) http.Handler {
	if b.Wrap == nil {
		return right
	}
	return b.Wrap(right)
}

// Headers adds headers, given as name, value, name, value, to whatever is answered.
func Headers(header ...string) Behaviour {
	add := http.Header{}
	for pair := range slices.Chunk(header, 2) {
		if len(pair) == 2 {
			add.Add(pair[0], pair[1])
		}
	}
	return Behaviour{Wrap: func(right http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			maps.Copy(w.Header(), add)
			right.ServeHTTP(w, r)
		})
	}}
}
