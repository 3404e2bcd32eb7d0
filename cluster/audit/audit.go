package audit

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// DefaultGrace is how long something may be on its way before it is a finding.
const DefaultGrace = 10 * time.Minute

// An Auditor makes reports out of snapshots. Its zero value is ready; it is not for use by several goroutines at once.
type Auditor struct {
	// Grace is how long a machine may take to be complete; 0 is DefaultGrace.
	Grace time.Duration
	// Memory is what was seen before, and learns from each round. Without one nothing is known of renames, and what may be
	// a step of a replacement is judged by what else is seen of that machine.
	Memory *Memory
	// Cluster is the Cluster of Cluster API that is looked at, as namespace/name. "" is that whose Machines are the nodes.
	Cluster string
}

// Audit compares.
func (a *Auditor) Audit(s *Snapshot) *Report {
	c := &check{s: scoped(s, a.Cluster), grace: cmp.Or(a.Grace, DefaultGrace), memory: a.Memory}
	c.j = join(c.s)
	if c.memory != nil {
		c.memory.see(s)
	}
	c.names()
	c.members()
	c.nodes()
	c.servers()
	c.clusterAPI()
	c.quorum()
	if c.memory != nil {
		c.settle()
	}
	return c.report()
}

// scoped leaves out the Machines of other clusters: a management cluster has those of many.
func scoped(s *Snapshot, cluster string) *Snapshot {
	clusters := map[string]bool{}
	if cluster != "" {
		clusters[cluster] = true
	} else {
		for _, g := range join(s).groups {
			if len(g.nodes)+len(g.members) == 0 {
				continue
			}
			for _, m := range g.machines {
				clusters[m.Namespace+"/"+m.Cluster] = true
			}
		}
		if len(clusters) == 0 && len(s.Nodes)+len(s.Members) == 0 {
			return s
		}
	}
	own := *s
	own.Machines = slices.DeleteFunc(slices.Clone(s.Machines), func(m Machine) bool { return !clusters[m.Namespace+"/"+m.Cluster] })
	own.ControlPlanes = slices.DeleteFunc(slices.Clone(s.ControlPlanes), func(p ControlPlane) bool { return !clusters[p.Namespace+"/"+p.Cluster] })
	return &own
}

// A check is one round of an auditor.
type check struct {
	s      *Snapshot
	j      *joined
	grace  time.Duration
	memory *Memory
	found  []*found
	doomed map[uint64]bool // members that a control-plane provider would remove
}

// found is a finding whose remedy is not made yet: it depends on those that come before it.
type found struct {
	Finding
	group    *group
	settling bool // it counts only when it stays
	remedy   func(*planner) []Step
}

func (c *check) add(f *found) {
	if f.group != nil {
		f.Server = f.group.serverID
		for _, n := range f.group.nodes {
			f.Node = cmp.Or(f.Node, n.Name)
		}
	}
	if f.Pending != "" {
		f.Severity = Info
	}
	c.found = append(c.found, f)
}

// young reports whether something is younger than the grace. What has no time is old.
func (c *check) young(created time.Time) bool {
	return !created.IsZero() && c.s.Taken.Sub(created) < c.grace
}

// underWay says why the machine may be in the middle of coming or going, "" where nothing says so.
func (c *check) underWay(g *group) string {
	if why, leaving := g.leaving(); leaving {
		return why
	}
	for _, m := range g.machines {
		if c.young(m.Created) {
			return "its Machine " + m.key() + " is young"
		}
		if m.NodeRef == "" {
			return "its Machine " + m.key() + " has no node yet"
		}
	}
	for _, n := range g.nodes {
		if c.young(n.Created) {
			return "its node " + n.Name + " is young"
		}
		if !n.Ready && c.young(n.ReadySince) {
			return "its node " + n.Name + " is not ready, not for long"
		}
	}
	if g.server != nil {
		if c.young(g.server.Created) {
			return "its server is young"
		}
		if g.server.Status == "initializing" || g.server.Status == "starting" || g.server.Status == "rebuilding" {
			return "its server is " + g.server.Status
		}
	}
	return ""
}

// settle makes what was not there for long a finding that is not yet one.
func (c *check) settle() {
	keys := make([]string, len(c.found))
	for i, f := range c.found {
		keys[i] = f.Key()
	}
	c.memory.keep(c.s.Taken, keys, c.s.Incomplete)
	for _, f := range c.found {
		since := c.memory.Since[f.Key()]
		if f.settling && f.Pending == "" && c.s.Taken.Sub(since) < c.grace {
			f.Pending = "seen since " + since.UTC().Format(time.RFC3339) + ", not for long"
			f.Severity = Info
		}
	}
}

// evidence is what every source says of the machine.
func (g *group) evidence() []Evidence {
	var all []Evidence
	if g.server != nil {
		all = append(all, Evidence{Cloud, fmt.Sprintf("server %d is named %s", g.server.ID, g.server.Name)})
	}
	for _, m := range g.members {
		name := "has no name yet"
		if m.Name != "" {
			name = "is named " + m.Name
		}
		learner := ""
		if m.Learner {
			learner = ", a learner"
		}
		all = append(all, Evidence{Etcd, fmt.Sprintf("member %s %s%s, at %s", m.HexID(), name, learner, strings.Join(m.PeerURLs, ", "))})
	}
	for _, n := range g.nodes {
		id := "no providerID"
		if n.ProviderID != "" {
			id = n.ProviderID
		}
		ready := "ready"
		if !n.Ready {
			ready = "not ready"
		}
		all = append(all, Evidence{Kubernetes, fmt.Sprintf("node %s, %s, %s", n.Name, id, ready)})
	}
	for _, m := range g.machines {
		says := fmt.Sprintf("Machine %s, infrastructure %s %s", m.key(), m.InfraKind, m.InfraName)
		if m.NodeRef != "" {
			says += ", nodeRef " + m.NodeRef
		}
		if m.Hostname != "" {
			says += ", MachineHostName " + m.Hostname
		}
		all = append(all, Evidence{ClusterAPI, says})
	}
	for _, h := range g.hosts {
		all = append(all, Evidence{Talos, fmt.Sprintf("%s has the hostname %s", h.Address, h.Hostname)})
	}
	return all
}
