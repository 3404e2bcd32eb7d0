//go:build linux

// Package links turns the policy of the kernel command line into a resolver, for a system that others share or for the
// first process.
package links

import (
	"context"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
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

// repairTime bounds how long a link is waited for that somebody uses.
const repairTime = 5 * time.Second

// Repair puts links of a running system back as they were before a process of ours used them that has died, in the
// initramfs perhaps: nobody configures a link that it has left up ([earlynet.Repair]).
func Repair(ctx context.Context, observe func(earlynet.Event)) error {
	ctx, cancel := context.WithTimeout(ctx, repairTime)
	defer cancel()
	return earlynet.Repair(ctx, earlynet.Config{Observer: observe})
}

// Resolver is [identity.FromPolicy] on such a system.
func Resolver(p procfs.Policy, on System) (identity.Resolver, error) {
	r, err := identity.FromPolicy(p)
	r.Link.Alone = bool(on)
	return r, err
}
