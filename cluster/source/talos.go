package source

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/nametag-boot/nametag/cluster/audit"
	"github.com/nametag-boot/nametag/cluster/talosapi"
)

// TalosEtcd reads etcd's members through Talos' API. The role os:reader does.
type TalosEtcd struct{ Access talosapi.Access }

// Source is audit.Etcd.
func (*TalosEtcd) Source() audit.Source { return audit.Etcd }

// Read asks one node for the list, and the machine of every member for its health.
func (t *TalosEtcd) Read(ctx context.Context, into *audit.Snapshot) error {
	c, err := talosapi.Open(ctx, t.Access)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // what was asked for is here
	members, err := c.Members(ctx)
	if err != nil {
		return err
	}
	for _, m := range members {
		into.Members = append(into.Members, audit.Member{
			ID: m.GetId(), Name: audit.Printable(m.GetHostname()), PeerURLs: m.GetPeerUrls(), ClientURLs: m.GetClientUrls(), Learner: m.GetIsLearner(),
		})
	}
	var all sync.WaitGroup
	for i := range into.Members {
		m := &into.Members[i]
		addresses := audit.MemberAddresses(*m)
		if m.Name == "" || len(addresses) == 0 {
			continue
		}
		all.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, 2*healthTimeout)
			defer cancel()
			id, healthy, err := c.EtcdHealthy(ctx, addresses[0].String())
			if err == nil && healthy && id == m.ID {
				m.Health = audit.Healthy
			} else {
				m.Health = audit.Unhealthy
			}
		})
	}
	all.Wait()
	return nil
}

// TalosHosts reads the hostname that each running node has.
type TalosHosts struct{ Access talosapi.Access }

// Source is audit.Talos.
func (*TalosHosts) Source() audit.Source { return audit.Talos }

// Read asks the nodes that were named, else the machines of etcd's members. A node that does not answer, perhaps because it is on its
// way, is left out; that none answers is an error.
func (t *TalosHosts) Read(ctx context.Context, into *audit.Snapshot) error {
	c, err := talosapi.Open(ctx, t.Access)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // what was asked for is here
	nodes := c.Nodes()
	if len(nodes) == 0 {
		members, err := c.Members(ctx)
		if err != nil {
			return err
		}
		for _, m := range members {
			for _, a := range audit.MemberAddresses(audit.Member{PeerURLs: m.GetPeerUrls()}) {
				nodes = append(nodes, a.String())
				break
			}
		}
	}
	hosts := make([]audit.Host, len(nodes))
	errs := make([]error, len(nodes))
	var all sync.WaitGroup
	brake := make(chan struct{}, 32)
	for i, node := range nodes {
		all.Go(func() {
			brake <- struct{}{}
			defer func() { <-brake }()
			a, err := netip.ParseAddr(node)
			if err != nil {
				errs[i] = fmt.Errorf("%s: name nodes by their address", node)
				return
			}
			id, err := c.Identity(ctx, node)
			hosts[i], errs[i] = audit.Host{Address: a.Unmap(), Hostname: audit.Printable(id.Hostname), InstanceID: id.InstanceID}, err
		})
	}
	all.Wait()
	for i, h := range hosts {
		if errs[i] == nil {
			into.Hosts = append(into.Hosts, h)
		}
	}
	if len(into.Hosts) == 0 {
		return errors.Join(errs...) // some of many may be on their way
	}
	return nil
}
