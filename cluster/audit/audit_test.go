package audit

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

const long = 24 * time.Hour

// aCluster is one of three control-plane machines and a worker, in which all names agree.
func aCluster() *Snapshot {
	s := &Snapshot{Taken: now, Read: map[Source]bool{Cloud: true, Etcd: true, Kubernetes: true, ClusterAPI: true, Talos: true}}
	for i := range 3 {
		addMachine(s, i+1, fmt.Sprintf("cp-%d", i+1), true)
	}
	addMachine(s, 4, "worker-1", false)
	s.ControlPlanes = []ControlPlane{{Namespace: "default", Name: "example-controlplane", Kind: "TalosControlPlane", Cluster: "example"}}
	return s
}

func address(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}) }

func addMachine(s *Snapshot, n int, name string, controlPlane bool) {
	a := []netip.Addr{address(n)}
	id := int64(100 + n)
	provider := fmt.Sprintf("hcloud://%d", id)
	s.Servers = append(s.Servers, Server{ID: id, Name: name, Status: "running", Created: now.Add(-long), Addresses: a})
	s.Nodes = append(s.Nodes, Node{
		Name: NodeName(name), ProviderID: provider, Addresses: a, Hostname: NodeName(name), Created: now.Add(-long),
		Ready: true, ReadySince: now.Add(-long), ControlPlane: controlPlane,
	})
	s.Machines = append(s.Machines, Machine{
		Namespace: "default", Name: "machine-" + name, Cluster: "example", InfraKind: "HCloudMachine", InfraName: name, ProviderID: provider,
		NodeRef: NodeName(name), Hostname: NodeName(name), Addresses: a, ControlPlane: controlPlane, Created: now.Add(-long),
	})
	s.Hosts = append(s.Hosts, Host{Address: address(n), Hostname: FirstLabel(name)})
	if controlPlane {
		s.Members = append(s.Members, Member{ID: uint64(0xa0 + n), Name: FirstLabel(name), PeerURLs: []string{"https://" + address(n).String() + ":2380"}, Health: Healthy})
	}
}

