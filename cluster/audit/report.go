package audit

import (
	"cmp"
	_ "embed"
	"slices"
	"time"
)

// Schema names the form of a Report; it changes only with the meaning of its fields.
const Schema = "nametag.audit/v1"

//go:embed schema.json
var schemaJSON []byte

// JSONSchema is the form of a Report as a JSON Schema.
func JSONSchema() []byte { return slices.Clone(schemaJSON) }

// A Report is what a round found.
type Report struct {
	Schema string    `json:"schema"`
	Taken  time.Time `json:"taken"`
	// Sources tells of each source whether it was read, and what it had.
	Sources []SourceReport `json:"sources"`
	Quorum  *Quorum        `json:"quorum,omitempty"`
	// Findings come in the order in which they are to be acted upon.
	Findings []Finding `json:"findings"`
	Machines []Row     `json:"machines"`
}

// A SourceReport is how it went with one source.
type SourceReport struct {
	Source Source `json:"source"`
	// State is read, failed or off (not asked for).
	State   string        `json:"state"`
	Objects int           `json:"objects"`
	Took    time.Duration `json:"took"` // nanoseconds
	Error   string        `json:"error,omitempty"`
}

// The states of a source.
const (
	SourceRead   = "read"
	SourceFailed = "failed"
	SourceOff    = "off"
)

// A Row is one machine: every name that it has.
type Row struct {
	Server   int64    `json:"server,omitempty"`
	Name     string   `json:"name"`
	Cloud    string   `json:"cloud,omitempty"`
	Members  []string `json:"members,omitempty"`
	Nodes    []string `json:"nodes,omitempty"`
	Machines []string `json:"machines,omitempty"`
	Hosts    []string `json:"hosts,omitempty"`
	// Agrees: every name is the server's, and nothing was found.
	Agrees bool `json:"agrees"`
	// Role is control-plane, worker, or empty for a server that is not of the cluster.
	Role string `json:"role,omitempty"`
}

// Worst is the worst severity of the findings, "" where there is none.
func (r *Report) Worst() Severity {
	var worst Severity
	for _, f := range r.Findings {
		if f.Severity.rank() > worst.rank() {
			worst = f.Severity
		}
	}
	return worst
}

// Failed are the sources that were to be read and could not.
func (r *Report) Failed() []SourceReport {
	return slices.DeleteFunc(slices.Clone(r.Sources), func(s SourceReport) bool { return s.State != SourceFailed })
}

func (c *check) report() *Report {
	rank := map[ID]int{}
	for i, k := range catalogue {
		rank[k.ID] = i
	}
	// What would destroy most, soonest, comes first; then what brings the quorum back; then one member after the other.
	first := map[ID]int{CAPIRemovesMembers: -3, QuorumAtRisk: -2, MemberWithoutServer: -1}
	slices.SortStableFunc(c.found, func(a, b *found) int {
		return cmp.Or(
			cmp.Compare(b.Severity.rank(), a.Severity.rank()),
			cmp.Compare(first[a.ID], first[b.ID]),
			cmp.Compare(rank[a.ID], rank[b.ID]),
			cmp.Compare(a.Subject, b.Subject),
		)
	})
	r := &Report{Schema: Schema, Taken: c.s.Taken, Findings: []Finding{}}
	p := &planner{members: slices.Clone(c.s.Members), doomed: c.doomed, acted: map[Act]bool{}}
	touched := map[*group]bool{}
	for _, f := range c.found {
		if f.Pending == "" && f.remedy != nil {
			f.Remedy = f.remedy(p)
		}
		if f.group != nil && f.Severity != Info {
			touched[f.group] = true
		}
		r.Findings = append(r.Findings, f.Finding)
	}
	for _, g := range c.j.groups {
		if row := g.row(); row.Role != "" || touched[g] {
			row.Agrees = !touched[g]
			r.Machines = append(r.Machines, row)
		}
	}
	if c.s.Read[Etcd] {
		q := QuorumOf(c.s.Members)
		r.Quorum = &q
	}
	for _, source := range Sources() {
		state := SourceOff
		if c.s.Read[source] {
			state = SourceRead
		}
		r.Sources = append(r.Sources, SourceReport{Source: source, State: state})
	}
	return r
}

func (g *group) row() Row {
	row := Row{Server: g.serverID, Name: g.title()}
	if g.server != nil {
		row.Cloud = g.server.Name
	}
	for _, m := range g.members {
		row.Members = append(row.Members, cmp.Or(m.Name, "("+m.HexID()+", no name)"))
	}
	for _, n := range g.nodes {
		row.Nodes = append(row.Nodes, n.Name)
	}
	for _, m := range g.machines {
		row.Machines = append(row.Machines, m.Name)
	}
	for _, h := range g.hosts {
		row.Hosts = append(row.Hosts, h.Hostname)
	}
	switch {
	case g.controlPlane() || len(g.members) > 0:
		row.Role = "control-plane"
	case len(g.nodes)+len(g.machines)+len(g.hosts) > 0:
		row.Role = "worker"
	}
	return row
}
