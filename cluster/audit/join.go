package audit

import (
	"cmp"
	"net/netip"
	"slices"
)

// A group is all that is known of one machine: what the sources have of it, joined by id and by address.
type group struct {
	server   *Server // nil: no server of the cloud is it
	serverID int64   // 0: not known
	nodes    []*Node
	members  []*Member
	machines []*Machine
	hosts    []*Host
}

// joined is a snapshot with everything at its machine.
type joined struct {
	groups    []*group
	byServer  map[int64]*group
	byAddress map[netip.Addr]*group
	ambiguous map[netip.Addr][]int64 // addresses of several servers: nothing is joined by them
}

// join puts everything that was seen to its machine. A providerID decides; only what has none goes by address.
func join(s *Snapshot) *joined {
	j := &joined{
		byServer:  map[int64]*group{},
		byAddress: map[netip.Addr]*group{},
		ambiguous: map[netip.Addr][]int64{},
	}
	owners := map[netip.Addr][]int64{}
	for i := range s.Servers {
		server := &s.Servers[i]
		g := j.server(server.ID)
		g.server = server
		for _, a := range server.Addresses {
			if !slices.Contains(owners[a], server.ID) {
				owners[a] = append(owners[a], server.ID)
			}
		}
	}
	for a, ids := range owners {
		if len(ids) == 1 {
			j.byAddress[a] = j.byServer[ids[0]]
		} else {
			slices.Sort(ids)
			j.ambiguous[a] = ids
		}
	}
	for i := range s.Nodes {
		node := &s.Nodes[i]
		id, _ := ServerID(node.ProviderID)
		g := j.find(s, id, node.Addresses)
		g.nodes = append(g.nodes, node)
	}
	for i := range s.Machines {
		machine := &s.Machines[i]
		id, _ := ServerID(machine.ProviderID)
		g := j.find(s, id, machine.Addresses)
		g.machines = append(g.machines, machine)
	}
	// A machine whose server is gone keeps the addresses that nobody has got since.
	for _, g := range j.groups {
		if g.server == nil {
			j.remember(g, g.addresses())
		}
	}
	j.resolve()
	for i := range s.Members {
		member := &s.Members[i]
		g := j.find(s, 0, member.addresses())
		if before := j.predecessor(g, member); before != nil {
			g = before
		}
		g.members = append(g.members, member)
	}
	for i := range s.Hosts {
		id, _ := ServerID("hcloud://" + s.Hosts[i].InstanceID)
		g := j.find(s, id, []netip.Addr{s.Hosts[i].Address})
		g.hosts = append(g.hosts, &s.Hosts[i])
	}
	slices.SortStableFunc(j.groups, func(a, b *group) int {
		return cmp.Or(cmp.Compare(a.title(), b.title()), cmp.Compare(a.serverID, b.serverID))
	})
	return j
}

func (j *joined) server(id int64) *group {
	g := j.byServer[id]
	if g == nil {
		g = &group{serverID: id}
		j.byServer[id] = g
		j.groups = append(j.groups, g)
	}
	return g
}

// find is the machine of an id, else of the first address that is one's alone, else a new one.
func (j *joined) find(s *Snapshot, id int64, addresses []netip.Addr) *group {
	if id != 0 {
		g := j.server(id)
		// Where the cloud was not read, a node's id and its addresses are all that tells whose members are whose.
		if g.server == nil && !s.Read[Cloud] {
			j.remember(g, addresses)
		}
		return g
	}
	for _, a := range addresses {
		if g := j.byAddress[a]; g != nil {
			j.remember(g, addresses)
			return g
		}
		for i := range s.Servers {
			if s.Servers[i].Public6.IsValid() && s.Servers[i].has(a) && j.ambiguous[a] == nil {
				return j.server(s.Servers[i].ID)
			}
		}
	}
	g := &group{}
	j.groups = append(j.groups, g)
	j.remember(g, addresses)
	return g
}

