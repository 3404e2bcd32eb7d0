package identity

import (
	"net/netip"
	"strings"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
)

// An Identity is who this machine is. Hostname and InstanceID belong together,
// and IDProvenBy says what makes them this machine's; the rest is what came along in time and may be empty.
// The JSON names are stable.
type Identity struct {
	// Hostname is the exact string that the metadata gave, domain included,
	// case preserved. It has passed [ValidateHostname].
	Hostname string `json:"hostname"`
	// Domain is what follows Hostname's first dot, or nothing.
	Domain           string           `json:"domain,omitempty"`
	InstanceID       string           `json:"instance_id,omitempty"`
	IDProvenBy       Proof            `json:"id_proven_by,omitempty"` // what says that InstanceID is this machine's
	Region           string           `json:"region,omitempty"`
	AvailabilityZone string           `json:"availability_zone,omitempty"`
	PublicIPv4       netip.Addr       `json:"public_ipv4,omitzero"` // the zero Addr: none, or not known
	PrivateNetworks  []PrivateNetwork `json:"private_networks,omitempty"`

	Source string   `json:"source"` // the source's name
	Path   PathInfo `json:"path"`   // the path that won
	// Proven is when the name was proven, counted from the first step. It is that of
	// the event [EventNamed], and zero for a name that nobody had to ask for.
	Proven   time.Duration `json:"proven_ns,omitempty"`
	Timeline []Event       `json:"timeline,omitempty"` // what happened, in order; bounded
}

// ShortName is Hostname's first label, which is what the kernel's own hostname
// usually is.
func (id *Identity) ShortName() string {
	short, _, _ := strings.Cut(id.Hostname, ".")
	return short
}

// PathInfo is a path that the service is asked over, or the one by which its answer came.
type PathInfo struct {
	Interface string     `json:"interface,omitempty"` // empty over the host's own network
	Method    string     `json:"method"`              // "linklocal", "dhcp", "ipv6" or "host"
	Address   netip.Addr `json:"address,omitzero"`    // this machine's address on it
}

// String is the interface and the method, as a path is called in events and errors:
// "eth0/dhcp". It is one of the two where the other is not known, as over the host's
// own network ("host"), and empty for the zero PathInfo.
func (p PathInfo) String() string {
	return strings.Trim(p.Interface+"/"+p.Method, "/")
}

// pathInfo says which path p is.
func pathInfo(p *earlynet.Path) PathInfo {
	return PathInfo{Interface: p.Interface, Method: p.Method.String(), Address: p.Source}
}

// pathNamed reads what String gave. No interface has a slash in its name.
func pathNamed(name string) PathInfo {
	ifname, method, both := strings.Cut(name, "/")
	_, err := earlynet.ParseMethod(name)
	switch {
	case both:
		return PathInfo{Interface: ifname, Method: method}
	case err == nil, name == earlynet.HostNetwork.String():
		return PathInfo{Method: name}
	}
	return PathInfo{Interface: name}
}

// A PrivateNetwork is one that the machine is attached to, by the cloud's own
// account. Fields that the cloud does not tell are zero.
type PrivateNetwork struct {
	ID       int64        `json:"id,omitempty"`
	Name     string       `json:"name,omitempty"`
	IP       netip.Addr   `json:"ip,omitzero"`
	AliasIPs []netip.Addr `json:"alias_ips,omitempty"`
	Network  netip.Prefix `json:"network,omitzero"`
	Subnet   netip.Prefix `json:"subnet,omitzero"`
	Gateway  netip.Addr   `json:"gateway,omitzero"`
	MAC      string       `json:"mac,omitempty"` // the card's address, lower case with colons
}
