package identity

import (
	"context"
	"net/netip"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity/dmi"
)

// A Source is a cloud's metadata service. Its methods may be called from
// several goroutines at once. A panic in one of them is an error, of that attempt
// or of Resolve, and not the end of the process.
type Source interface {
	// Name is the cloud in one word, as it stands in messages: "hetzner".
	Name() string

	// Present tells from the firmware's facts alone, before any packet,
	// whether this machine is one of the cloud's.
	Present(dmi.Facts) Presence

	// InstanceID is this machine's own number in the cloud, as the firmware tells
	// it, or empty where it does not. An answer counts if it has that id; see
	// [Resolver] for what else may prove it. Where Present is not [PresenceYes],
	// another number is no contradiction, but no proof.
	InstanceID(dmi.Facts) string

	// Addresses are what Fetch dials, so that routes are laid to nothing else. An
	// error says that there is nothing to dial, for good: an endpoint that is no
	// address, for instance. Resolve returns it before the first packet.
	Addresses() ([]netip.Addr, error)

	// Fetch is one attempt over one path. It dials with via.DialContext, does
	// not retry, and returns when ctx ends. One that does not is released by
	// the closing of its connections; one that ignores that too is left behind.
	// ctx stays open after Fetch has returned, until the answer was refused or
	// its More is through: what Fetch keeps for More, it frees then.
	// A [RetryAfterer] among its errors holds back the path's next attempt; a
	// [*NotPresentError] ends the matter for all paths.
	Fetch(ctx context.Context, via *earlynet.Path) (Answer, error)
}

// A RetryAfterer is an error that knows when it is worth trying again, such as
// that of an HTTP status with Retry-After. It is honoured up to 30 s.
type RetryAfterer interface {
	error
	RetryAfter() time.Duration
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
	PresenceUnknown Presence = iota // the facts do not tell: ask the network
	PresenceYes                     // it is one of the cloud's
	PresenceNo                      // it is not: no packet is sent
)

// String returns "unknown", "yes" or "no".
func (p Presence) String() string {
	switch p {
	case PresenceYes:
		return "yes"
	case PresenceNo:
		return "no"
	default:
		return "unknown"
	}
}
