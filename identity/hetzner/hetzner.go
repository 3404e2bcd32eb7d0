// Package hetzner is the identity source of Hetzner Cloud servers: their
// metadata service.
//
//	id, err := identity.Resolve(ctx, hetzner.Source())
//
// The service is plain HTTP on a link-local address, so whoever answers first
// on the link is believed: what comes in is bounded and checked, by package
// metadata. No proxy, no redirect, no compression and no name resolution is
// involved. An answer counts when it is a 200 with a body of at most 256 KiB that
// came whole.
//
// # What is proven by what
//
// Name and instance id come out of one response, the document that has
// everything (/hetzner/v1/metadata, which cloud-init reads too). So no change of
// the service between two requests can join one server's name with another's
// id; and that the id is this machine's is [identity.Resolve]'s to check. It
// takes three round trips: ARP, TCP, HTTP.
//
// That the response is whole is proven by its Content-Length or its chunks.
// Where it ends because the connection does, it may have been cut anywhere, and
// at the same byte each time: then a value counts only if a further key follows
// it, and repetition proves nothing.
//
// Where the service has no such document, or one without the two, the id is
// read before and after the name, over one connection, each with a certain end.
// The name counts if both ids are the same: that is proof as long as the
// service does not turn into another and back within that moment.
package hetzner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/dmi"
	"github.com/nametag-boot/nametag/identity/metadata"
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
// used by several goroutines. A nil option, or one that cannot be, is an error of
// the source's methods, and so an [*identity.ConfigError] of Resolve.
func Source(opts ...Option) identity.Source {
	s := new(source)
	for i, opt := range opts {
		if opt == nil {
			s.bad = fmt.Errorf("option %d of the source is nil", i+1)
			continue
		}
		opt(s)
	}
	return s
}

type source struct {
	endpoint string
	bad      error // what it was made with
}

// Name is "hetzner".
func (*source) Name() string { return "hetzner" }

// Present goes by the vendor alone.
func (*source) Present(f dmi.Facts) identity.Presence {
	switch f.Vendor {
	case Vendor:
		return identity.PresenceYes
	case "":
		return identity.PresenceUnknown
	default:
		return identity.PresenceNo
	}
}

// InstanceID is the serial number, which is the instance id on a Hetzner Cloud server.
func (*source) InstanceID(f dmi.Facts) string { return f.Serial }

// Addresses are the link-local ones, or the endpoint's.
func (s *source) Addresses() ([]netip.Addr, error) {
	if s.bad != nil {
		return nil, s.bad
	}
	if s.endpoint == "" {
		return []netip.Addr{addressV4, addressV6}, nil
	}
	_, addr, err := metadata.Endpoint(s.endpoint)
	if err != nil {
		return nil, err
	}
	return []netip.Addr{addr}, nil
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

// Fetch asks for the document that has name and instance id.
func (s *source) Fetch(ctx context.Context, via *earlynet.Path) (identity.Answer, error) {
	if s.bad != nil {
		return identity.Answer{}, s.bad
	}
	c, err := newService(s.endpointFor(via), via.DialContext)
	if err != nil {
		return identity.Answer{}, err
	}
	who, err := ask(ctx, c)
	if err != nil {
		c.Close()
		return identity.Answer{}, err
	}
	// The connection is kept for More, or until the answer turns out useless.
	forget := context.AfterFunc(ctx, c.Close)
	return identity.Answer{
		Hostname: who.name, InstanceID: who.id,
		More: func(ctx context.Context, id *identity.Identity) error {
			defer forget()
			defer c.Close()
			return details(ctx, c, who.document, id)
		},
	}, nil
}

// A witness is a name with the id of the instance that it was said of.
type witness struct {
	name, id string
	document document // the rest that came with them; may be empty
}

// ask gives one answer, or none.
//
// The invariant: name and id of a witness are one fact, not two that were read at two moments. What a server is told while
// it is being made can be its predecessor's, and the service may turn at any time, between two requests or within one.
// In the document they stand in one response, which the service makes of one state: a turn before it gives both of the
// predecessor, whose id Resolve refuses; a turn after it changes nothing in it; and a turn that ends it early leaves a part
// in which a value is whole or not there (parseDocument). There is no third case, so no order of events breaks it, and
// nothing has to be read again. enclosed has the argument for where there is no such document.
func ask(ctx context.Context, c *service) (witness, error) {
	got, err := c.ask(ctx, "")
	if absent(err) {
		return enclosed(ctx, c)
	}
	if err != nil {
		return witness{}, err
	}
	who, err := parseWitness(got.Body, got.Whole)
	if errors.Is(err, errNoWitness) && got.Whole {
		return enclosed(ctx, c)
	}
	if err != nil {
		return witness{}, &Error{Path: "metadata", Err: err}
	}
	return who, nil
}

// errNoWitness is a document that has not both of the two, or is none that is read here.
var errNoWitness = errors.New("it has no name and instance id that can be read")

// parseWitness reads the document.
func parseWitness(body []byte, certain bool) (witness, error) {
	doc, err := parseDocument(body, certain)
	if err != nil {
		return witness{}, fmt.Errorf("%w: %w", errNoWitness, err)
	}
	name, named, err := doc.scalar(keyHostname)
	id, numbered, idErr := doc.scalar(keyInstanceID)
	switch {
	case err != nil || idErr != nil:
		return witness{}, fmt.Errorf("%w: %w", errNoWitness, cmp.Or(err, idErr))
	case !certain && (!named || !numbered):
		return witness{}, metadata.ErrUncertain
	case !named || !numbered:
		return witness{}, errNoWitness
	case name == "":
		return witness{}, fmt.Errorf("%s: %w", keyHostname, ErrEmpty)
	}
	if err := checkID(id); err != nil {
		return witness{}, err
	}
	return witness{name: name, id: id, document: doc}, nil
}

// enclosed asks for id, name and id in this order, over one connection, so that all three are one process's answers. Where
// both ids are the same, the name between them belongs to them, unless the service turned away and back in that time; of
// a service that has no document, more cannot be known. Each of the three has a certain end: one that is ended by the
// connection's is not followed by another one on it.
func enclosed(ctx context.Context, c *service) (witness, error) {
	var said [3]string
	for i, name := range []string{keyInstanceID, keyHostname, keyInstanceID} {
		got, err := c.ask(ctx, name)
		if err != nil {
			return witness{}, err
		}
		said[i] = strings.TrimSpace(string(got.Body))
		switch {
		case i > 0 && !got.Reused:
			return witness{}, &Error{Path: name, Err: errClosed}
		case !got.Whole:
			return witness{}, &Error{Path: name, Err: metadata.ErrUncertain}
		case said[i] == "":
			return witness{}, &Error{Path: name, Err: ErrEmpty}
		}
	}
	if said[0] != said[2] {
		return witness{}, &Error{Path: keyInstanceID, Err: fmt.Errorf("%w: %.40q, then %.40q", ErrChanged, said[0], said[2])}
	}
	if err := checkID(said[0]); err != nil {
		return witness{}, &Error{Path: keyInstanceID, Err: err}
	}
	return witness{name: said[1], id: said[0]}, nil
}

// checkID takes a number as the service writes it: without a sign, leading zeros or blanks.
func checkID(id string) error {
	number, err := strconv.ParseInt(id, 10, 64)
	if err != nil || number <= 0 || strconv.FormatInt(number, 10) != id {
		return fmt.Errorf("%w: the instance id is %.40q", metadata.ErrMalformed, id)
	}
	return nil
}
