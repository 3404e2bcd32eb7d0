package hetzner

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hetznercloud/hcloud-go/v2/hcloud/metadata"
	"gopkg.in/yaml.v3"

	"github.com/nametag-boot/nametag/identity"
)

// more asks for the rest over the two connections that are open. What cannot be
// had, or is malformed, is left out and joined into the error.
func more(ctx context.Context, client *metadata.Client, id *identity.Identity) error {
	var place, nets []error
	_ = together(ctx,
		func(ctx context.Context) error {
			var err error
			id.Region, err = word(client.RegionWithContext(ctx))
			place = append(place, named("region", err))
			id.AvailabilityZone, err = word(client.AvailabilityZoneWithContext(ctx))
			place = append(place, named("availability-zone", err))
			return nil
		},
		func(ctx context.Context) error {
			ip, err := client.PublicIPv4WithContext(ctx)
			nets = append(nets, named("public-ipv4", err))
			if addr, ok := netip.AddrFromSlice(ip); ok {
				id.PublicIPv4 = addr.Unmap()
			}
			text, err := client.PrivateNetworksWithContext(ctx)
			if err == nil {
				id.PrivateNetworks, err = parsePrivateNetworks(text)
			}
			nets = append(nets, named("private-networks", err))
			return nil
		})
	return errors.Join(append(place, nets...)...)
}

// named is err as an [*Error], which the guard's are already.
func named(path string, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Path: path, Err: err}
}

// word takes a region or zone only if it is one: it ends up in files and on
// consoles.
func word(s string, err error) (string, error) {
	if err != nil {
		return "", err
	}
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
	if len(s) > 64 || strings.Trim(s, letters) != "" {
		return "", fmt.Errorf("%w: %.40q", ErrMalformed, s)
	}
	return s, nil
}

const (
	// maxYAML bounds the list of private networks: a server has three at most,
	// of some 300 bytes each. A YAML document costs many times its size.
	maxYAML = 8 << 10
	// maxNesting bounds its brackets, which a list of flat maps hardly has.
	maxNesting = 64
	maxAliases = 64
)

// network is one entry, as the service writes it.
type network struct {
	IP          string   `yaml:"ip"`
	AliasIPs    []string `yaml:"alias_ips"`
	MACAddress  string   `yaml:"mac_address"`
	NetworkID   int64    `yaml:"network_id"`
	NetworkName string   `yaml:"network_name"`
	Network     string   `yaml:"network"`
	Subnet      string   `yaml:"subnet"`
	Gateway     string   `yaml:"gateway"`
}

// parsePrivateNetworks reads the service's YAML list. Anchors and aliases are
// refused: nothing here needs them but a bomb. A field that is malformed is left
// out and named in the error.
func parsePrivateNetworks(text string) ([]identity.PrivateNetwork, error) {
	if len(text) > maxYAML {
		return nil, ErrTooLarge
	}
	if strings.Count(text, "[")+strings.Count(text, "{") > maxNesting || strings.Contains(text, "- - ") {
		return nil, fmt.Errorf("%w: nested too deeply", ErrMalformed)
	}
	var document yaml.Node
	if err := decodeYAML(text, &document); err != nil {
		return nil, err
	}
	if anchored(&document) {
		return nil, fmt.Errorf("%w: anchors and aliases are refused", ErrMalformed)
	}
	var list []network
	if err := decodeYAML(text, &list); err != nil {
		return nil, err
	}
	var (
		out  []identity.PrivateNetwork
		errs []error
	)
	for _, n := range list {
		p, err := n.private()
		errs = append(errs, err)
		out = append(out, p)
	}
	return out, errors.Join(errs...)
}

// decodeYAML is yaml.Unmarshal without its panics, of which the decoder has had its share.
func decodeYAML(text string, into any) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%w: %.80q", ErrMalformed, fmt.Sprint(v))
		}
	}()
	if err := yaml.Unmarshal([]byte(text), into); err != nil {
		return fmt.Errorf("%w: %.80q", ErrMalformed, err.Error())
	}
	return nil
}

func anchored(n *yaml.Node) bool {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		return true
	}
	for _, child := range n.Content {
		if anchored(child) {
			return true
		}
	}
	return false
}

// private converts an entry, field by field.
func (n network) private() (identity.PrivateNetwork, error) {
	var errs []error
	p := identity.PrivateNetwork{ID: max(0, n.NetworkID)}
	p.IP = parse(n.IP, netip.ParseAddr, &errs)
	p.Gateway = parse(n.Gateway, netip.ParseAddr, &errs)
	p.Network = parse(n.Network, netip.ParsePrefix, &errs)
	p.Subnet = parse(n.Subnet, netip.ParsePrefix, &errs)
	for _, alias := range n.AliasIPs[:min(len(n.AliasIPs), maxAliases)] {
		if addr := parse(alias, netip.ParseAddr, &errs); addr.IsValid() {
			p.AliasIPs = append(p.AliasIPs, addr)
		}
	}
	if mac := parse(n.MACAddress, net.ParseMAC, &errs); mac != nil {
		p.MAC = mac.String()
	}
	if len(n.NetworkName) <= 256 && utf8.ValidString(n.NetworkName) && !strings.ContainsFunc(n.NetworkName, unicode.IsControl) {
		p.Name = strings.Clone(n.NetworkName)
	}
	return p, errors.Join(errs...)
}

// parse returns the zero T for an empty or malformed text.
func parse[T any](text string, fn func(string) (T, error), errs *[]error) T {
	var zero T
	if text == "" {
		return zero
	}
	v, err := fn(text)
	if err != nil {
		*errs = append(*errs, fmt.Errorf("%w: %.40q", ErrMalformed, text))
		return zero
	}
	return v
}
