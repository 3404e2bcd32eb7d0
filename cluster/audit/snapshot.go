package audit

import (
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// A Source is where a part of a snapshot comes from.
type Source string

// The sources.
const (
	Cloud      Source = "cloud"      // the hcloud API
	Etcd       Source = "etcd"       // etcd's member list, by its own client or through Talos
	Kubernetes Source = "kubernetes" // the Nodes
	ClusterAPI Source = "clusterapi" // Machines and control planes
	Talos      Source = "talos"      // the hostname that a running node has
)

// Sources are all of them, in the order in which a person reads them.
func Sources() []Source { return []Source{Cloud, Etcd, Kubernetes, ClusterAPI, Talos} }

// A Snapshot is all that was seen in one round. What is missing from it was not there only if its source was read: see
// Read.
type Snapshot struct {
	// Taken is when the round began.
	Taken time.Time
	// Read has the sources that were read whole. What a source did not tell is not known to be absent.
	Read map[Source]bool
	// Incomplete: a source that was to be read could not be. What is then not found may be there all the same.
	Incomplete bool

	Servers       []Server
	Members       []Member
	Nodes         []Node
	Machines      []Machine
	ControlPlanes []ControlPlane
	Hosts         []Host
}

// A Server is one of the cloud.
type Server struct {
	ID      int64
	Name    string
	Status  string // running, initializing, deleting and so on, in the words of the API; "" where it is not known
	Created time.Time
	// Addresses has every address that the cloud gave it: public, private and aliases.
	Addresses []netip.Addr
	// Public6 is its public IPv6 network; any address in it is the server's.
	Public6 netip.Prefix
	// Project tells servers of several projects apart; "" where there is one.
	Project string
}

// has reports whether the address is the server's.
func (s Server) has(a netip.Addr) bool {
	for _, own := range s.Addresses {
		if own == a {
			return true
		}
	}
	return s.Public6.IsValid() && s.Public6.Contains(a)
}

// Health is what is known of an etcd member.
type Health int

// The zero value is what nobody asked.
const (
	HealthUnknown Health = iota
	Healthy
	Unhealthy
)

func (h Health) String() string { return [...]string{"unknown", "healthy", "unhealthy"}[h] }

// A Member is one of etcd's member list.
type Member struct {
	ID uint64
	// Name is empty until the member has started.
	Name       string
	PeerURLs   []string
	ClientURLs []string
	Learner    bool
	Health     Health
}

// Printable is a name that is safe to show: etcd takes any text for one, and a terminal may take some for a command.
func Printable(name string) string {
	if strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(name)
	}
	return name
}

// HexID is the id as etcdctl and talosctl write it.
func (m Member) HexID() string { return strconv.FormatUint(m.ID, 16) }

func (m Member) label() string {
	if m.Name == "" {
		return "member " + m.HexID() + " (no name yet)"
	}
	return fmt.Sprintf("member %s (%s)", m.Name, m.HexID())
}

// addresses are the hosts of the peer URLs. Client URLs are not used: they may be a load balancer's.
func (m Member) addresses() []netip.Addr {
	var found []netip.Addr
	for _, raw := range m.PeerURLs {
		u, err := url.Parse(raw)
		if err != nil {
			continue
		}
		if a, err := netip.ParseAddr(u.Hostname()); err == nil {
			found = append(found, a.Unmap())
		}
	}
	return found
}

// A Node is one of Kubernetes.
type Node struct {
	Name       string
	ProviderID string
	Addresses  []netip.Addr // InternalIP and ExternalIP
	Hostname   string       // the address of type Hostname
	Created    time.Time
	// Ready is the condition of that name, ReadySince when it last changed.
	Ready      bool
	ReadySince time.Time
	// Uninitialized: it still has the taint that only the cloud controller takes away.
	Uninitialized bool
	ControlPlane  bool
	Cordoned      bool
	Deleting      bool
}

// A Machine is one of Cluster API.
type Machine struct {
	Namespace, Name string
	Cluster         string
	InfraKind       string
	InfraName       string
	ProviderID      string
	NodeRef         string // the name of the node, "" until there is one
	// Hostname is the address of type MachineHostName (or Hostname), "" where there is none.
	Hostname     string
	Addresses    []netip.Addr
	ControlPlane bool
	Deleting     bool
	Created      time.Time
}

func (m Machine) key() string { return m.Namespace + "/" + m.Name }

// A ControlPlane is an object of Cluster API that acts on etcd's members.
type ControlPlane struct {
	Namespace, Name string
	Kind            string // TalosControlPlane
	Cluster         string
	Paused          bool // it or its cluster is paused: it acts when that ends
	HostnameSource  string
}

// A Host is a running system, asked for its own hostname.
type Host struct {
	Address  netip.Addr
	Hostname string
	// InstanceID is what the system itself believes to be, "" where it does not say.
	InstanceID string
}

// ServerID reads the server's id out of a providerID of the cloud's controllers. The second result is false for what
// names no server of Hetzner Cloud.
func ServerID(providerID string) (int64, bool) {
	rest, ok := strings.CutPrefix(providerID, "hcloud://")
	if !ok {
		return 0, false
	}
	id, err := strconv.ParseInt(rest, 10, 64)
	return id, err == nil && id > 0
}

// Add takes in what another snapshot has.
func (s *Snapshot) Add(other *Snapshot) {
	s.Servers = append(s.Servers, other.Servers...)
	s.Members = append(s.Members, other.Members...)
	s.Nodes = append(s.Nodes, other.Nodes...)
	s.Machines = append(s.Machines, other.Machines...)
	s.ControlPlanes = append(s.ControlPlanes, other.ControlPlanes...)
	s.Hosts = append(s.Hosts, other.Hosts...)
}

// Objects counts what there is of a source.
func (s *Snapshot) Objects(source Source) int {
	switch source {
	case Cloud:
		return len(s.Servers)
	case Etcd:
		return len(s.Members)
	case Kubernetes:
		return len(s.Nodes)
	case ClusterAPI:
		return len(s.Machines) + len(s.ControlPlanes)
	case Talos:
		return len(s.Hosts)
	}
	return 0
}

// MemberAddresses are the addresses in a member's peer URLs.
func MemberAddresses(m Member) []netip.Addr { return m.addresses() }
