package audit

import (
	"regexp"
	"strings"
)

// NodeName is the node's name that Talos and the kubelet form of a hostname: lower case, an underscore becomes a hyphen,
// what RFC 1123 does not allow is left out, and so are hyphens and dots at the ends.
func NodeName(hostname string) string {
	formed := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-', r == '.':
			return r
		case r == '_':
			return '-'
		}
		return -1
	}, strings.ToLower(hostname))
	return strings.Trim(formed, "-.")
}

// FirstLabel is the name without its domain.
func FirstLabel(name string) string {
	label, _, _ := strings.Cut(name, ".")
	return label
}

// Agrees reports whether a node or member of this name is what a server of that name becomes: with its domain
// (registerWithFQDN) or without it.
func Agrees(server, name string) bool {
	formed := NodeName(name)
	return formed != "" && (formed == NodeName(server) || formed == NodeName(FirstLabel(server)))
}

// What systems call themselves while they know no name: Talos' random and its address-made defaults, and what Linux has
// from the start.
var invented = regexp.MustCompile(`^(talos-[a-z0-9]{3}-[a-z0-9]{3}|talos-\d{1,3}-\d{1,3}-\d{1,3}-\d{1,3}|talos-ip-[0-9a-f-]+|talos|localhost(-.*)?|\(none\))$`)

// Invented reports whether the name is one that an operating system gives itself for want of a better.
func Invented(name string) bool {
	return invented.MatchString(FirstLabel(NodeName(name))) || name == "(none)"
}
