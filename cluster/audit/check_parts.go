package audit

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// members looks for members that are no server's, that have not started, that are too many or missing.
func (c *check) members() {
	if !c.s.Read[Etcd] {
		return
	}
	for _, g := range c.j.groups {
		c.unnamed(g)
		if len(g.members) > 1 {
			c.twoMembers(g)
		}
		if len(g.members) > 0 && g.server == nil && c.s.Read[Cloud] && !elsewhere(g) {
			c.noServer(g)
		}
		if len(g.members) == 0 && g.controlPlane() && !elsewhere(g) && (g.server != nil || !c.s.Read[Cloud]) {
			c.noMember(g)
		}
	}
}

// elsewhere reports whether the machine says of itself that it is another cloud's, such as a dedicated server.
func elsewhere(g *group) bool {
	return slices.ContainsFunc(g.nodes, func(n *Node) bool {
		_, ours := ServerID(n.ProviderID)
		return n.ProviderID != "" && !ours
	})
}

func (c *check) unnamed(g *group) {
	for _, m := range g.members {
		if m.Name != "" {
			continue
		}
		f := &found{group: g, settling: true, Finding: Finding{
			ID: MemberWithoutName, Severity: Warning, Subject: m.HexID(), Pending: c.underWay(g),
			Message:  fmt.Sprintf("etcd member %s at %s was added and has not started", m.HexID(), strings.Join(m.PeerURLs, ", ")),
			Evidence: g.evidence(),
		}}
		if c.memory == nil && f.Pending == "" {
			f.Pending = "etcd does not tell since when; with a memory (--state) it becomes a warning when it stays"
		}
		f.remedy = func(p *planner) []Step {
			return append([]Step{{
				Text:    "See why etcd does not start there:",
				Command: "talosctl -n " + orPlaceholder(g.address()) + " logs etcd",
			}}, p.remove(m, "If that machine will not come back, remove the member that never started:")...)
		}
		c.add(f)
	}
}

func (c *check) twoMembers(g *group) {
	names := make([]string, len(g.members))
	unnamed := false
	for i, m := range g.members {
		names[i] = m.label()
		unnamed = unnamed || m.Name == ""
	}
	f := &found{group: g, settling: unnamed, Finding: Finding{
		ID: ServerTwoMembers, Severity: Critical, Subject: g.title(),
		Message:  fmt.Sprintf("%s has %d etcd members: %s", g.title(), len(names), list(names)),
		Evidence: g.evidence(),
	}}
	if unnamed {
		f.Pending = c.underWay(g)
	}
	f.remedy = func(p *planner) []Step {
		steps := []Step{{
			Text:    "See which of them the machine is: its own id is the one of the status line.",
			Command: "talosctl -n " + orPlaceholder(g.address()) + " etcd status",
		}}
		for _, m := range g.members {
			if m.Health == Unhealthy {
				steps = append(steps, p.remove(m, "Remove the one that nobody is:")...)
			}
		}
		if len(steps) == 1 {
			steps = append(steps, Step{Text: "None of them is known to be dead: which one to remove is yours to see. Remove one only, and only while all others are healthy."})
		}
		return steps
	}
	c.add(f)
}

func (c *check) noServer(g *group) {
	for _, m := range g.members {
		f := &found{group: g, settling: true, Finding: Finding{
			ID: MemberWithoutServer, Severity: Critical, Subject: cmp.Or(m.Name, m.HexID()), Pending: c.underWay(g),
			Message:  fmt.Sprintf("etcd %s at %s has no server in the cloud", m.label(), strings.Join(m.PeerURLs, ", ")),
			Evidence: g.evidence(),
		}}
		switch {
		case len(m.addresses()) == 0:
			f.Pending = "its peer URL has no address that could be compared"
		case c.ambiguous(m):
			f.Pending = "its address is that of several servers"
		}
		f.remedy = func(p *planner) []Step {
			steps := []Step{{
				Text:    "Be sure that the machine is gone, and not in another project than the token's:",
				Command: "hcloud server list -o columns=id,name,ipv4,private_net",
			}}
			if m.Health == Healthy {
				return append(steps, Step{Text: "This member answers as healthy: so there is a machine. Do not remove it before it is known whose it is."})
			}
			return append(steps, p.remove(m, "Then remove its member:")...)
		}
		c.add(f)
	}
}

func (c *check) ambiguous(m *Member) bool {
	return slices.ContainsFunc(m.addresses(), func(a netip.Addr) bool { return c.j.ambiguous[a] != nil })
}