func ids(r *Report, least Severity) []string {
	var all []string
	for _, f := range r.Findings {
		if f.Severity.AtLeast(least) {
			all = append(all, string(f.ID))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func TestWhatIsFound(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Snapshot)
		want   string // the ids at warning or worse
	}{
		"nothing, where all names agree": {func(*Snapshot) {}, ""},
		"nothing, where the kubelet and Talos formed the name": {func(s *Snapshot) {
			s.Servers[0].Name = "CP_1.example.com"
			s.Nodes[0].Name, s.Members[0].Name, s.Hosts[0].Hostname = "cp-1", "cp-1", "CP_1"
		}, ""},
		"nothing, where the node is registered with its domain": {func(s *Snapshot) {
			s.Servers[0].Name, s.Nodes[0].Name, s.Machines[0].NodeRef = "cp-1.example.com", "cp-1.example.com", "cp-1.example.com"
		}, ""},
		"a member under an invented name, and what Cluster API would do about it": {func(s *Snapshot) {
			s.Members[0].Name = "talos-8qy-c5p"
		}, "capi-removes-members member-name-invented"},
		"the seed's whole failure: invented member, ghost node, second node": {func(s *Snapshot) {
			s.Members[0].Name = "talos-8qy-c5p"
			ghost := s.Nodes[0]
			ghost.Name, ghost.ProviderID, ghost.Ready, ghost.Uninitialized = "talos-8qy-c5p", "", false, true
			s.Nodes = append(s.Nodes, ghost)
		}, "capi-removes-members member-name-invented node-name-invented server-two-nodes"},
		"a member under another name": {func(s *Snapshot) {
			s.Members[0].Name = "old-name"
			s.Read[ClusterAPI], s.Machines = false, nil
		}, "member-name-differs"},
		"a node that came back as talos-… after an upgrade": {func(s *Snapshot) {
			s.Nodes[3].Name, s.Nodes[3].ProviderID, s.Nodes[3].Uninitialized = "talos-ib7-mmy", "", true
			s.Hosts[3].Hostname = "talos-ib7-mmy"
			s.Read[ClusterAPI], s.Machines = false, nil
		}, "host-name-differs node-name-invented node-without-provider-id"},
		"a node named by MachineName": {func(s *Snapshot) {
			s.Nodes[3].Name, s.Machines[3].NodeRef = "machine-worker-1", "machine-worker-1"
		}, "node-name-differs"},
		"a member whose server is gone": {func(s *Snapshot) {
			s.Servers = s.Servers[1:]
			s.Nodes, s.Machines, s.Hosts = s.Nodes[1:], s.Machines[1:], s.Hosts[1:]
			s.Members[0].Health = Unhealthy
		}, "member-without-server quorum-at-risk"},
		"two members down: no quorum": {func(s *Snapshot) {
			s.Members[0].Health, s.Members[1].Health = Unhealthy, Unhealthy
		}, "quorum-at-risk"},
		"a control-plane machine whose member was removed": {func(s *Snapshot) {
			s.Members = s.Members[1:]
		}, "server-without-member"},
		"two members of one server": {func(s *Snapshot) {
			s.Members = append(s.Members, Member{ID: 7, Name: "cp-1", PeerURLs: s.Members[0].PeerURLs, Health: Unhealthy})
		}, "quorum-at-risk server-two-members"},
		"a node of no server": {func(s *Snapshot) {
			s.Nodes[3].ProviderID, s.Machines = "hcloud://999", nil
		}, "node-without-server"},
		"two servers that would be one node": {func(s *Snapshot) {
			s.Servers = append(s.Servers, Server{ID: 900, Name: "CP_1"})
		}, "server-name-duplicate"},
		"a Machine that took another one's node": {func(s *Snapshot) {
			s.Machines[3].NodeRef = "cp-1"
		}, "machine-name-differs"},
		"a Machine whose node does not exist": {func(s *Snapshot) {
			s.Machines[3].NodeRef = "nobody"
		}, "machine-name-differs"},
		"MachineHostName that no member has, in newer versions": {func(s *Snapshot) {
			s.Machines[0].Hostname = "machine-cp-1"
		}, "capi-removes-members"},
		"nothing: Cluster API rightly removes the member of a machine that is gone, and waits": {func(s *Snapshot) {
			s.Members = append(s.Members, Member{ID: 7, PeerURLs: []string{"https://10.0.0.9:2380"}})
			s.Machines[0].Hostname = "machine-cp-1" // would remove one, if no member were without a name
		}, "member-without-server"},
		"what is no server of this cloud is left alone": {func(s *Snapshot) {
			s.Nodes = append(s.Nodes, Node{Name: "robot", ProviderID: "hrobot://5", Created: now.Add(-long), Ready: true})
		}, ""},
		"a dedicated server has a member and is no server of the cloud": {func(s *Snapshot) {
			s.Servers = s.Servers[1:]
			s.Nodes[0].ProviderID, s.Machines[0].ProviderID = "hrobot://1", "hrobot://1"
		}, ""},
		"servers of the project that are not of the cluster are left alone": {func(s *Snapshot) {
			s.Servers = append(s.Servers, Server{ID: 900, Name: "bastion", Addresses: []netip.Addr{address(90)}})
		}, ""},
		"Machines of another cluster are left alone": {func(s *Snapshot) {
			s.Machines = append(s.Machines, Machine{Namespace: "default", Name: "other", Cluster: "other", ProviderID: "hcloud://901", ControlPlane: true, NodeRef: "other-1"})
			s.Servers = append(s.Servers, Server{ID: 901, Name: "other-1"})
		}, ""},
		"a new server with the address of the one before it": {func(s *Snapshot) {
			// cp-1 was replaced by hand: its server is gone, cp-9 has its address, its node and member are still there.
			s.Servers[0] = Server{ID: 109, Name: "cp-9", Status: "running", Created: now.Add(-long), Addresses: s.Servers[0].Addresses}
			s.Members[0].Health = Unhealthy
			s.Machines, s.Hosts, s.Read[ClusterAPI] = nil, nil, false
		}, "member-without-server node-without-server quorum-at-risk"},
		"without the cloud, the node's name is what counts": {func(s *Snapshot) {
			s.Servers, s.Read[Cloud] = nil, false
			s.Members[0].Name = "talos-8qy-c5p"
			s.Machines, s.Read[ClusterAPI] = nil, false
		}, "member-name-invented"},
		"nothing, where a source was not read": {func(s *Snapshot) {
			s.Members, s.Read[Etcd] = nil, false
		}, ""},
		"two private networks with the same addresses join nobody by them": {func(s *Snapshot) {
			s.Servers = append(s.Servers, Server{ID: 900, Name: "other", Addresses: []netip.Addr{address(1)}})
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := aCluster()
			c.change(s)
			r := (&Auditor{}).Audit(s)
			if got := strings.Join(ids(r, Warning), " "); got != c.want {
				t.Errorf("found %q, want %q", got, c.want)
				for _, f := range r.Findings {
					t.Logf("%s %s: %s (%s)", f.Severity, f.Key(), f.Message, f.Pending)
				}
			}
			for _, f := range r.Findings {
				if f.Severity != Info && len(f.Remedy) == 0 {
					t.Errorf("%s has no remedy", f.Key())
				}
			}
		})
	}
}

func TestEveryIDIsInTheCatalogueOnce(t *testing.T) {
	seen := map[ID]bool{}
	for _, k := range Catalogue() {
		if seen[k.ID] || k.Meaning == "" {
			t.Errorf("%s", k.ID)
		}
		seen[k.ID] = true
	}
}

func TestTheSeedsMemberIsRestartedAndNotRemoved(t *testing.T) {
	s := aCluster()
	s.Servers[0].Name = "example-controlplane-3d3d26d1-69c5k"
	for _, name := range []*string{&s.Nodes[0].Name, &s.Machines[0].NodeRef, &s.Machines[0].Hostname, &s.Hosts[0].Hostname} {
		*name = s.Servers[0].Name
	}
	s.Members[0].Name = "talos-8qy-c5p"
	r := (&Auditor{}).Audit(s)
	if r.Findings[0].ID != CAPIRemovesMembers {
		t.Errorf("first is %s, and Cluster API removes the member meanwhile", r.Findings[0].ID)
	}
	var acts []Act
	for _, f := range r.Findings {
		for _, step := range f.Remedy {
			if step.Act != nil {
				acts = append(acts, *step.Act)
			}
		}
	}
	if want := []Act{{Restart, 0xa1}}; !slices.Equal(acts, want) {
		t.Errorf("the remedies do %v, want %v", acts, want)
	}
}

func TestARenameInTheCloudIsToldAtOnceAndOnce(t *testing.T) {
	memory := &Memory{}
	a := Auditor{Memory: memory}
	s := aCluster()
	if got := ids(a.Audit(s), Info); len(got) != 0 {
		t.Fatal(got)
	}
	s = aCluster()
	s.Taken = now.Add(time.Second)
	s.Servers[0].Name = "renamed"
	if got := ids(a.Audit(s), Info); !slices.Equal(got, []string{"server-renamed"}) {
		t.Errorf("found %v", got)
	}
	if _, before, err := memory.Accept(s.Servers, "renamed"); err != nil || before != "cp-1" {
		t.Errorf("%q, %v", before, err)
	}
	// Now the new name is the right one, and what still has the old one is wrong.
	if got := ids(a.Audit(s), Warning); !slices.Equal(got, []string{"host-name-differs", "member-name-differs", "node-name-differs"}) {
		t.Errorf("found %v", got)
	}
	// A round without the cloud forgets nothing.
	s.Read[Cloud], s.Servers = false, nil
	a.Audit(s)
	if memory.Servers[101] == nil || memory.Servers[101].Gone != nil {
		t.Errorf("%+v", memory.Servers[101])
	}
}

func TestWithAMemoryWhatDoesNotStayIsNoFinding(t *testing.T) {
	a := Auditor{Memory: &Memory{}}
	s := aCluster()
	s.Members = s.Members[1:]
	for _, c := range []struct {
		after time.Duration
		want  []string
	}{{0, nil}, {9 * time.Minute, nil}, {11 * time.Minute, []string{"server-without-member"}}} {
		s.Taken = now.Add(c.after)
		if got := ids(a.Audit(s), Warning); !slices.Equal(got, c.want) {
			t.Errorf("after %s: %v, want %v", c.after, got, c.want)
		}
	}
}

func TestAnAddressOfTwoServersIsTheOnesWhoseNodeHasIt(t *testing.T) {
	s := aCluster()
	s.Servers = append(s.Servers, Server{ID: 900, Name: "other", Addresses: []netip.Addr{address(1)}})
	s.Members[0].Name = "talos-8qy-c5p"
	s.Machines, s.Read[ClusterAPI] = nil, false
	if got := ids((&Auditor{}).Audit(s), Info); !slices.Equal(got, []string{"member-name-invented"}) {
		t.Errorf("%v", got)
	}
	s.Nodes[0].Addresses = nil // now nobody tells whose it is
	s.Hosts = nil
	if got := ids((&Auditor{}).Audit(s), Info); !slices.Equal(got, []string{"address-ambiguous", "member-without-server", "server-without-member"}) {
		t.Errorf("%v", got)
	}
}

func TestAMemberThatHasNotStartedIsNotUp(t *testing.T) {
	q := QuorumOf([]Member{{ID: 1, Name: "a"}, {ID: 2, Name: "b", Health: Healthy}, {ID: 3}, {ID: 4, Learner: true, Name: "d"}})
	if q != (Quorum{Voting: 3, Up: 2, Needed: 2}) || q.Spare() != 0 {
		t.Errorf("%+v", q)
	}
}

// Two of five are dead: nothing may be restarted. When their members are removed, three of three are up, and one may.
func TestARemedyCountsWithThoseBeforeIt(t *testing.T) {
	s := aCluster()
	addMachine(s, 5, "cp-5", true)
	addMachine(s, 6, "cp-6", true)
	s.Members[3].Health, s.Members[4].Health = Unhealthy, Unhealthy
	s.Servers, s.Nodes, s.Machines, s.Hosts = s.Servers[:4], s.Nodes[:4], nil, nil
	s.Read[ClusterAPI] = false
	s.Members[0].Name = "talos-8qy-c5p"
	var acts []Act
	for _, f := range (&Auditor{}).Audit(s).Findings {
		for _, step := range f.Remedy {
			if step.Act != nil {
				acts = append(acts, *step.Act)
			}
		}
	}
	if want := []Act{{Remove, 0xa5}, {Remove, 0xa6}, {Restart, 0xa1}}; !slices.Equal(acts, want) {
		t.Errorf("%v, want %v", acts, want)
	}
}

func TestARoundWithoutASourceForgetsNothing(t *testing.T) {
	a := Auditor{Memory: &Memory{}}
	s := aCluster()
	s.Members = s.Members[1:]
	a.Audit(s) // seen first
	s.Taken, s.Incomplete = now.Add(6*time.Minute), true
	whole := *s
	s.Read = map[Source]bool{Cloud: true, Kubernetes: true}
	s.Members = nil
	a.Audit(s)
	whole.Taken, whole.Incomplete = now.Add(11*time.Minute), false
	if got := ids(a.Audit(&whole), Warning); !slices.Equal(got, []string{"server-without-member"}) {
		t.Errorf("%v", got)
	}
}

func TestNamesThatATerminalWouldObeyAreQuoted(t *testing.T) {
	for name, want := range map[string]string{"cp-1": "cp-1", "Knoten-ä": "Knoten-ä", "a\x1b[2J": `"a\x1b[2J"`, "a\nb": `"a\nb"`} {
		if got := Printable(name); got != want {
			t.Errorf("%q became %s", name, got)
		}
	}
}

// A rolling replacement of a control plane, as its provider and the cloud's controllers do it, step by step: at no moment
// is there a finding that would wake anybody.
func TestARollingReplacementGivesNoFalseAlarm(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		w := &world{t: t, Snapshot: aCluster(), random: random, seed: seed, reuse: seed%4 == 1, bySurge: seed%3 != 2}
		if seed%2 == 0 {
			w.memory = &Memory{}
		}
		if seed%5 == 0 {
			w.Read[ClusterAPI] = false
		}
		w.look("before it")
		for i := range 3 {
			w.replace(i)
		}
		if t.Failed() {
			return
		}
	}
}

