package identity

import (
	"fmt"
	"net/netip"
	"strings"
)

// The limits of a name: RFC 1035, section 2.3.4. 253 is what 255 bytes on the
// wire leave for the text. The kernel's own hostname takes 64 bytes
// (HOST_NAME_MAX), so that every first label fits.
const (
	maxLabel = 63
	maxName  = 253
)

// ValidateHostname returns nil if name can be a machine's name by RFC 1123,
// section 2.1, and a [*NameError] with the rule that it breaks if not.
//
// Labels of ASCII letters, digits and hyphens, 1 to 63 bytes each, no hyphen at
// either end, 253 bytes in all. Case is free and is kept. A trailing dot is
// refused, because whoever compares names as strings would see another one, and
// so is "_", which is for DNS records that are no hosts. A name may be a number
// ("42"), but the last of several labels may not: "10.0.0.1" and its kin are
// addresses. "localhost" is every machine's, hence no machine's name.
func ValidateHostname(name string) error {
	if rule := brokenRule(name); rule != "" {
		return &NameError{Name: shorten(name, maxName), Rule: rule}
	}
	return nil
}

func brokenRule(name string) string {
	switch {
	case name == "":
		return "it is empty"
	case len(name) > maxName:
		return fmt.Sprintf("it has %d bytes, at most %d are allowed", len(name), maxName)
	}
	if addr, err := netip.ParseAddr(name); err == nil {
		return fmt.Sprintf("it is an IPv%d address", map[bool]int{true: 4, false: 6}[addr.Is4()])
	}
	labels := strings.Split(name, ".")
	at := 0 // the label's first byte in name
	for i, label := range labels {
		if rule := brokenLabelRule(label, at); rule != "" {
			return rule
		}
		if label == "" {
			if i > 0 && i == len(labels)-1 {
				return "it ends with a dot"
			}
			return fmt.Sprintf("label %d is empty", i+1)
		}
		if len(label) > maxLabel {
			return fmt.Sprintf("label %d has %d bytes, at most %d are allowed", i+1, len(label), maxLabel)
		}
		if label[0] == '-' || label[len(label)-1] == '-' {
			return fmt.Sprintf("label %d begins or ends with a hyphen", i+1)
		}
		at += len(label) + 1
	}
	first, last := labels[0], labels[len(labels)-1]
	switch {
	case strings.EqualFold(first, "localhost") || strings.EqualFold(last, "localhost"):
		return "localhost is no machine's own name (RFC 6761, section 6.3)"
	case len(labels) > 1 && strings.Trim(last, "0123456789") == "":
		return "its last label is a number, as in an address"
	}
	return ""
}

// brokenLabelRule looks at the characters. at is where label begins in the name.
func brokenLabelRule(label string, at int) string {
	for i := range len(label) {
		c := label[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-':
		case c < ' ' || c == 0x7f:
			return fmt.Sprintf("a control character (%#02x) at byte %d", c, at+i)
		case c >= 0x80:
			return fmt.Sprintf("a byte that is not ASCII (%#02x) at byte %d", c, at+i)
		default:
			return fmt.Sprintf("%q at byte %d is neither letter, digit, hyphen nor dot", c, at+i)
		}
	}
	return ""
}

// shorten returns a copy of s, cut to n bytes and a mark if it is longer, that
// does not keep a large body alive.
func shorten(s string, n int) string {
	if len(s) <= n {
		return strings.Clone(s)
	}
	return s[:n] + "…"
}
