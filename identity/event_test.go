package identity_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
	. "github.com/nametag-boot/nametag/identity/identitytest"
)

// Whatever goes wrong: of each attempt it is told that it begins, and the event before it said when that would be.
func TestEveryAttemptIsToldWithWhenTheNextOneIsDue(t *testing.T) {
	for about, steps := range map[string][]Step{
		"a service that refuses":               {Fail(errRefused)},
		"a service that is silent":             {Silence()},
		"a service that is slow to refuse":     {After(3*time.Second, Fail(errRefused))},
		"a service that wants to be left":      {Fail(later(7 * time.Second)), Fail(errRefused), Silence()},
		"a service that answers for another":   {Answer("other", "43")},
		"a service that gets over its silence": {Silence(), Silence(), Silence(), Silence(), Silence(), Fail(errRefused)},
	} {
		scenario(t, about, func(l *lab) {
			l.Up("eth0", earlynet.DHCP)
			src := New(steps...)
			id, err := l.resolve(time.Minute, src)
			l.timedOut(id, err, time.Minute)
			var begins []time.Duration
			failed, due := 0, time.Duration(0)
			for _, e := range l.events {
				switch e.Kind {
				case identity.EventTrying, identity.EventFailed, identity.EventAttempt:
				default:
					continue
				}
				if e.Path != eth0DHCP || e.Try < 1 || e.Next < e.At {
					l.Errorf("%+v", e)
				}
				if e.Kind == identity.EventFailed || e.Err != nil {
					failed++
				} else {
					if begins = append(begins, e.At); e.Try != len(begins) || e.Try > 1 && e.At != due {
						l.Errorf("attempt %d begins after %v and was due after %v: %+v", len(begins), e.At, due, e)
					}
				}
				due = e.Next
			}
			calls := src.Calls()
			if len(begins) != len(calls) || failed < len(calls)-3 || len(calls) < 5 {
				l.Fatalf("of %d attempts it was told that %d began and %d failed", len(calls), len(begins), failed)
			}
			for i, call := range calls {
				if at := call.Time.Sub(l.began); at != begins[i] {
					l.Errorf("attempt %d was made after %v, and told after %v", i+1, at, begins[i])
				}
			}
		})
	}
}

func TestNoTimelineHasTheAttemptsThatSayNothingNew(t *testing.T) {
	scenario(t, "a service that refuses, then answers", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		id, err := l.resolve(time.Minute, New(until(20*time.Second, Fail(errRefused), Answer("my-server", "42"))))
		l.named(id, err, "my-server", 20*time.Second, 31*time.Second)
		attempt := func(e identity.Event) bool { return e.Kind == identity.EventAttempt }
		if l.count(identity.EventAttempt) == 0 || slices.ContainsFunc(id.Timeline, attempt) {
			l.Errorf("%d were told; the timeline is %v", l.count(identity.EventAttempt), id.Timeline)
		}
	})
}

// What a program needs of an event stands in fields of its own.
func TestProgramsNeedNoDetail(t *testing.T) {
	scenario(t, "of the platform and of the name", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		src := New(Answer("my-server", "42"))
		src.Presence = identity.PresenceYes
		if _, err := l.resolve(time.Minute, src); err != nil {
			l.Fatal(err)
		}
		for _, e := range l.events {
			switch e.Kind {
			case identity.EventPlatform:
				if e.Presence != identity.PresenceYes {
					l.Errorf("%+v", e)
				}
			case identity.EventNamed:
				if e.Hostname != "my-server" || e.Path != eth0DHCP {
					l.Errorf("%+v", e)
				}
			}
		}
		if l.count(identity.EventPlatform) != 1 || l.count(identity.EventNamed) != 1 {
			l.Errorf("it was told %v", l.events)
		}
	})
	scenario(t, "of a link that cannot be kept", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		l.Unkept = errors.New("it is gone")
		id, err := l.resolve(time.Minute, New(Answer("my-server", "42")), func(r *identity.Resolver) { r.Keep = true })
		l.named(id, err, "my-server", 0, 0)
		if l.count(identity.EventNotKept) != 1 || l.count(identity.EventUndoFailed) != 0 {
			l.Errorf("it was told %v", l.events)
		}
	})
}

// The commonest failure has a type, and is a time-out of its own: not the context's.
func TestSilenceIsATimeout(t *testing.T) {
	scenario(t, "nobody answers", func(l *lab) {
		l.Up("eth0", earlynet.DHCP)
		ctx, cancel := context.WithCancel(l.Context())
		time.AfterFunc(time.Minute, cancel)
		id, err := identity.ResolveWith(ctx, New(), identity.Over(l.FakeNet), hetznerDMI)
		l.timedOut(id, err, time.Minute)
		silence, is := errors.AsType[*identity.SilenceError](err)
		if !is || !silence.Timeout() || silence.After < 50*time.Second || errors.Is(err, context.DeadlineExceeded) {
			l.Errorf("got %v", err)
		}
	})
}