// A world is a cluster that changes.
type world struct {
	*Snapshot
	t       *testing.T
	random  *rand.Rand
	seed    uint64
	memory  *Memory
	reuse   bool // the new server gets the old one's address
	bySurge bool // a new machine comes before the old one goes
}

// look audits the moment and lets time pass.
func (w *world) look(step string) {
	s := *w.Snapshot
	s.Nodes, s.Members, s.Servers = slices.Clone(s.Nodes), slices.Clone(s.Members), slices.Clone(s.Servers)
	if !s.Read[ClusterAPI] {
		s.Machines, s.ControlPlanes = nil, nil
	}
	r := (&Auditor{Memory: w.memory}).Audit(&s)
	for _, f := range r.Findings {
		if f.Severity != Info {
			w.t.Errorf("seed %d, %s: %s %s: %s", w.seed, step, f.Severity, f.ID, f.Message)
		}
	}
	w.Taken = w.Taken.Add(time.Duration(w.random.IntN(90)) * time.Second)
}

func (w *world) node(name string) *Node {
	return &w.Nodes[slices.IndexFunc(w.Nodes, func(n Node) bool { return n.Name == name })]
}

func (w *world) machine(name string) *Machine {
	return &w.Machines[slices.IndexFunc(w.Machines, func(m Machine) bool { return m.InfraName == name })]
}

