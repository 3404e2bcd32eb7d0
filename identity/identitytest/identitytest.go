// Package identitytest has an [identity.Source] that follows a script, for the
// tests of programs that call [identity.Resolve].
//
//	src := identitytest.New(
//		identitytest.Fail(errors.New("connection refused")),
//		identitytest.Silence(),
//		identitytest.Answer("my-server", "42"),
//	)
//	r := identity.Resolver{
//		Source: src,
//		Paths:  identitytest.Paths("eth0/linklocal", "eth0/dhcp"),
//		Facts:  &dmi.Facts{Serial: "42"},
//	}
//	id, err := r.Resolve(ctx)
//
// With [Paths] it needs no privilege and no network, and works in the virtual time
// of testing/synctest, where an hour of retries takes no time. (With Resolver.Host,
// and with links of its own, that time stands still: package synctest does not take
// a goroutine that reads from a socket for one that waits.)
//
//	synctest.Test(t, func(t *testing.T) {
//		…
//	})
package identitytest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/dmi"
)

// Paths are the paths of these names, "eth0/dhcp" for instance, for Resolver.Paths.
// They are there at once and last for ever, and what a source dials over them is
// dialled as any program of the host does. For paths that come later, go, or dial
// otherwise, make a channel of those of [earlynet.NewPath]. A name of another form
// is a panic.
func Paths(names ...string) <-chan *earlynet.Path {
	paths := make(chan *earlynet.Path, len(names))
	defer close(paths)
	for _, name := range names {
		ifname, by, _ := strings.Cut(name, "/")
		method, err := earlynet.ParseMethod(by)
		if err != nil || ifname == "" {
			panic(fmt.Sprintf("identitytest: %q is no path: want one like \"eth0/dhcp\" (linklocal, dhcp or ipv6)", name))
		}
		paths <- earlynet.NewPath(context.Background(), ifname, method, new(net.Dialer).DialContext)
	}
	return paths
}

// A Step is what one attempt comes to.
type Step func(ctx context.Context, via *earlynet.Path) (identity.Answer, error)

// Source plays its steps in order, one an attempt; the last one repeats. The zero
// Source is silent. Set the exported fields before it is used. It is safe for
// concurrent use.
type Source struct {
	Presence identity.Presence // what Present returns; the zero value is Unknown
	Dials    []netip.Addr      // what Addresses returns

	mu    sync.Mutex
	all   script
	paths map[string]*script
	calls []Call
}

// A Call is one attempt that was made.
type Call struct {
	Path string // "eth0/dhcp"
	Time time.Time
}

type script struct {
	steps []Step
	next  int
}

// New returns a source with this script. Without a step, every attempt is silent.
// A nil step is a panic.
func New(steps ...Step) *Source { return &Source{all: written(steps)} }

// On gives the path of that name ("eth0/dhcp") a script of its own, and returns s.
// A nil step is a panic.
func (s *Source) On(path string, step Step, more ...Step) *Source {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.paths == nil {
		s.paths = make(map[string]*script)
	}
	own := written(append([]Step{step}, more...))
	s.paths[path] = &own
	return s
}

// written is a script that can be played.
func written(steps []Step) script {
	for i, step := range steps {
		if step == nil {
			panic(fmt.Sprintf("identitytest: step %d is nil", i+1))
		}
	}
	return script{steps: slices.Clone(steps)}
}

// Calls returns the attempts so far, in order.
func (s *Source) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Call(nil), s.calls...)
}

// Name is "test".
func (s *Source) Name() string { return "test" }

// Present returns the field.
func (s *Source) Present(dmi.Facts) identity.Presence { return s.Presence }

// InstanceID is the serial number.
func (s *Source) InstanceID(f dmi.Facts) string { return f.Serial }

// Addresses returns the field Dials.
func (s *Source) Addresses() ([]netip.Addr, error) { return s.Dials, nil }

// Fetch plays the next step.
func (s *Source) Fetch(ctx context.Context, via *earlynet.Path) (identity.Answer, error) {
	return s.step(via)(ctx, via)
}

func (s *Source) step(via *earlynet.Path) Step {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, Call{Path: via.String(), Time: time.Now()})
	script := &s.all
	if own := s.paths[via.String()]; own != nil {
		script = own
	}
	if len(script.steps) == 0 {
		return Silence()
	}
	step := script.steps[script.next]
	if script.next < len(script.steps)-1 {
		script.next++
	}
	return step
}

// Answer answers at once.
func Answer(hostname, instanceID string) Step {
	return func(context.Context, *earlynet.Path) (identity.Answer, error) {
		return identity.Answer{Hostname: hostname, InstanceID: instanceID}, nil
	}
}

// AnswerMore answers at once, and has more to fill in.
func AnswerMore(hostname, instanceID string, more func(context.Context, *identity.Identity) error) Step {
	return func(context.Context, *earlynet.Path) (identity.Answer, error) {
		return identity.Answer{Hostname: hostname, InstanceID: instanceID, More: more}, nil
	}
}

// Fail fails at once.
func Fail(err error) Step {
	return func(context.Context, *earlynet.Path) (identity.Answer, error) { return identity.Answer{}, err }
}

// Silence says nothing until the attempt is given up.
func Silence() Step {
	return func(ctx context.Context, _ *earlynet.Path) (identity.Answer, error) {
		<-ctx.Done()
		return identity.Answer{}, context.Cause(ctx)
	}
}

// After is silent for d first.
func After(d time.Duration, then Step) Step {
	return func(ctx context.Context, via *earlynet.Path) (identity.Answer, error) {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-ctx.Done():
			return identity.Answer{}, context.Cause(ctx)
		case <-t.C:
			return then(ctx, via)
		}
	}
}

// Stubborn sleeps for d whatever its context says: a source as it should not be.
func Stubborn(d time.Duration, then Step) Step {
	return func(ctx context.Context, via *earlynet.Path) (identity.Answer, error) {
		time.Sleep(d)
		return then(ctx, via)
	}
}

// Panic panics with v.
func Panic(v any) Step {
	return func(context.Context, *earlynet.Path) (identity.Answer, error) { panic(v) }
}