func (c *check) noMember(g *group) {
	f := &found{group: g, settling: true, Finding: Finding{
		ID: ServerWithoutMember, Severity: Critical, Subject: g.title(), Pending: c.underWay(g),
		Message:  fmt.Sprintf("%s is a control-plane machine and has no etcd member", g.title()),
		Evidence: g.evidence(),
	}}
	if g.server != nil && slices.ContainsFunc(g.server.Addresses, func(a netip.Addr) bool { return c.j.ambiguous[a] != nil }) {
		f.Pending = "one of its addresses is another server's, too, so a member may be its own"
	}
	f.remedy = func(*planner) []Step {
		at := orPlaceholder(g.address())
		return []Step{
			{Text: "See what etcd says on that machine:", Command: "talosctl -n " + at + " service etcd"},
			{Text: "See whether somebody removed its member:", Command: "talosctl -n " + at + " logs etcd | grep -i removed"},
			{Text: "A member that was removed does not come back by itself. While all other members are healthy, replace the machine; where Cluster API does it, by deleting its Machine."},
		}
	}
	c.add(f)
}

// nodes looks for nodes that are no server's or that the cloud controller cannot place.
func (c *check) nodes() {
	if !c.s.Read[Kubernetes] {
		return
	}
	for _, g := range c.j.groups {
		if len(g.nodes) > 1 {
			c.twoNodes(g)
		}
		for _, n := range g.nodes {
			if id, ok := ServerID(n.ProviderID); ok && g.server == nil && c.s.Read[Cloud] {
				c.goneServer(g, n, id)
			}
			ghost := !n.Ready && len(g.nodes) > 1 // the finding of two nodes has it
			if n.ProviderID == "" && !ghost && c.hasController() {
				c.noProvider(g, n)
			}
		}
	}
}

// hasController reports whether anything shows that a cloud controller is at work, or is waited for.
func (c *check) hasController() bool {
	return slices.ContainsFunc(c.s.Nodes, func(n Node) bool {
		_, ok := ServerID(n.ProviderID)
		return ok || n.Uninitialized
	})
}

func (c *check) twoNodes(g *group) {
	names := make([]string, len(g.nodes))
	pending := ""
	for i, n := range g.nodes {
		names[i] = n.Name
		if n.Deleting {
			pending = n.Name + " is being deleted"
		}
	}
	f := &found{group: g, Finding: Finding{
		ID: ServerTwoNodes, Severity: Warning, Subject: g.title(), Pending: pending,
		Message:  fmt.Sprintf("%s has %d nodes: %s; only one of them has a kubelet", g.title(), len(names), list(names)),
		Evidence: g.evidence(),
	}}
	f.remedy = func(p *planner) []Step {
		var steps []Step
		for _, n := range g.nodes {
			if !n.Ready {
				steps = append(steps, p.deleteGhost(g, n, nil)...)
			}
		}
		if len(steps) == 0 {
			steps = []Step{{Text: "Both are ready still: a ghost becomes NotReady within a minute. Look again then."}}
		}
		return steps
	}
	c.add(f)
}

func (c *check) goneServer(g *group, n *Node, id int64) {
	f := &found{group: g, settling: true, Finding: Finding{
		ID: NodeWithoutServer, Severity: Warning, Subject: n.Name, Node: n.Name, Pending: c.underWay(g),
		Message:  fmt.Sprintf("node %s says that it is server %d, and the cloud has none of that id", n.Name, id),
		Evidence: g.evidence(),
	}}
	f.remedy = func(*planner) []Step {
		return []Step{
			{Text: "Be sure that the token is one of the project that the server was in:", Command: fmt.Sprintf("hcloud server describe %d", id)},
			{Text: "The cloud controller deletes such a node by itself. Where it does not, look at its log, then:", Command: "kubectl delete node " + n.Name},
		}
	}
	c.add(f)
}

func (c *check) noProvider(g *group, n *Node) {
	severity, effect := Warning, "load balancers and routes leave it out"
	if n.Uninitialized {
		severity, effect = Critical, "it keeps the taint node.cloudprovider.kubernetes.io/uninitialized, and nothing is scheduled there"
	}
	why := "no server has one of its addresses"
	switch {
	case g.server == nil:
	case g.server.Name == n.Name:
		why = "the server's name is the node's, so the cloud controller should have found it: see its log"
	default:
		why = fmt.Sprintf("the cloud controller looks for a server named %s, and this one is named %s", n.Name, g.server.Name)
	}
	f := &found{group: g, settling: true, Finding: Finding{
		ID: NodeWithoutProvider, Severity: severity, Subject: n.Name, Node: n.Name,
		Message:  fmt.Sprintf("node %s has no providerID: %s; %s", n.Name, why, effect),
		Evidence: g.evidence(),
	}}
	if n.Deleting || c.young(n.Created) {
		f.Pending = "the node is young, or is being deleted"
	}
	f.remedy = func(p *planner) []Step {
		if g.server != nil && g.server.Name != n.Name {
			if right := slices.IndexFunc(g.nodes, func(o *Node) bool { return o.Name == g.server.Name }); right >= 0 {
				return p.deleteGhost(g, n, g.nodes[right])
			}
			return p.renameNode(g, n, g.server.Name)
		}
		return []Step{{Text: "See what the cloud controller says of it:", Command: "kubectl -n kube-system logs deploy/hcloud-cloud-controller-manager | grep " + n.Name}}
	}
	c.add(f)
}

