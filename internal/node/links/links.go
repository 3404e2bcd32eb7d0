// Package links turns the policy of the kernel command line into the configuration of the links. It stands between two
// packages that do not know each other.
package links

import (
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

// Options are what a policy asks of [identity.Resolve]: over which links, by which methods, and what stays of them. The
// bound is the caller's, who knows when it began. The error names a method that earlynet does not have.
func Options(p procfs.Policy, on System) ([]identity.Option, error) {
	cfg, err := FromPolicy(p)
	if err != nil {
		return nil, err
	}
	cfg.Alone = bool(on)
	options := []identity.Option{identity.OverLinks(cfg)}
	if p.Keep == procfs.KeepNetwork {
		options = append(options, identity.KeepLink())
	}
	return options, nil
}

// FromPolicy is the part of a policy that earlynet carries out: which NICs, and by which methods. The error names a
// method that earlynet does not have.
func FromPolicy(p procfs.Policy) (earlynet.Config, error) {
	cfg := earlynet.Config{NICs: p.NICs}
	for _, name := range p.Via {
		m, err := earlynet.ParseMethod(name)
		if err != nil {
			return cfg, err
		}
		cfg.Methods = append(cfg.Methods, m)
	}
	return cfg, nil
}
