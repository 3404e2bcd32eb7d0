package cloud

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Server is the server as its metadata describes it. In [Config.Server], empty fields get example values, and networks
// that the server has no NIC for are left out.
type Server struct {
	Hostname         string // "my-server"
	InstanceID       string // "42"
	Region           string // "eu-central"
	AvailabilityZone string // "hel1-dc2"
	// PublicIPv4 is 203.0.113.17 by default (RFC 5737), where there is a public NIC.
	PublicIPv4 netip.Addr
	// PrivateNetworks belong to the private NICs in their order.
	PrivateNetworks []PrivateNetwork
	// PublicKeys are SSH keys.
	PublicKeys []string
	// UserData is served as it is; without any the answer is 204.
	UserData string
	// VendorData stands in the whole document only, which it makes long: by default what a server is set up with.
	VendorData string
	// Newline ends each plain document with a newline.
	Newline bool

	mac string // of the public NIC
}

// PrivateNetwork is one entry of private-networks. By default 10.0.0.2 in 10.0.0.0/24 of 10.0.0.0/16; a second network
// is 10.1, and so on.
type PrivateNetwork struct {
	IP       netip.Addr   `yaml:"ip"`
	AliasIPs []netip.Addr `yaml:"alias_ips"`
	Number   int          `yaml:"interface_num"`
	MAC      string       `yaml:"mac_address"`
	ID       int          `yaml:"network_id"`
	Name     string       `yaml:"network_name"`
	Network  netip.Prefix `yaml:"network"`
	Subnet   netip.Prefix `yaml:"subnet"`
	Gateway  netip.Addr   `yaml:"gateway"`
}

var examplePublicIPv4 = netip.MustParseAddr("203.0.113.17")

func (s Server) publicIPv4() netip.Addr {
	if s.PublicIPv4.IsValid() {
		return s.PublicIPv4
	}
	return examplePublicIPv4
}

// privateNetwork is the i-th network, with examples for what is not set.
func (s Server) privateNetwork(i int) PrivateNetwork {
	var p PrivateNetwork
	if i < len(s.PrivateNetworks) {
		p = s.PrivateNetworks[i]
	}
	second := byte(i)
	if !p.Network.IsValid() {
		p.Network = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, second, 0, 0}), 16)
	}
	if !p.Subnet.IsValid() {
		p.Subnet = netip.PrefixFrom(p.Network.Addr(), max(24, p.Network.Bits()))
	}
	if !p.Gateway.IsValid() {
		p.Gateway = p.Network.Addr().Next()
	}
	if !p.IP.IsValid() {
		p.IP = p.Gateway.Next()
	}
	if p.Number == 0 {
		p.Number = i + 1
	}
	if p.ID == 0 {
		p.ID = 4711 + i
	}
	if p.Name == "" {
		p.Name = "network-" + strconv.Itoa(i+1)
	}
	return p
}

// complete fills in what is not set.
func (s Server) complete(nics []*nic) Server {
	defaults := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	defaults(&s.Hostname, "my-server")
	defaults(&s.InstanceID, "42")
	defaults(&s.Region, "eu-central")
	defaults(&s.AvailabilityZone, "hel1-dc2")
	defaults(&s.VendorData, exampleVendorData)
	public := netip.Addr{}
	var private []PrivateNetwork
	for _, n := range nics {
		mac := n.nodeMAC().String()
		switch n.desc.Shape {
		case Public:
			public, s.mac = s.publicIPv4(), mac
		case IPv6Only:
			s.mac = mac
		case Private:
			p := n.network
			if p.MAC == "" {
				p.MAC = mac
			}
			private = append(private, p)
		}
	}
	s.PublicIPv4, s.PrivateNetworks = public, private
	return s
}

const base = "/hetzner/v1/"

