// Package herd is a metadata service that many servers ask at the same time, for simulations: it has a rate limit and
// outages, answers nothing itself but says what becomes of each request, and counts.
//
// The simulation that uses it runs the real [identity.Resolve] in virtual time; its figures, and what follows from them
// for the retry policy, are in docs/retry.md.
package herd

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"
)

// Limit is what the service does with a request beyond its rate.
type Limit uint8

const (
	// TooMany answers 429 without saying when to come back.
	TooMany Limit = iota
	// RetryAfter answers 429 with Retry-After: 5.
	RetryAfter
	// Refuse resets the connection.
	Refuse
)

// String is the limit in the words of the report.
func (l Limit) String() string {
	switch l {
	case TooMany:
		return "429"
	case RetryAfter:
		return "429, Retry-After: 5"
	case Refuse:
		return "connection refused"
	}
	return fmt.Sprintf("limit %d", uint8(l))
}

// Outage is how the service is away.
type Outage uint8

const (
	// None is a service that is there.
	None Outage = iota
	// Refused resets every connection.
	Refused
	// Silent loses every packet.
	Silent
	// Unavailable answers 503.
	Unavailable
)

// String is the outage in the words of the report.
func (o Outage) String() string {
	switch o {
	case None:
		return "none"
	case Refused:
		return "connections refused"
	case Silent:
		return "packets lost"
	case Unavailable:
		return "503"
	}
	return fmt.Sprintf("outage %d", uint8(o))
}

// What becomes of a request. nil is a right answer.
var (
	ErrRefused     = errors.New("connection refused")
	ErrSilent      = errors.New("silence")
	ErrUnavailable = errors.New("status 503 (Service Unavailable)")
)

// TooManyError is a 429.
type TooManyError struct{ Wait time.Duration }

// Error is the status.
func (e *TooManyError) Error() string { return "status 429 (Too Many Requests)" }

// RetryAfter is what the service asks for, or 0.
func (e *TooManyError) RetryAfter() time.Duration { return e.Wait }

// wait is what the limit RetryAfter asks for.
const wait = 5 * time.Second

// Config describes a service. Its clock begins at New.
type Config struct {
	Rate   int           // requests that it answers a second; refusals cost it nothing
	Burst  int           // that it answers at once after a rest
	Limit  Limit         // what it does beyond that
	Outage Outage        // in which way it is away at first
	Until  time.Duration // when the outage ends
}

// Service is a running one. It is safe for concurrent use.
type Service struct {
	cfg   Config
	began time.Time

	mu      sync.Mutex
	tokens  float64
	filled  time.Duration // when tokens was right
	seconds []second      // by the second since it began
}

// second counts what came in one.
type second struct{ asked, answered int }

// New starts a service.
func New(cfg Config) *Service {
	return &Service{cfg: cfg, began: time.Now(), tokens: float64(cfg.Burst)}
}

// Ask is one request: it counts it and says what becomes of it.
func (s *Service) Ask() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Since(s.began)
	for len(s.seconds) <= int(now/time.Second) {
		s.seconds = append(s.seconds, second{})
	}
	count := &s.seconds[now/time.Second]
	count.asked++
	if now < s.cfg.Until {
		switch s.cfg.Outage {
		case Refused:
			return ErrRefused
		case Silent:
			return ErrSilent
		case Unavailable:
			return ErrUnavailable
		case None:
		}
	}
	s.tokens = min(float64(s.cfg.Burst), s.tokens+(now-s.filled).Seconds()*float64(s.cfg.Rate))
	s.filled = now
	if s.tokens >= 1 {
		s.tokens--
		count.answered++
		return nil
	}
	switch s.cfg.Limit {
	case RetryAfter:
		return &TooManyError{Wait: wait}
	case Refuse:
		return ErrRefused
	case TooMany:
	}
	return &TooManyError{}
}

// Load is what a service was asked in a stretch of time.
type Load struct {
	Asked, Answered int
	Peak            int     // most requests in one second
	Mean            float64 // requests a second
}

// Load counts from one time to another, in whole seconds.
func (s *Service) Load(from, to time.Duration) Load {
	s.mu.Lock()
	defer s.mu.Unlock()
	var l Load
	first, last := int(from/time.Second), int((to+time.Second-1)/time.Second)
	for i := first; i < min(last, len(s.seconds)); i++ {
		l.Asked += s.seconds[i].asked
		l.Answered += s.seconds[i].answered
		l.Peak = max(l.Peak, s.seconds[i].asked)
	}
	if last > first {
		l.Mean = float64(l.Asked) / float64(last-first)
	}
	return l
}

// Figures are what a simulation came to. Times count from the moment at which the service was there.
type Figures struct {
	Half, Most, All time.Duration // until 50, 99 and 100 % of the servers had their name
	Before, After   Load          // during the outage, and from its end until all had their name
	Each            float64       // requests a server after the outage
}

// Figures sums up, given when each server had its name.
func (s *Service) Figures(named []time.Duration) Figures {
	named = slices.Sorted(slices.Values(named))
	at := func(share float64) time.Duration {
		i := int(math.Ceil(share*float64(len(named)))) - 1
		return named[max(i, 0)] - s.cfg.Until
	}
	f := Figures{Half: at(0.5), Most: at(0.99), All: at(1)}
	f.Before = s.Load(0, s.cfg.Until)
	f.After = s.Load(s.cfg.Until, s.cfg.Until+f.All)
	f.Each = float64(f.After.Asked) / float64(len(named))
	return f
}
