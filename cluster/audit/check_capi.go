package audit

import (
	"fmt"
	"slices"
	"strings"
)

// clusterAPI foresees what a control-plane provider will do to etcd's members, and looks at the nodeRefs.
func (c *check) clusterAPI() {
	if !c.s.Read[ClusterAPI] {
		return
	}
	c.nodeRefs()
	clusters := map[string][]*Machine{}
	var order []string
	for i := range c.s.Machines {
		m := &c.s.Machines[i]
		if !m.ControlPlane {
			continue
		}
		key := m.Namespace + "/" + m.Cluster
		if clusters[key] == nil {
			order = append(order, key)
		}
		clusters[key] = append(clusters[key], m)
	}
	if c.s.Read[Etcd] && len(order) == 1 { // of several nobody knows whose etcd this is: --cluster says it
		c.removals(order[0], clusters[order[0]])
	}
}

// A providerRule is how a version of the control-plane provider tells what a Machine's member is called.
type providerRule struct {
	what string
	name func(*Machine) string
}

var providerRules = []providerRule{
	{"the first label of each Machine's nodeRef", func(m *Machine) string { return FirstLabel(m.NodeRef) }},
	{"each Machine's MachineHostName where there is one", func(m *Machine) string {
		if m.Hostname != "" {
			return FirstLabel(m.Hostname)
		}
		return FirstLabel(m.NodeRef)
	}},
}

// victims are the members that a control-plane provider removes by force because no Machine has their name. It waits while a
// Machine has no node or a member has no name.
func (r providerRule) victims(machines []*Machine, members []Member) []Member {
	names := map[string]bool{}
	for _, m := range machines {
		if m.NodeRef == "" {
			return nil
		}
		names[r.name(m)] = true
	}
	var gone []Member
	for _, m := range members {
		if m.Name == "" {
			return nil
		}
		if !names[m.Name] {
			gone = append(gone, m)
		}
	}
	return gone
}

func (c *check) removals(cluster string, machines []*Machine) {
	homes := map[uint64]*group{}
	for _, g := range c.j.groups {
		for _, m := range g.members {
			homes[m.ID] = g
		}
	}
	living := func(m Member) bool { // the provider is right to remove the others
		return m.Health == Healthy || homes[m.ID].server != nil || (!c.s.Read[Cloud] && m.Health == HealthUnknown && len(homes[m.ID].nodes) > 0)
	}
	var doomed []Member
	var rules []string
	for _, rule := range providerRules {
		victims := slices.DeleteFunc(rule.victims(machines, c.s.Members), func(m Member) bool { return !living(m) })
		if len(victims) == 0 {
			continue
		}
		rules = append(rules, rule.what)
		for _, m := range victims {
			if !slices.ContainsFunc(doomed, func(o Member) bool { return o.ID == m.ID }) {
				doomed = append(doomed, m)
			}
		}
	}
	if len(doomed) == 0 {
		return
	}
	c.doomed = map[uint64]bool{}
	left := slices.Clone(c.s.Members)
	var names []string
	f := &found{Finding: Finding{ID: CAPIRemovesMembers, Severity: Critical, Subject: cluster}}
	for _, m := range doomed {
		c.doomed[m.ID] = true
		names = append(names, m.label())
		left = slices.DeleteFunc(left, func(o Member) bool { return o.ID == m.ID })
		f.Evidence = append(f.Evidence, homes[m.ID].evidence()...)
	}
	provider, paused := c.provider(cluster)
	when := "will remove"
	if paused {
		when = "is paused, and WILL REMOVE AS SOON AS IT IS UNPAUSED"
	}
	rest := QuorumOf(left)
	f.Message = fmt.Sprintf("%s %s %s, by force, for it compares the members' names with %s and finds no Machine; %s", provider, when, list(names),
		strings.Join(rules, ", or in newer versions with "), remaining(rest))
	namespace, name, _ := strings.Cut(cluster, "/")
	f.remedy = func(*planner) []Step {
		return []Step{
			{Text: "Before anything else, keep Cluster API's hands off this cluster. Do not unpause it while this finding is there.", Command: fmt.Sprintf(`kubectl -n %s patch cluster %s --type merge -p '{"spec":{"paused":true}}'`, namespace, name)},
			{Text: "Then make the names agree, one member at a time, by the remedies of the members' findings."},
			{Text: "Unpause it when this finding has gone.", Command: fmt.Sprintf(`kubectl -n %s patch cluster %s --type merge -p '{"spec":{"paused":false}}'`, namespace, name)},
		}
	}
	c.add(f)
}

func remaining(q Quorum) string {
	switch q.Voting {
	case 0:
		return "no member would be left"
	case 1:
		return "one member would be left"
	}
	return fmt.Sprintf("%d members would be left", q.Voting)
}

// provider names the control-plane object of a cluster and tells whether it is paused.
func (c *check) provider(cluster string) (string, bool) {
	for _, p := range c.s.ControlPlanes {
		if p.Namespace+"/"+p.Cluster == cluster {
			return p.Kind + " " + p.Namespace + "/" + p.Name, p.Paused
		}
	}
	return "the control-plane provider of " + cluster, false
}

// nodeRefs looks for Machines that take another machine's node for theirs, or one that is not there.
func (c *check) nodeRefs() {
	if !c.s.Read[Kubernetes] {
		return
	}
	where := map[string]*group{}
	for _, g := range c.j.groups {
		for _, n := range g.nodes {
			where[n.Name] = g
		}
	}
	for _, g := range c.j.groups {
		for _, m := range g.machines {
			other := where[m.NodeRef]
			if m.NodeRef == "" || other == g {
				continue
			}
			f := &found{group: g, settling: other == nil, Finding: Finding{
				ID: MachineNameDiffers, Severity: Warning, Subject: m.key(), Evidence: g.evidence(),
				Message: fmt.Sprintf("Machine %s has the nodeRef %s, and there is no such node", m.key(), m.NodeRef),
			}}
			if other == nil {
				f.Pending = c.underWay(g)
			} else {
				f.Severity = Critical
				f.Message = fmt.Sprintf("Machine %s of %s has the nodeRef %s, which is a node of %s", m.key(), g.title(), m.NodeRef, other.title())
				f.Evidence = append(f.Evidence, other.evidence()...)
			}
			f.remedy = func(*planner) []Step {
				return []Step{
					{Text: "Cluster API finds a node by its providerID. See what both say:", Command: "kubectl get node -o custom-columns=NAME:.metadata.name,ID:.spec.providerID"},
					{Text: "Make the node's name right first; the nodeRef follows when the Machine's node is found again."},
				}
			}
			c.add(f)
		}
	}
}
