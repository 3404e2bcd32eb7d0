package hetzner

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/metadata"
	"github.com/nametag-boot/nametag/internal/joined"
)

// The keys of the document, which are also the paths of the single answers.
const (
	keyHostname        = "hostname"
	keyInstanceID      = "instance-id"
	keyRegion          = "region"
	keyZone            = "availability-zone"
	keyPublicIPv4      = "public-ipv4"
	keyPrivateNetworks = "private-networks"
)

// details fills in the rest of an identity from the document that had the name. What the document does not have is asked
// for by itself, over the connection that is open. What cannot be had, or is malformed, is left out and joined into the
// error. Nothing of this is proven, and nothing that is proven hangs on it.
func details(ctx context.Context, c *service, doc document, id *identity.Identity) error {
	var errs []error
	text := func(key string) (string, bool) {
		value, there, err := doc.scalar(key)
		if !there {
			value, err = c.whole(ctx, key)
		}
		if err != nil {
			errs = append(errs, named(key, err))
		}
		return strings.TrimSpace(value), err == nil
	}
	for _, word := range []struct {
		key string
		to  *string
	}{{keyRegion, &id.Region}, {keyZone, &id.AvailabilityZone}} {
		if value, ok := text(word.key); ok && isWord(value) {
			*word.to = value
		} else if ok {
			errs = append(errs, &Error{Path: word.key, Err: fmt.Errorf("%w: %.40q", metadata.ErrMalformed, value)})
		}
	}
	if value, ok := text(keyPublicIPv4); ok && value != "" {
		addr, err := netip.ParseAddr(value)
		if err == nil && addr.Is4() {
			id.PublicIPv4 = addr
		} else {
			errs = append(errs, &Error{Path: keyPublicIPv4, Err: fmt.Errorf("%w: %.40q is no IPv4 address", metadata.ErrMalformed, value)})
		}
	}
	var err error
	if id.PrivateNetworks, err = privateNetworks(ctx, c, doc); err != nil {
		errs = append(errs, named(keyPrivateNetworks, err))
	}
	return joined.Errors(errs...)
}

func privateNetworks(ctx context.Context, c *service, doc document) ([]identity.PrivateNetwork, error) {
	e, there := doc.find(keyPrivateNetworks)
	if !there {
		text, err := c.whole(ctx, keyPrivateNetworks)
		if err != nil {
			return nil, err
		}
		return parseNetworksText(text)
	}
	return list(e.node, e.below)
}

// parseNetworksText reads the list where it is an answer by itself.
func parseNetworksText(text string) ([]identity.PrivateNetwork, error) {
	if text := strings.TrimSpace(text); text == "" || text == "[]" {
		return nil, nil
	}
	nodes, err := lex(text, true)
	if err != nil {
		return nil, err
	}
	return list(node{}, nodes)
}

// list reads the networks below a key, or those on its own line, where there can be none but no network at all.
func list(n node, below []node) ([]identity.PrivateNetwork, error) {
	switch {
	case n.form == flow && strings.ReplaceAll(n.value, " ", "") == "[]", n.form == scalar && n.value == "":
		return nil, nil
	case n.form != nothing, len(below) > 0 && below[0].item < 0:
		return nil, fmt.Errorf("%w: no list that is read here: %.40q", metadata.ErrMalformed, n.value)
	}
	return parseNetworks(below)
}

// named is err as an [*Error], which the client's are already.
func named(path string, err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Path: path, Err: err}
}

// isWord tells a region or zone: it ends up in files and on consoles. It may be empty.
func isWord(s string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
	return len(s) <= 64 && strings.Trim(s, letters) == ""
}