// replace takes one machine out and another in.
func (w *world) replace(i int) {
	old, fresh := fmt.Sprintf("cp-%d", i+1), fmt.Sprintf("cp-new-%d", i+1)
	n := 20 + i
	if w.reuse && !w.bySurge {
		n = i + 1
	}
	if w.bySurge {
		w.comes(fresh, n)
		w.goes(old)
	} else {
		w.goes(old)
		w.comes(fresh, n)
	}
}

func (w *world) goes(name string) {
	if w.Read[ClusterAPI] {
		w.machine(name).Deleting = true
		w.look(name + ": its Machine is being deleted")
	}
	w.node(name).Cordoned = true
	w.look(name + ": drained")
	w.Members = slices.DeleteFunc(w.Members, func(m Member) bool { return m.Name == name })
	w.look(name + ": its member has left")
	w.Servers[slices.IndexFunc(w.Servers, func(s Server) bool { return s.Name == name })].Status = "deleting"
	w.look(name + ": its server is being deleted")
	w.Servers = slices.DeleteFunc(w.Servers, func(s Server) bool { return s.Name == name })
	w.Hosts = slices.DeleteFunc(w.Hosts, func(h Host) bool { return h.Hostname == name })
	w.look(name + ": its server is gone")
	node := w.node(name)
	node.Ready, node.ReadySince = false, w.Taken
	w.look(name + ": its node is not ready")
	gone := []func(){
		func() {
			w.Nodes = slices.DeleteFunc(w.Nodes, func(n Node) bool { return n.Name == name })
			w.look(name + ": its node is gone")
		},
		func() {
			w.Machines = slices.DeleteFunc(w.Machines, func(m Machine) bool { return m.InfraName == name })
			w.look(name + ": its Machine is gone")
		},
	}
	w.random.Shuffle(len(gone), func(a, b int) { gone[a], gone[b] = gone[b], gone[a] })
	for _, f := range gone {
		f()
	}
}

