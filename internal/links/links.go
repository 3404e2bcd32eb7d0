// Package links turns the policy of the kernel command line into the configuration of the links. It stands between two
// packages that do not know each other.
package links

import (
	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/procfs"
)

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
