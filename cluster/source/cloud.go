package source

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"

	"github.com/nametag-boot/nametag/cluster/audit"
)

// Cloud reads the servers of one project of Hetzner Cloud.
type Cloud struct {
	client *hcloud.Client
	// Project tells the servers of several projects apart.
	Project string
	// Network is the name or the id of the private network whose addresses count; "" is all of them.
	Network string
}

// NewCloud is the source of the project that the token is of. endpoint is "" for the real API. A read-only token does.
func NewCloud(token, endpoint, version string) *Cloud {
	options := []hcloud.ClientOption{
		hcloud.WithToken(token), hcloud.WithApplication("nametag-audit", version),
		hcloud.WithHTTPClient(&http.Client{}), // the context bounds it
	}
	if endpoint != "" {
		options = append(options, hcloud.WithEndpoint(endpoint))
	}
	return &Cloud{client: hcloud.NewClient(options...)}
}

// Source is audit.Cloud.
func (*Cloud) Source() audit.Source { return audit.Cloud }

// tries is how often a list that changed while it was read is read anew.
const tries = 3

// Read lists the servers, page by page. Pages read at different moments are one list only if nothing changed between them: a
// server deleted meanwhile would make another one slip through, and a server that is missed looks as if it were gone.
func (c *Cloud) Read(ctx context.Context, into *audit.Snapshot) error {
	network, err := c.network(ctx)
	if err != nil {
		return err
	}
	for range tries {
		servers, whole, err := c.list(ctx)
		if err != nil {
			return explain(err)
		}
		if !whole {
			continue
		}
		for _, s := range servers {
			into.Servers = append(into.Servers, c.server(s, network))
		}
		return nil
	}
	return fmt.Errorf("the list of servers changed while it was read, %d times in a row", tries)
}

// list reads all pages; whole is whether they fit together.
func (c *Cloud) list(ctx context.Context) (servers []*hcloud.Server, whole bool, err error) {
	opts := hcloud.ServerListOpts{ListOpts: hcloud.ListOpts{PerPage: 50, Page: 1}, Sort: []string{"id:asc"}}
	total := -1
	seen := map[int64]bool{}
	for {
		page, resp, err := c.client.Server.List(ctx, opts)
		if err != nil {
			return nil, false, err
		}
		for _, s := range page {
			if seen[s.ID] {
				return nil, false, nil
			}
			seen[s.ID] = true
		}
		servers = append(servers, page...)
		p := resp.Meta.Pagination
		if p == nil {
			return servers, true, nil
		}
		if total >= 0 && p.TotalEntries != total {
			return nil, false, nil
		}
		total = p.TotalEntries
		if p.NextPage == 0 {
			return servers, total == 0 && len(servers) == 0 || total == len(servers), nil
		}
		opts.Page = p.NextPage
	}
}

// network is the id of the private network that counts, 0 for all.
func (c *Cloud) network(ctx context.Context) (int64, error) {
	if c.Network == "" {
		return 0, nil
	}
	n, _, err := c.client.Network.Get(ctx, c.Network)
	if err != nil {
		return 0, explain(err)
	}
	if n == nil {
		return 0, fmt.Errorf("the project has no network %s", c.Network)
	}
	return n.ID, nil
}

func (c *Cloud) server(s *hcloud.Server, network int64) audit.Server {
	server := audit.Server{ID: s.ID, Name: s.Name, Status: string(s.Status), Created: s.Created, Project: c.Project}
	add := func(ip net.IP) {
		if a, ok := netip.AddrFromSlice(ip); ok && !a.IsUnspecified() {
			server.Addresses = append(server.Addresses, a.Unmap())
		}
	}
	add(s.PublicNet.IPv4.IP)
	add(s.PublicNet.IPv6.IP)
	if n := s.PublicNet.IPv6.Network; n != nil {
		if a, ok := netip.AddrFromSlice(n.IP); ok {
			ones, _ := n.Mask.Size()
			server.Public6 = netip.PrefixFrom(a, ones)
		}
	}
	for _, private := range s.PrivateNet {
		if network != 0 && private.Network.ID != network {
			continue
		}
		add(private.IP)
		for _, alias := range private.Aliases {
			add(alias)
		}
	}
	return server
}

// explain says what to do about the errors that have a remedy.
func explain(err error) error {
	var api hcloud.Error
	if !errors.As(err, &api) {
		return err
	}
	switch api.Code { //nolint:exhaustive // the others speak for themselves
	case hcloud.ErrorCodeUnauthorized:
		return fmt.Errorf("the token is not valid: %w", err)
	case hcloud.ErrorCodeForbidden:
		return fmt.Errorf("the token may not list servers: %w", err)
	}
	return err
}
