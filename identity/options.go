package identity

import (
	"context"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity/dmi"
)

// An Option changes how [Resolve] goes about it. The default is a link of its
// own on every physical Ethernet card, by link-local and DHCP, undone at the end.
type Option func(*config)

// OverLinks brings links up as cfg says. Where cfg.Destinations is empty it is
// filled from the source; a cfg.Observer still hears its events.
func OverLinks(cfg earlynet.Config) Option {
	return func(c *config) {
		c.network = cfg
		c.open = func(ctx context.Context, cfg earlynet.Config) (network, error) { return earlynet.Open(ctx, cfg) }
	}
}

// OverHost asks over the network that the system has, and touches no link. For
// use inside an OS; it needs no privilege. It waits for that network if need be.
func OverHost() Option {
	return func(c *config) {
		c.open = func(ctx context.Context, cfg earlynet.Config) (network, error) { return earlynet.Host(ctx, cfg) }
	}
}

// WithObserver has fn called with each event, one at a time, from goroutines of
// Resolve and not after it has returned. fn must not block: the work waits for it.
func WithObserver(fn func(Event)) Option { return func(c *config) { c.observer = fn } }

// WithFacts uses these facts instead of reading /sys/class/dmi/id.
func WithFacts(facts dmi.Facts) Option { return func(c *config) { c.facts = &facts } }

// KeepLink leaves the link of the path that won as it is, with its address and
// routes, for the OS to go on with.
func KeepLink() Option { return func(c *config) { c.keep = true } }

// NameOnly leaves out what does not gate the answer, such as region and networks: Resolve
// returns as soon as the name is proven, up to 100 ms sooner.
func NameOnly() Option { return func(c *config) { c.nameOnly = true } }

type config struct {
	open     func(context.Context, earlynet.Config) (network, error)
	network  earlynet.Config
	observer func(Event)
	facts    *dmi.Facts
	keep     bool
	nameOnly bool
	backoff  Backoff // of each path; the zero value but in simulations
}

// A network is what Resolve needs of an [earlynet.Network].
type network interface {
	Paths() <-chan *earlynet.Path
	Changes() <-chan struct{}
	Status() []error
	Keep(*earlynet.Path) error
	Close() error
}
