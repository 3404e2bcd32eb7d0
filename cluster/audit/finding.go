package audit

import (
	"fmt"
	"strings"
)

// A Severity is how much a finding matters.
type Severity string

// The severities, the mildest first.
const (
	Info     Severity = "info"     // nothing to do, or something that is under way
	Warning  Severity = "warning"  // it will hurt at the next reboot, upgrade or replacement
	Critical Severity = "critical" // it hurts now, or somebody is about to remove what is healthy
)

// Severities are all of them, the mildest first.
func Severities() []Severity { return []Severity{Info, Warning, Critical} }

// AtLeast reports whether the severity is the other or worse.
func (s Severity) AtLeast(other Severity) bool { return s.rank() >= other.rank() }

func (s Severity) rank() int {
	for i, known := range Severities() {
		if s == known {
			return i
		}
	}
	return -1
}

// ParseSeverity reads one.
func ParseSeverity(text string) (Severity, error) {
	if s := Severity(strings.ToLower(text)); s.rank() >= 0 {
		return s, nil
	}
	return "", fmt.Errorf("%q is no severity: choose info, warning or critical", text)
}

// An ID names a kind of finding. It stays the same from version to version.
type ID string

// The kinds of findings.
const (
	NodeNameDiffers     ID = "node-name-differs"
	NodeNameInvented    ID = "node-name-invented"
	MemberNameDiffers   ID = "member-name-differs"
	MemberNameInvented  ID = "member-name-invented"
	HostNameDiffers     ID = "host-name-differs"
	MachineNameDiffers  ID = "machine-name-differs"
	MemberWithoutServer ID = "member-without-server"
	MemberWithoutName   ID = "member-without-name"
	ServerWithoutMember ID = "server-without-member"
	ServerTwoMembers    ID = "server-two-members"
	ServerTwoNodes      ID = "server-two-nodes"
	NodeWithoutServer   ID = "node-without-server"
	NodeWithoutProvider ID = "node-without-provider-id"
	ServerNameDuplicate ID = "server-name-duplicate"
	ServerRenamed       ID = "server-renamed"
	AddressAmbiguous    ID = "address-ambiguous"
	CAPIRemovesMembers  ID = "capi-removes-members"
	QuorumAtRisk        ID = "quorum-at-risk"
)

// catalogue says of every kind what it means, in the words of the tables and of the help.
var catalogue = []Kind{
	{MemberNameInvented, "An etcd member has a name that the operating system invented, and not its server's."},
	{MemberNameDiffers, "An etcd member has another name than its server or node."},
	{NodeNameInvented, "A node has a name that the operating system invented, and not its server's."},
	{NodeNameDiffers, "A node has another name than its server."},
	{HostNameDiffers, "A running system has another hostname than its server."},
	{MachineNameDiffers, "A Machine's nodeRef names a node that is not its server's."},
	{ServerRenamed, "A server was renamed in the cloud since it was first seen."},
	{ServerTwoMembers, "One server has two etcd members."},
	{ServerTwoNodes, "One server has two nodes: one of them is a ghost."},
	{MemberWithoutServer, "An etcd member has no server."},
	{MemberWithoutName, "An etcd member was added and has not started."},
	{ServerWithoutMember, "A control-plane machine has no etcd member."},
	{NodeWithoutServer, "A node's server is not in the cloud."},
	{NodeWithoutProvider, "A node has no providerID, and the cloud controller cannot find its server."},
	{ServerNameDuplicate, "Two servers would give their nodes the same name."},
	{AddressAmbiguous, "Two servers have the same address."},
	{CAPIRemovesMembers, "A control-plane provider will remove healthy etcd members by force."},
	{QuorumAtRisk, "etcd cannot lose another member."},
}

// A Kind is an entry of the catalogue.
type Kind struct {
	ID      ID     `json:"id"`
	Meaning string `json:"meaning"`
}

// Catalogue has every kind of finding.
func Catalogue() []Kind { return append([]Kind(nil), catalogue...) }

// A Finding is something that does not agree.
type Finding struct {
	ID       ID       `json:"id"`
	Severity Severity `json:"severity"`
	// Server is the id of the server that it is about, 0 where there is none.
	Server int64 `json:"server,omitempty"`
	// Subject is what it is about: a server's, node's or member's name, unique among the findings of one kind.
	Subject string `json:"subject"`
	// Node is the node to tell it to, "" where there is none.
	Node string `json:"node,omitempty"`
	// Message is the finding in one sentence.
	Message string `json:"message"`
	// Pending says why it may be no more than a step of something that is under way; such a finding is of severity info.
	Pending  string     `json:"pending,omitempty"`
	Evidence []Evidence `json:"evidence,omitempty"`
	Remedy   []Step     `json:"remedy,omitempty"`
}

// Key is the same for the same finding of two rounds.
func (f Finding) Key() string { return string(f.ID) + "/" + f.Subject }

// Evidence is what one source said.
type Evidence struct {
	Source Source `json:"source"`
	Says   string `json:"says"`
}

// A Step is one of a remedy. Steps are done in their order, each only when the one before has been seen to work.
type Step struct {
	Text string `json:"text"`
	// Command does it; it has no placeholders but what a person must decide, in angle brackets.
	Command string `json:"command,omitempty"`
	// Act says what the step does to etcd's members, for a program that must know it.
	Act *Act `json:"act,omitempty"`
}

// Verb is what is done to a member of etcd.
type Verb string

// The verbs.
const (
	Restart Verb = "restart" // it is away for a while and comes back with the same id
	Remove  Verb = "remove"  // it is gone
)

// An Act is what a step does to one member of etcd.
type Act struct {
	Verb   Verb   `json:"verb"`
	Member uint64 `json:"member"`
}