// servers looks for servers that are one another's.
func (c *check) servers() {
	same := map[string][]Server{}
	for _, s := range c.s.Servers {
		if formed := NodeName(s.Name); formed != "" {
			same[formed] = append(same[formed], s)
		}
	}
	for _, formed := range slices.Sorted(maps.Keys(same)) {
		servers := same[formed]
		if len(servers) < 2 {
			continue
		}
		var says []Evidence
		var ids []string
		for _, s := range servers {
			ids = append(ids, fmt.Sprint(s.ID))
			project := ""
			if s.Project != "" {
				project = " of project " + s.Project
			}
			says = append(says, Evidence{Cloud, fmt.Sprintf("server %d%s is named %s", s.ID, project, s.Name)})
		}
		f := &found{Finding: Finding{
			ID: ServerNameDuplicate, Severity: Warning, Subject: formed, Evidence: says,
			Message: fmt.Sprintf("servers %s would all be the node %s", list(ids), formed),
		}}
		if len(c.j.byServer[servers[0].ID].nodes) > 0 {
			f.Severity = Critical
		}
		last := servers[len(servers)-1]
		f.remedy = func(*planner) []Step {
			return []Step{{
				Text:    "Rename the one that is no node of the cluster, or is the younger one; rename no server that is a node, but replace it.",
				Command: fmt.Sprintf("hcloud server update %d --name <NAME>", last.ID),
			}}
		}
		c.add(f)
	}
	c.addresses()
}

// addresses tells of addresses that are several servers', where something of the cluster has one of them and can so not be placed.
func (c *check) addresses() {
	used := map[netip.Addr]bool{}
	for _, m := range c.s.Members {
		for _, a := range m.addresses() {
			used[a] = true
		}
	}
	for _, n := range c.s.Nodes {
		if n.ProviderID == "" {
			for _, a := range n.Addresses {
				used[a] = true
			}
		}
	}
	for _, a := range slices.SortedFunc(maps.Keys(c.j.ambiguous), netip.Addr.Compare) {
		if !used[a] {
			continue
		}
		ids := strings.Trim(strings.Join(strings.Fields(fmt.Sprint(c.j.ambiguous[a])), ", "), "[]")
		f := &found{Finding: Finding{
			ID: AddressAmbiguous, Severity: Info, Subject: a.String(),
			Message: fmt.Sprintf("%s is an address of the servers %s: what has it is matched by it with none of them", a, ids),
		}}
		f.remedy = func(*planner) []Step {
			return []Step{{Text: "Private networks may use the same addresses. Name the cluster's network, so that only its addresses count: --network NAME."}}
		}
		c.add(f)
	}
}

// quorum tells how close etcd is to standing still.
func (c *check) quorum() {
	if !c.s.Read[Etcd] || len(c.s.Members) == 0 {
		return
	}
	q := QuorumOf(c.s.Members)
	if q.Up == q.Voting || q.Spare() > 0 {
		return
	}
	f := &found{settling: true, Finding: Finding{
		ID: QuorumAtRisk, Severity: Warning, Subject: "etcd",
		Message: "etcd cannot lose another member: " + q.String(),
	}}
	if !q.Holds() {
		f.Severity, f.settling = Critical, false
		f.Message = "etcd has no quorum: " + q.String()
	}
	for _, g := range c.j.groups {
		for _, m := range g.members {
			if m.Learner || m.up() {
				continue
			}
			f.Evidence = append(f.Evidence, Evidence{Etcd, m.label() + " does not answer"})
			switch {
			case !q.Holds():
			case m.Name == "":
				f.Pending = m.label() + " is joining"
			default:
				f.Pending = cmp.Or(f.Pending, c.underWay(g))
			}
		}
	}
	f.remedy = func(*planner) []Step {
		return []Step{{Text: "Bring back the members that do not answer before anything else. Restart, replace and remove no member that is healthy."}}
	}
	c.add(f)
}
