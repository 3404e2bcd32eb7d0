package hetzner

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hetznercloud/hcloud-go/v2/hcloud/schema"

	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/metadata"
	"github.com/nametag-boot/nametag/internal/joined"
)

const (
	// maxNetworks bounds the list: a server has three at most.
	maxNetworks = 64
	maxAliases  = 64
)

// A network is one entry of private-networks: what Hetzner's API says of a server's network, and the network's own
// addresses beside it. It says 0 for a number that is none.
type network struct {
	schema.ServerPrivateNet
	name, network, subnet, gateway string
}

// parseNetworks reads the list of private networks from its lines. What is odd is left out and named in the error: a
// value, or an item that is no network. The rest counts.
func parseNetworks(nodes []node) ([]identity.PrivateNetwork, error) {
	var l networkList
	for _, n := range nodes {
		if !l.line(n, n.item >= 0 && n.indent == nodes[0].indent) {
			break
		}
	}
	return l.networks()
}

// A networkList is the networks as far as they are read.
type networkList struct {
	items []*network
	errs  []error
	at    int    // column of the current item's keys; -1: not known yet
	key   string // of the current item, that was last
}

// line reads one line; first says that it begins an item. It reports whether there is room for more.
func (l *networkList) line(n node, first bool) (more bool) {
	switch {
	case first && len(l.items) == maxNetworks:
		l.errs = append(l.errs, metadata.ErrTooLarge)
		return false
	case first:
		l.items = append(l.items, new(network))
		l.at, l.key = -1, ""
		if n.dashes > 1 { // a list in the list
			l.at = n.column
			l.odd(n)
			return true
		}
		if n.key == "" && n.form == nothing {
			return true // its keys stand on the lines below
		}
	case n.item < 0 && l.at >= 0 && n.column < l.at, len(l.items) == 0:
		l.odd(n)
		return true
	}
	l.value(n)
	return true
}

// value takes what a line says of the current item.
func (l *networkList) value(n node) {
	if l.at < 0 {
		l.at = n.column
	}
	item := l.items[len(l.items)-1]
	switch {
	case n.key != "" && n.column == l.at:
		l.key = n.key
		if err := item.set(n); err != nil {
			l.odd(n)
		}
	case l.key == "alias_ips" && n.key == "" && n.dashes == 1 && n.form == scalar:
		item.AliasIPs = append(item.AliasIPs, n.value)
	case n.column == l.at || l.key == "alias_ips":
		l.odd(n)
	} // what stands deeper belongs to a key that is not read
}

// odd names a line that is left out.
func (l *networkList) odd(n node) {
	if len(l.errs) < maxNetworks {
		l.errs = append(l.errs, fmt.Errorf("%w: %.40q", metadata.ErrMalformed, strings.TrimSpace(n.key+" "+n.value)))
	}
}

// networks are those of which anything is known.
func (l *networkList) networks() ([]identity.PrivateNetwork, error) {
	var out []identity.PrivateNetwork
	errs := l.errs
	for _, item := range l.items {
		p, err := item.private()
		if err != nil {
			errs = append(errs, err)
		}
		if p.IP.IsValid() || p.ID != 0 || p.Name != "" || p.MAC != "" {
			out = append(out, p)
		}
	}
	return out, joined.Errors(errs...)
}

// set takes over one key. One that is not known here is no error.
func (n *network) set(from node) (err error) {
	texts := map[string]*string{
		"ip": &n.IP, "mac_address": &n.MACAddress, "network_name": &n.name, "network": &n.network, "subnet": &n.subnet, "gateway": &n.gateway,
	}
	to := texts[from.key]
	switch {
	case to == nil && from.key != "network_id" && from.key != "alias_ips", from.form == nothing:
		return nil
	case from.key == "alias_ips" && from.form == flow:
		n.AliasIPs, err = words(from.value)
		return err
	case from.form != scalar:
		return metadata.ErrMalformed
	case from.key == "network_id":
		number, err := strconv.ParseUint(from.value, 10, 63)
		n.Network = int64(number)
		if err != nil {
			n.Network = 0
		}
		return err
	case from.key == "alias_ips":
		return metadata.ErrMalformed
	}
	*to = from.value
	return nil
}

// words splits "[a, b]".
func words(list string) ([]string, error) {
	inner, opened := strings.CutPrefix(list, "[")
	inner, closed := strings.CutSuffix(inner, "]")
	if !opened || !closed || strings.ContainsAny(inner, "[]{}#&*!\\") {
		return nil, metadata.ErrMalformed
	}
	var out []string
	for word := range strings.SplitSeq(inner, ",") {
		word = strings.TrimSpace(word)
		if n := len(word); n >= 2 && (word[0] == '"' || word[0] == '\'') && word[n-1] == word[0] {
			word = word[1 : n-1]
		}
		if word != "" {
			out = append(out, word)
		}
	}
	return out, nil
}

// private converts an entry, field by field.
func (n *network) private() (identity.PrivateNetwork, error) {
	var errs []error
	p := identity.PrivateNetwork{ID: n.Network}
	p.IP = parse(n.IP, netip.ParseAddr, &errs)
	p.Gateway = parse(n.gateway, netip.ParseAddr, &errs)
	p.Network = parse(n.network, netip.ParsePrefix, &errs)
	p.Subnet = parse(n.subnet, netip.ParsePrefix, &errs)
	for _, alias := range n.AliasIPs[:min(len(n.AliasIPs), maxAliases)] {
		if addr := parse(alias, netip.ParseAddr, &errs); addr.IsValid() {
			p.AliasIPs = append(p.AliasIPs, addr)
		}
	}
	if mac := parse(n.MACAddress, net.ParseMAC, &errs); mac != nil {
		p.MAC = mac.String()
	}
	if len(n.name) <= 256 && utf8.ValidString(n.name) && !strings.ContainsFunc(n.name, unicode.IsControl) {
		p.Name = strings.Clone(n.name)
	}
	return p, joined.Errors(errs...)
}

// parse returns the zero T for an empty or malformed text.
func parse[T any](text string, fn func(string) (T, error), errs *[]error) T {
	var zero T
	if text == "" {
		return zero
	}
	v, err := fn(text)
	if err != nil {
		*errs = append(*errs, fmt.Errorf("%w: %.40q", metadata.ErrMalformed, text))
		return zero
	}
	return v
}