func (w *world) comes(name string, n int) {
	id := int64(1000 + n)
	provider := fmt.Sprintf("hcloud://%d", id)
	a := []netip.Addr{address(n)}
	w.Machines = append(w.Machines, Machine{
		Namespace: "default", Name: "machine-" + name, Cluster: "example", InfraKind: "HCloudMachine", InfraName: name,
		ControlPlane: true, Created: w.Taken,
	})
	w.look(name + ": a Machine")
	w.Servers = append(w.Servers, Server{ID: id, Name: name, Status: "initializing", Created: w.Taken, Addresses: a})
	w.look(name + ": a server")
	machine := w.machine(name)
	machine.ProviderID, machine.Addresses = provider, a
	if w.random.IntN(2) == 0 {
		machine.Hostname = name
	}
	w.look(name + ": its Machine knows the server")
	w.Servers[len(w.Servers)-1].Status = "running"
	w.look(name + ": runs")
	w.Hosts = append(w.Hosts, Host{Address: address(n), Hostname: name})
	w.look(name + ": has its hostname")
	member := Member{ID: uint64(id), PeerURLs: []string{"https://" + address(n).String() + ":2380"}, Learner: w.random.IntN(2) == 0}
	joins := func() {
		w.Members = append(w.Members, member)
		w.look(name + ": a member without a name")
		last := &w.Members[len(w.Members)-1]
		last.Name = name
		w.look(name + ": its member has started")
		last.Learner, last.Health = false, Healthy
		w.look(name + ": its member votes")
	}
	registers := func() {
		w.Nodes = append(w.Nodes, Node{Name: name, Addresses: a, Created: w.Taken, ReadySince: w.Taken, Uninitialized: true, ControlPlane: true})
		w.look(name + ": a node")
		w.node(name).ProviderID = provider
		w.node(name).Uninitialized = false
		w.look(name + ": the cloud controller has found its server")
		w.machine(name).NodeRef = name
		w.look(name + ": its Machine has found the node")
		w.node(name).Ready, w.node(name).ReadySince = true, w.Taken
		w.look(name + ": is ready")
	}
	if w.random.IntN(2) == 0 {
		joins()
		registers()
	} else {
		registers()
		joins()
	}
}

