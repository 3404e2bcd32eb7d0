// Package hetzner is the identity source of Hetzner Cloud servers: their
// metadata service, asked through hcloud-go's client.
//
//	id, err := identity.Resolve(ctx, hetzner.Source())
//
// The service is plain HTTP on a link-local address, so whoever answers first
// on the link is believed: what comes in is bounded and checked before the
// client sees it. No proxy, no redirect, no compression and no name resolution
// is involved. An answer counts when it is a 200 with a body that came whole:
// at most 64 KiB, ended by Content-Length or chunking. Where the end was only
// the connection's, it counts if a second read over a fresh connection agrees,
// and the document that has everything, where there is one, does not differ.
//
// Name and instance id are asked for at the same time, over two connections, so
// that the answer takes three round trips: ARP, TCP, HTTP. Where one of the two
// is held up on its way, the other is read again after it.
package hetzner

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/hetznercloud/hcloud-go/v2/hcloud/metadata"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/dmi"
)

// Vendor is what DMI says on a Hetzner Cloud server. Dedicated servers
// ("Robot") have their maker's name there, and no metadata service.
const Vendor = "Hetzner"

var (
	addressV4 = netip.AddrFrom4([4]byte{169, 254, 169, 254})
	// addressV6 is where cloud-init looks too. Hetzner does not serve it today.
	addressV6 = netip.MustParseAddr("fe80::a9fe:a9fe")
)

const basePath = "/hetzner/v1/metadata"

// An Option changes a source.
type Option func(*source)

// WithEndpoint asks there, for instance "http://127.0.0.1:8080/hetzner/v1/metadata",
// instead of at the link-local addresses. The host must be an IP address.
func WithEndpoint(endpoint string) Option { return func(s *source) { s.endpoint = endpoint } }

// Source returns the source for [identity.Resolve]. It is stateless and may be
// used by several goroutines.
func Source(opts ...Option) identity.Source {
	s := new(source)
	for _, opt := range opts {
		opt(s)
	}
	return s
}

type source struct{ endpoint string }

// Name is "hetzner".
func (*source) Name() string { return "hetzner" }

// Present goes by the vendor alone.
func (*source) Present(f dmi.Facts) identity.Presence {
	switch f.Vendor {
	case Vendor:
		return identity.Yes
	case "":
		return identity.Unknown
	default:
		return identity.No
	}
}

// Addresses are the link-local ones, or the endpoint's.
func (s *source) Addresses() []netip.Addr {
	if s.endpoint == "" {
		return []netip.Addr{addressV4, addressV6}
	}
	u, err := url.Parse(s.endpoint)
	if err != nil {
		return nil // Fetch tells
	}
	addr, err := netip.ParseAddr(u.Hostname())
	if err != nil {
		return nil
	}
	return []netip.Addr{addr}
}

// endpointFor returns the base URL that fits a path's address family. An IPv6
// link-local address means nothing without its zone.
func (s *source) endpointFor(via *earlynet.Path) string {
	host := addressV4.String()
	switch {
	case s.endpoint != "":
		return s.endpoint
	case via.Source.Is6() && !via.Source.Is4In6():
		host = "[" + addressV6.WithZone(via.Interface).String() + "]"
	}
	return (&url.URL{Scheme: "http", Host: host, Path: basePath}).String()
}

// Fetch asks for the name and the instance id, side by side.
func (s *source) Fetch(ctx context.Context, via *earlynet.Path) (identity.Answer, error) {
	g := &guard{dial: via.DialContext}
	client := metadata.NewClient(
		metadata.WithEndpoint(s.endpointFor(via)),
		metadata.WithHTTPClient(&http.Client{Transport: g}),
		metadata.WithTimeout(0), // the context's is enough
		metadata.WithApplication("nametag", ""),
	)
	var (
		answer       identity.Answer
		nameAt, idAt time.Time
	)
	err := together(ctx,
		func(ctx context.Context) (err error) {
			answer.Hostname, err = client.HostnameWithContext(ctx)
			nameAt = time.Now()
			return err
		},
		func(ctx context.Context) (err error) {
			answer.InstanceID, err = instanceID(ctx, client)
			idAt = time.Now()
			return err
		})
	if err == nil {
		err = recheck(ctx, client, answer, idAt.Sub(nameAt))
	}
	if err != nil {
		g.Close()
		return identity.Answer{}, err
	}
	// The connections are kept for More, or until the answer turns out useless.
	forget := context.AfterFunc(ctx, g.Close)
	answer.More = func(ctx context.Context, id *identity.Identity) error {
		defer forget()
		defer g.Close()
		return more(ctx, client, id)
	}
	return answer, nil
}

// instanceID asks for the instance id.
func instanceID(ctx context.Context, client *metadata.Client) (string, error) {
	id, err := client.InstanceIDWithContext(ctx)
	if number, ok := errors.AsType[*strconv.NumError](err); ok {
		return "", &Error{Path: "instance-id", Err: fmt.Errorf("%w: %.40q", ErrMalformed, number.Num)}
	}
	if err == nil && id <= 0 {
		return "", &Error{Path: "instance-id", Err: fmt.Errorf("%w: %d", ErrMalformed, id)}
	}
	return strconv.FormatInt(id, 10), err
}

// sameMoment is how far apart name and instance id may come and still belong
// together. Where the network held one of the two up, the service may have
// become another meanwhile: what a server is told while it is being made can be
// its predecessor's.
const sameMoment = 10 * time.Millisecond

// recheck asks once more for the one of the two that came long before the other,
// idLater being how much later the id came: what was the same before and after
// the other one belongs to it.
func recheck(ctx context.Context, client *metadata.Client, a identity.Answer, idLater time.Duration) error {
	path, first, ask := "hostname", a.Hostname, client.HostnameWithContext
	switch {
	case idLater.Abs() <= sameMoment:
		return nil
	case idLater < 0:
		path, first, ask = "instance-id", a.InstanceID, func(ctx context.Context) (string, error) { return instanceID(ctx, client) }
	}
	second, err := ask(ctx)
	if err != nil {
		return bare(err)
	}
	if second != first {
		return &Error{Path: path, Err: fmt.Errorf("%w: %.40q, then %.40q", ErrChanged, first, second)}
	}
	return nil
}

// together runs both and waits for both. The first error ends the other; it is
// returned without what net/http wraps around it, which is long and says less.
func together(ctx context.Context, a, b func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		once  sync.Once
		first error
		both  sync.WaitGroup
	)
	for _, fn := range []func(context.Context) error{a, b} {
		both.Go(func() {
			if err := fn(ctx); err != nil {
				once.Do(func() { first = bare(err) })
				cancel(first)
			}
		})
	}
	both.Wait()
	return first
}

// bare strips net/http's *url.Error.
func bare(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		return wrapped.Err
	}
	return err
}
