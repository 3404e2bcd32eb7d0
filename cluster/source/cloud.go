package source

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"
	"golang.org/x/sync/errgroup"

	"github.com/nametag-boot/nametag/cluster/audit"
)

// Cloud reads the servers of one project of Hetzner Cloud.
type Cloud struct {
	client *hcloud.Client
	// Project tells the servers of several projects apart.
	Project string
	// Network is the name or the id of the private network whose addresses count; "" is all of them.
	Network string

	asked atomic.Int64
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

// Asked is how many requests were made for servers so far. A project has 3,600 an hour, for all who use it.
func (c *Cloud) Asked() int { return int(c.asked.Load()) }

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

// atOnce is how many pages are asked for at the same time. An answer takes the API a tenth of a second and more, and has 50 servers
// at most: one after the other, a thousand servers are seconds. That many leave most of the project's rate limit to others.
const atOnce = 4

// mostPages bounds what an answer can make us ask for: a hundred thousand servers.
const mostPages = 2000

// list reads all pages; whole is whether they fit together: every one has the same total, none has what another has, and
// together they are as many.
func (c *Cloud) list(ctx context.Context) (servers []*hcloud.Server, whole bool, err error) {
	first, about, err := c.page(ctx, 1)
	if err != nil {
		return nil, false, err
	}
	if about == nil {
		return first, true, nil
	}
	if about.LastPage > mostPages {
		return nil, false, fmt.Errorf("the API says that the servers are %d pages, which cannot be", about.LastPage)
	}
	pages := [][]*hcloud.Server{first}
	if about.LastPage > 1 {
		pages = append(pages, make([][]*hcloud.Server, about.LastPage-1)...)
	}
	changed := make([]bool, len(pages))
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(atOnce)
	for i := 1; i < len(pages); i++ {
		all.Go(func() error {
			page, now, err := c.page(ctx, i+1)
			pages[i], changed[i] = page, now == nil || now.TotalEntries != about.TotalEntries
			return err
		})
	}
	if err := all.Wait(); err != nil {
		return nil, false, err
	}
	servers = slices.Concat(pages...)
	seen := map[int64]bool{}
	for _, s := range servers {
		seen[s.ID] = true
	}
	return servers, !slices.Contains(changed, true) && len(seen) == len(servers) && len(servers) == about.TotalEntries, nil
}

func (c *Cloud) page(ctx context.Context, number int) ([]*hcloud.Server, *hcloud.Pagination, error) {
	c.asked.Add(1)
	page, resp, err := c.client.Server.List(ctx, hcloud.ServerListOpts{
		ListOpts: hcloud.ListOpts{PerPage: 50, Page: number}, Sort: []string{"id:asc"},
	})
	if err != nil {
		return nil, nil, err
	}
	return page, resp.Meta.Pagination, nil
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