// Whatever was found: who does what the remedies say, in their order, always has a leader.
func TestNoRemedyCostsTheQuorum(t *testing.T) {
	for seed := range uint64(5000) {
		random := rand.New(rand.NewPCG(seed, 2))
		s := aCluster()
		for n := 5; n < 5+random.IntN(5); n++ {
			addMachine(s, n, fmt.Sprintf("cp-%d", n), true)
		}
		for i := range s.Members {
			m := &s.Members[i]
			switch random.IntN(6) {
			case 0:
				m.Name = fmt.Sprintf("talos-%03d-abc", i)
			case 1:
				m.Health = Unhealthy
			case 2:
				m.Health = Unhealthy
				s.Servers[i].Addresses = nil // its server is gone
			case 3:
				s.Members = append(s.Members, Member{ID: uint64(500 + i), Name: "twin", PeerURLs: m.PeerURLs, Health: Health(random.IntN(3))})
			case 4:
				m.Name = ""
			}
		}
		members := slices.Clone(s.Members)
		had := QuorumOf(members).Holds()
		for _, f := range (&Auditor{Memory: &Memory{}, Grace: time.Nanosecond}).Audit(s).Findings {
			for _, step := range f.Remedy {
				if step.Act == nil {
					continue
				}
				if q := after(members, *step.Act); had && !q.Holds() {
					t.Fatalf("seed %d: %s: %s %x: %s", seed, f.Key(), step.Act.Verb, step.Act.Member, q)
				}
				if step.Act.Verb == Remove {
					members = slices.DeleteFunc(members, func(m Member) bool { return m.ID == step.Act.Member })
				}
			}
		}
	}
}

func TestNames(t *testing.T) {
	for name, formed := range map[string]string{
		"CP_1": "cp-1", "cp-1.Example.com": "cp-1.example.com", "-a!b.": "ab", "Knoten_ä1": "knoten-1", "": "",
	} {
		if got := NodeName(name); got != formed {
			t.Errorf("NodeName(%q) = %q, want %q", name, got, formed)
		}
	}
	for _, name := range []string{"talos-8qy-c5p", "TALOS-8QY-C5P", "localhost", "localhost.localdomain", "talos-10-0-0-2", "(none)", "talos"} {
		if !Invented(name) {
			t.Errorf("%s is an invented name", name)
		}
	}
	for _, name := range []string{"talos-cp-1", "example-controlplane-3d3d26d1-69c5k", "talos-abcd-efg", "mylocalhost", ""} {
		if Invented(name) {
			t.Errorf("%s is no invented name", name)
		}
	}
}
