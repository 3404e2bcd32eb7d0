//go:build linux

// Package links turns the policy of the kernel command line into a resolver, for a system that others share or for the
// first process.
package links

import (
	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/procfs"
)

// A System says whether other programs may configure links meanwhile.
type System bool

// The two kinds of a system.
const (
	Shared System = false // a running one
	Alone  System = true  // the first process of an initramfs
)

// Resolver is [identity.FromPolicy] on such a system.
func Resolver(p procfs.Policy, on System) (identity.Resolver, error) {
	r, err := identity.FromPolicy(p)
	r.Link.Alone = bool(on)
	return r, err
}
