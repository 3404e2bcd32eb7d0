package audit

import (
	"fmt"
	"slices"
	"strings"
)

// names compares every name of a machine with its server's or, where the cloud was not read, with its node's.
func (c *check) names() {
	for _, g := range c.j.groups {
		if g.server != nil {
			if !c.renamed(g) {
				c.against(g, g.server.Name, "its server is named")
			}
			continue
		}
		if !c.s.Read[Cloud] && len(g.nodes) > 0 {
			c.against(g, g.nodes[0].Name, "its node is named")
		}
	}
}

// renamed makes the finding of a server that was renamed in the cloud, and reports whether its machine still goes by the
// first name throughout: then it is the one finding, and not the cause of five.
func (c *check) renamed(g *group) bool {
	if c.memory == nil {
		return false
	}
	first := c.memory.Servers[g.serverID]
	if first == nil || first.Name == g.server.Name {
		return false
	}
	f := &found{group: g, Finding: Finding{
		ID: ServerRenamed, Severity: Warning, Subject: g.server.Name,
		Message: fmt.Sprintf("server %d was %s when it was first seen and is %s now: the next reboot may bring the new name in, as a second node and a renamed member", g.serverID, first.Name, g.server.Name),
		Evidence: append([]Evidence{{Cloud, fmt.Sprintf("first seen as %s at %s", first.Name, first.Seen.UTC().Format("2006-01-02 15:04:05Z"))}},
			g.evidence()...),
	}}
	f.remedy = func(*planner) []Step {
		return []Step{
			{Text: "Name it back, if nobody meant this:", Command: fmt.Sprintf("hcloud server update %d --name %s", g.serverID, first.Name)},
			{Text: "Or, where the node is to keep its name for good whatever the cloud calls its server, pin it:", Command: "nametagctl pin set -n " + orPlaceholder(g.address())},
			{Text: "Or take the new name, which is a new node: drain it, reboot it, delete the old node, and say so here:", Command: fmt.Sprintf("nametagctl audit accept %d", g.serverID)},
		}
	}
	c.add(f)
	same := func(name string) bool { return name == "" || Agrees(first.Name, name) }
	return !slices.ContainsFunc(g.nodes, func(n *Node) bool { return !same(n.Name) }) &&
		!slices.ContainsFunc(g.members, func(m *Member) bool { return !same(m.Name) }) &&
		!slices.ContainsFunc(g.hosts, func(h *Host) bool { return !same(h.Hostname) })
}

// against compares everything of a machine with one name.
func (c *check) against(g *group, name, whose string) {
	for _, m := range g.members {
		if m.Name != "" && !Agrees(name, m.Name) {
			c.memberName(g, m, name, whose)
		}
	}
	for _, n := range g.nodes {
		if !Agrees(name, n.Name) {
			c.nodeName(g, n, name, whose)
		}
	}
	for _, h := range g.hosts {
		if h.Hostname != "" && !Agrees(name, h.Hostname) {
			c.hostName(g, h, name, whose)
		}
	}
}

func (c *check) memberName(g *group, m *Member, name, whose string) {
	id, sort := MemberNameDiffers, "is named"
	if Invented(m.Name) {
		id, sort = MemberNameInvented, "goes by the invented name"
	}
	f := &found{group: g, Finding: Finding{
		ID: id, Severity: Critical, Subject: m.Name,
		Message:  fmt.Sprintf("etcd member %s %s %s, and %s %s", m.HexID(), sort, m.Name, whose, name),
		Evidence: g.evidence(),
	}}
	f.remedy = func(p *planner) []Step { return p.rename(g, m, name) }
	c.add(f)
}

func (c *check) nodeName(g *group, n *Node, name, whose string) {
	id, sort := NodeNameDiffers, "has another name"
	if Invented(n.Name) {
		id, sort = NodeNameInvented, "goes by an invented name"
	}
	f := &found{group: g, Finding: Finding{
		ID: id, Severity: Critical, Subject: n.Name, Node: n.Name,
		Message:  fmt.Sprintf("node %s %s, and %s %s", n.Name, sort, whose, name),
		Evidence: g.evidence(),
	}}
	if n.Deleting {
		f.Pending = "the node is being deleted"
	}
	if !n.Ready && slices.ContainsFunc(g.nodes, func(other *Node) bool { return other.Ready && Agrees(name, other.Name) }) {
		f.Severity = Warning // a ghost: the machine itself is rightly named by now
	}
	f.remedy = func(p *planner) []Step {
		if right := slices.IndexFunc(g.nodes, func(other *Node) bool { return Agrees(name, other.Name) }); right >= 0 {
			return p.deleteGhost(g, n, g.nodes[right])
		}
		return p.renameNode(g, n, name)
	}
	c.add(f)
}

func (c *check) hostName(g *group, h *Host, name, whose string) {
	f := &found{group: g, Finding: Finding{
		ID: HostNameDiffers, Severity: Warning, Subject: h.Hostname + " at " + h.Address.String(),
		Message:  fmt.Sprintf("the system at %s has the hostname %s, and %s %s", h.Address, h.Hostname, whose, name),
		Evidence: g.evidence(),
	}}
	f.remedy = func(*planner) []Step {
		return []Step{
			{Text: "See where the hostname comes from: the layer that wins is the last of the list.", Command: "talosctl -n " + h.Address.String() + " get hostnamespecs --namespace network-config"},
			{Text: "A hostname in the machine configuration outranks the server's name: take it away, or name the server so.", Command: "talosctl -n " + h.Address.String() + " edit machineconfig"},
		}
	}
	c.add(f)
}

// orPlaceholder is an address for a command line, or the place for one.
func orPlaceholder(value string) string {
	if value == "" {
		return "<ADDRESS>"
	}
	return value
}

// list joins words as a sentence has them.
func list(words []string) string {
	switch len(words) {
	case 0:
		return "none"
	case 1:
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}
