package earlynet

import "fmt"

// A Method is a way to get from a link to a usable source address. The zero
// value is no method; in an [Event] it stands for the link itself.
type Method uint8

// The methods, in the order in which they need the fewest round trips.
const (
	LinkLocal   Method = iota + 1 // an address from 169.254/16 (RFC 3927)
	DHCP                          // a DHCPv4 lease (RFC 2131)
	IPv6                          // the kernel's own fe80::/10 address
	HostNetwork                   // whatever the host has configured; see [Host]
)

// String returns the method's name, as [ParseMethod] reads it.
func (m Method) String() string {
	switch m {
	case LinkLocal:
		return "linklocal"
	case DHCP:
		return "dhcp"
	case IPv6:
		return "ipv6"
	case HostNetwork:
		return "host"
	default:
		return "link"
	}
}

// ParseMethod returns the method of that name: linklocal, dhcp or ipv6.
func ParseMethod(name string) (Method, error) {
	for _, m := range []Method{LinkLocal, DHCP, IPv6} {
		if name == m.String() {
			return m, nil
		}
	}
	return 0, fmt.Errorf("earlynet: unknown method %q: want linklocal, dhcp or ipv6", name)
}