// ServeHTTP answers as the metadata service does for this server, with no example values.
func (s Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	name, ok := strings.CutPrefix(r.URL.Path, base)
	if !ok {
		http.NotFound(w, r)
		return
	}
	if name == "userdata" {
		if s.UserData == "" {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		s.write(w, s.UserData)
		return
	}
	body, ok := s.document(name)
	if !ok {
		http.NotFound(w, r)
		return
	}
	if s.Newline && !strings.HasSuffix(body, "\n") {
		body += "\n"
	}
	s.write(w, body)
}

func (s Server) write(w http.ResponseWriter, body string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = io.WriteString(w, body)
}

// document is the body of a path below the base.
func (s Server) document(name string) (string, bool) {
	switch strings.TrimSuffix(name, "/") {
	case "metadata":
		return s.all(), true
	case "metadata/hostname":
		return s.Hostname, true
	case "metadata/instance-id":
		return s.InstanceID, true
	case "metadata/public-ipv4":
		return text(s.PublicIPv4), true
	case "metadata/local-ipv4":
		return "", true
	case "metadata/availability-zone":
		return s.AvailabilityZone, true
	case "metadata/region":
		return s.Region, true
	case "metadata/private-networks":
		return s.privateNetworks(), true
	case "metadata/network-config":
		return marshal(s.networkConfig()), true
	case "metadata/public-keys":
		return s.publicKeys(), true
	}
	return "", false
}

func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func marshal(v any) string {
	b, err := yaml.Marshal(v)
	if err != nil {
		return "" // only plain data is marshalled here
	}
	return string(b)
}

func (s Server) privateNetworks() string {
	if len(s.PrivateNetworks) == 0 {
		return "[]\n"
	}
	return marshal(s.PrivateNetworks)
}

func (s Server) publicKeys() string {
	keys := s.PublicKeys
	if keys == nil {
		keys = []string{}
	}
	b, err := json.Marshal(keys)
	if err != nil {
		return "[]"
	}
	return string(b)
}

// The shape of cloud-init's network configuration, version 1.
type (
	networkConfig struct {
		Version int             `yaml:"version"`
		Config  []networkDevice `yaml:"config"`
	}
	networkDevice struct {
		Type    string          `yaml:"type"`
		Name    string          `yaml:"name"`
		MAC     string          `yaml:"mac_address"`
		Subnets []networkSubnet `yaml:"subnets"`
	}
	networkSubnet struct {
		Type        string   `yaml:"type"`
		IPv4        bool     `yaml:"ipv4,omitempty"`
		IPv6        bool     `yaml:"ipv6,omitempty"`
		Address     string   `yaml:"address,omitempty"`
		Gateway     string   `yaml:"gateway,omitempty"`
		Nameservers []string `yaml:"dns_nameservers,omitempty"`
	}
)

// networkConfig is empty for a server without a public NIC.
func (s Server) networkConfig() networkConfig {
	c := networkConfig{Version: 1, Config: []networkDevice{}}
	if s.mac == "" && !s.PublicIPv4.IsValid() {
		return c
	}
	dev := networkDevice{Type: "physical", Name: "eth0", MAC: s.mac}
	if s.PublicIPv4.IsValid() {
		dev.Subnets = append(dev.Subnets, networkSubnet{Type: "dhcp", IPv4: true})
	}
	dev.Subnets = append(dev.Subnets, networkSubnet{
		Type: "static", IPv6: true, Address: "2001:db8:c0:ffee::1/64", Gateway: "fe80::1",
		Nameservers: []string{"2a01:4ff:ff00::add:1", "2a01:4ff:ff00::add:2"},
	})
	c.Config = append(c.Config, dev)
	return c
}

// all is the whole as one document, in which the instance id is a number.
func (s Server) all() string {
	keys := s.PublicKeys
	if keys == nil {
		keys = []string{}
	}
	var id any = s.InstanceID
	if number, err := strconv.ParseUint(s.InstanceID, 10, 64); err == nil {
		id = number
	}
	document := marshal(struct {
		AvailabilityZone string           `yaml:"availability-zone"`
		Hostname         string           `yaml:"hostname"`
		InstanceID       any              `yaml:"instance-id"`
		LocalIPv4        string           `yaml:"local-ipv4"`
		NetworkConfig    networkConfig    `yaml:"network-config"`
		PrivateNetworks  []PrivateNetwork `yaml:"private-networks"`
		PublicIPv4       string           `yaml:"public-ipv4"`
		PublicKeys       []string         `yaml:"public-keys"`
		Region           string           `yaml:"region"`
	}{
		s.AvailabilityZone, s.Hostname, id, "", s.networkConfig(), append([]PrivateNetwork{}, s.PrivateNetworks...),
		text(s.PublicIPv4), keys, s.Region,
	})
	if s.VendorData != "" {
		document += "vendor_data: " + folded(s.VendorData) + "\n"
	}
	return document
}

// exampleVendorData is a MIME message of cloud-init's, of the size that servers have.
var exampleVendorData = `Content-Type: multipart/mixed; boundary="===============6201458838296358157=="
MIME-Version: 1.0

--===============6201458838296358157==
Content-Type: text/cloud-config; charset="us-ascii"
MIME-Version: 1.0
Content-Transfer-Encoding: 7bit

` + strings.Repeat("## instance-id: 13\n- [ sh, -c, \"echo 'hostname: somebody-else' >> /etc/motd\" ]\n", 24) + `
--===============6201458838296358157==--
`

// folded is a text in double quotes, folded as the service's generator does it (PyYAML): lines of 80 columns, each
// continued with two blanks, before which a backslash stands where the text has no blank.
func folded(text string) string {
	var b strings.Builder
	b.WriteByte('"')
	width := len("vendor_data: ")
	for _, r := range text {
		var piece string
		switch {
		case r == '"' || r == '\\':
			piece = `\` + string(r)
		case r == '\n':
			piece = `\n`
		case r < ' ' || r > '~':
			piece = fmt.Sprintf(`\U%08x`, r)
		default:
			piece = string(r)
		}
		if width > 80 {
			b.WriteString("\\\n  ")
			width = 2
			if r == ' ' {
				piece = `\ `
			}
		}
		b.WriteString(piece)
		width += len(piece)
	}
	b.WriteByte('"')
	return b.String()
}