// resolve gives an address that several servers have (in two private networks) to the one whose node or Machine names it.
func (j *joined) resolve() {
	for a, ids := range j.ambiguous {
		users := slices.DeleteFunc(slices.Clone(ids), func(id int64) bool { return !slices.Contains(j.byServer[id].addresses(), a) })
		if len(users) == 1 {
			j.byAddress[a] = j.byServer[users[0]]
			delete(j.ambiguous, a)
		}
	}
}

// predecessor is the machine that had the member's address before the server that has it now: its server is gone, its node
// or Machine is still there under the member's name. Two machines had the address, and only the name tells which of them.
func (j *joined) predecessor(now *group, member *Member) *group {
	if now.server == nil || member.Name == "" || Agrees(now.server.Name, member.Name) {
		return nil
	}
	for _, g := range j.groups {
		if g == now || g.server != nil {
			continue
		}
		for _, a := range member.addresses() {
			if slices.Contains(g.addresses(), a) && g.answersTo(member.Name) {
				return g
			}
		}
	}
	return nil
}

// addresses are those that nodes and Machines name.
func (g *group) addresses() []netip.Addr {
	var all []netip.Addr
	for _, n := range g.nodes {
		all = append(all, n.Addresses...)
	}
	for _, m := range g.machines {
		all = append(all, m.Addresses...)
	}
	return all
}

// answersTo reports whether a node or a Machine of the group has that name.
func (g *group) answersTo(name string) bool {
	for _, n := range g.nodes {
		if Agrees(n.Name, name) {
			return true
		}
	}
	for _, m := range g.machines {
		if Agrees(m.InfraName, name) || Agrees(m.NodeRef, name) {
			return true
		}
	}
	return false
}

// remember joins what comes later by these addresses to the machine; what is somebody's already stays his.
func (j *joined) remember(g *group, addresses []netip.Addr) {
	for _, a := range addresses {
		if j.byAddress[a] == nil && j.ambiguous[a] == nil {
			j.byAddress[a] = g
		}
	}
}

// title is the machine's name for a person.
func (g *group) title() string {
	switch {
	case g.server != nil:
		return g.server.Name
	case len(g.nodes) > 0:
		return g.nodes[0].Name
	case len(g.machines) > 0:
		return g.machines[0].Name
	case len(g.members) > 0:
		return cmp.Or(g.members[0].Name, g.members[0].HexID())
	case len(g.hosts) > 0:
		return g.hosts[0].Hostname
	}
	return ""
}

// controlPlane reports whether the machine is one that should have a member of etcd, by what Kubernetes or Cluster API say.
func (g *group) controlPlane() bool {
	return slices.ContainsFunc(g.nodes, func(n *Node) bool { return n.ControlPlane }) ||
		slices.ContainsFunc(g.machines, func(m *Machine) bool { return m.ControlPlane })
}

// leaving reports whether the machine is about to go, and what says so.
func (g *group) leaving() (string, bool) {
	for _, m := range g.machines {
		if m.Deleting {
			return "its Machine " + m.key() + " is being deleted", true
		}
	}
	for _, n := range g.nodes {
		if n.Deleting {
			return "its node " + n.Name + " is being deleted", true
		}
		if n.Cordoned {
			return "its node " + n.Name + " is cordoned", true
		}
	}
	if g.server != nil && g.server.Status == "deleting" {
		return "its server is being deleted", true
	}
	return "", false
}

// address is one to reach the machine at, for a command line; "" where none is known.
func (g *group) address() string {
	for _, h := range g.hosts {
		return h.Address.String()
	}
	for _, n := range g.nodes {
		for _, a := range n.Addresses {
			return a.String()
		}
	}
	for _, m := range g.members {
		for _, a := range m.addresses() {
			return a.String()
		}
	}
	if g.server != nil && len(g.server.Addresses) > 0 {
		return g.server.Addresses[0].String()
	}
	return ""
}
