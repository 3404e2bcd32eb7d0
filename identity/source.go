package identity

import (
	"context"
	"net/netip"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity/dmi"
)

// A Source is a cloud's metadata service. Its methods may be called from
// several goroutines at once. A panic in one of them is an error of that
// attempt, not the end of the process.
type Source interface {
	// Name is the cloud in one word, as it stands in messages: "hetzner".
	Name() string

	// Present tells from the firmware's facts alone, before any packet,
	// whether this machine is one of the cloud's.
	Present(dmi.Facts) Presence

	// Addresses are what Fetch dials, so that routes are laid to nothing else.
	Addresses() []netip.Addr

	// Fetch is one attempt over one path. It dials with via.DialContext, does
	// not retry, and returns when ctx ends. One that does not is released by
	// the closing of its connections; one that ignores that too is left behind.
	// ctx stays open after Fetch has returned, until the answer was refused or
	// its More is through: what Fetch keeps for More, it frees then.
	// An error that has a method RetryAfter() time.Duration holds back the
	// path's next attempt that long, within bounds.
	Fetch(ctx context.Context, via *earlynet.Path) (Answer, error)
}

// A Verifier is a [Source] with its own way to tell whether an answer is meant
// for this machine. It replaces the rule for other sources: where Present is
// [Yes] and the DMI serial can be read, InstanceID must be that serial.
type Verifier interface {
	Verify(dmi.Facts, Answer) error
}

// An Answer is what one attempt learnt. Resolve validates it.
type Answer struct {
	Hostname, InstanceID string

	// More, if set, fills in the rest of the identity, over the connections
	// that Fetch has open. It is called at most once, when the name is proven,
	// with little time, and what it has filled in when it returns is kept, an
	// error or not. Hostname, InstanceID and Domain it cannot change.
	More func(ctx context.Context, id *Identity) error
}

// Presence is whether a machine belongs to a cloud.
type Presence uint8

// What a source can say of a machine.
const (
	Unknown Presence = iota // the facts do not tell: ask the network
	Yes                     // it is one of the cloud's
	No                      // it is not: no packet is sent
)

// String returns "unknown", "yes" or "no".
func (p Presence) String() string {
	switch p {
	case Yes:
		return "yes"
	case No:
		return "no"
	default:
		return "unknown"
	}
}
