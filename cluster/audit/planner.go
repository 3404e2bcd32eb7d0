package audit

import (
	"fmt"
	"slices"
	"strings"
)

// A planner writes the remedies of one report. It knows what etcd's members will be when the remedies before have been
// carried out, so that together, too, they never cost the quorum.
type planner struct {
	members []Member
	doomed  map[uint64]bool
	acted   map[Act]bool
}

// asks is how etcd is asked whether all is well.
func (p *planner) asks(at string) Step {
	return Step{
		Text:    fmt.Sprintf("Go on only while every other member is healthy (%s).", QuorumOf(p.members)),
		Command: "talosctl -n " + orPlaceholder(at) + " etcd status",
	}
}

// can takes an act into the plan if it leaves etcd its quorum.
func (p *planner) can(act Act) bool {
	if !Safe(p.members, act) {
		return false
	}
	if act.Verb == Remove {
		p.members = slices.DeleteFunc(p.members, func(m Member) bool { return m.ID == act.Member })
	}
	return true
}

func (p *planner) blocked(what string) Step {
	return Step{Text: fmt.Sprintf("%s would cost etcd its quorum now (%s). Bring back the members that do not answer first, then look again.", what, QuorumOf(p.members))}
}

// rename brings a member to its right name. etcd takes it when it starts anew; the member keeps its id and its data.
func (p *planner) rename(g *group, m *Member, name string) []Step {
	at := orPlaceholder(g.address())
	act := Act{Restart, m.ID}
	if p.acted[act] {
		return []Step{{Text: "The remedy above restarts this machine: that renames its member, too."}}
	}
	var steps []Step
	if p.doomed[m.ID] {
		steps = append(steps, Step{Text: "First the remedy of " + string(CAPIRemovesMembers) + ": Cluster API is kept from acting."})
	}
	steps = append(steps, Step{
		Text:    fmt.Sprintf("See that the machine knows its name by now: it must say %s. Where it does not, it will make the same mistake again: put nametag into its image first.", FirstLabel(name)),
		Command: "talosctl -n " + at + " get hostname",
	})
	if !p.can(act) {
		return append(steps, p.blocked("Restarting this member"))
	}
	p.acted[act] = true
	return append(steps,
		p.asks(at),
		Step{
			Text:    "Restart this one machine, no other with it. Do not remove the member: it keeps its id and its data, and comes back under its right name.",
			Command: "talosctl -n " + at + " reboot --wait", Act: &act,
		},
		Step{Text: "See that the member has the name " + FirstLabel(name) + " and is healthy, before the next machine.", Command: "talosctl -n " + at + " etcd members"},
	)
}

// renameNode brings a node to its right name, which to Kubernetes is another node.
func (p *planner) renameNode(g *group, n *Node, name string) []Step {
	at := orPlaceholder(g.address())
	steps := []Step{{
		Text:    fmt.Sprintf("See that the machine knows its name by now: it must say %s. Where it does not, put nametag into its image first.", FirstLabel(name)),
		Command: "talosctl -n " + at + " get hostname",
	}}
	restart := Step{Text: "Restart it; the kubelet registers the node " + NodeName(name) + ".", Command: "talosctl -n " + at + " reboot --wait"}
	if len(g.members) == 1 {
		act := Act{Restart, g.members[0].ID}
		switch {
		case p.acted[act]:
			restart = Step{Text: "The remedy above restarts this machine; then the kubelet registers the node " + NodeName(name) + "."}
		case !p.can(act):
			return append(steps, p.blocked("Restarting this machine, which has an etcd member,"))
		default:
			p.acted[act] = true
			restart.Act = &act
			steps = append(steps, p.asks(at))
		}
	} else if len(g.members) > 1 {
		return append(steps, Step{Text: "First the remedy of " + string(ServerTwoMembers) + "."})
	}
	return append(steps,
		Step{Text: "Move the pods away:", Command: "kubectl drain " + n.Name + " --ignore-daemonsets --delete-emptydir-data"},
		restart,
		Step{Text: "See that it is there and ready; approve its certificate where nobody does that:", Command: "kubectl get node " + NodeName(name) + "; kubectl get csr"},
		Step{Text: "Then delete the old node:", Command: "kubectl delete node " + n.Name},
	)
}

// deleteGhost removes a node that has no kubelet any more.
func (p *planner) deleteGhost(_ *group, ghost, right *Node) []Step {
	var steps []Step
	if right != nil {
		steps = append(steps, Step{Text: "See that the right node is ready:", Command: "kubectl get node " + right.Name})
	}
	return append(steps, Step{Text: "Delete the node that has no kubelet (NotReady). Nothing runs there; its pods are made elsewhere.", Command: "kubectl delete node " + ghost.Name})
}

// remove takes a member away, if etcd can be without it.
func (p *planner) remove(m *Member, text string) []Step {
	act := Act{Remove, m.ID}
	if p.acted[act] {
		return []Step{{Text: "The remedy above removes this member."}}
	}
	if !p.can(act) {
		return []Step{p.blocked("Removing this member")}
	}
	p.acted[act] = true
	return []Step{
		{Text: strings.TrimSuffix(text, ":") + ", while every other member is healthy:", Command: "talosctl -n <HEALTHY-MEMBER> etcd remove-member " + m.HexID(), Act: &act},
	}
}
