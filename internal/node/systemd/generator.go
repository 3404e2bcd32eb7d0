//go:build linux

package systemd

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/nametag-boot/nametag/internal/node/replace"
	"github.com/nametag-boot/nametag/procfs"
)

// The unit that runs `nametag apply`, and the target that waits for it: in the real
// root and in an initrd (bootup(7)).
const (
	Unit         = "nametag.service"
	EarlyUnit    = "nametag-early.service" // in an initrd, before Ignition
	targetRoot   = "sysinit.target"
	targetInitrd = "initrd.target"
)

// Generate is the generator's work: where the kernel command line asks for a name,
// it puts the unit in front of everything else and gives it the policy's ending, in
// dir, the first of a generator's three folders. So one parser reads the argument,
// and a malformed one waits by the default policy here as well. Where nobody asks,
// it leaves nothing, and systemd never loads the unit.
func Generate(dir string, line procfs.CommandLine, initrd bool) error {
	if !line.Present || line.Policy.Mode == procfs.Off {
		return nil
	}
	target, units := targetRoot, []string{Unit}
	if initrd {
		target, units = targetInitrd, []string{Unit, EarlyUnit}
	}
	for _, unit := range units {
		if err := replace.File(filepath.Join(dir, unit+".d", "50-policy.conf"), []byte(policyDropIn(line.Policy))); err != nil {
			return fmt.Errorf("systemd: %w", err)
		}
		link := filepath.Join(dir, target+".wants", unit)
		if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil { //nolint:gosec // for systemd, and everybody, to read
			return fmt.Errorf("systemd: %w", err)
		}
		if err := os.Symlink(filepath.Join("/usr/lib/systemd/system", unit), link); err != nil && !os.IsExist(err) {
			return fmt.Errorf("systemd: %w", err)
		}
	}
	return nil
}

// policyDropIn is the ending that systemd sees to. Halt and continue are not in it:
// `nametag apply` stays, or the boot goes on.
func policyDropIn(p procfs.Policy) string {
	action := map[procfs.Then]string{
		procfs.Reboot: "reboot", procfs.PowerOff: "poweroff", procfs.Halt: "none", procfs.Continue: "none",
	}[p.Then]
	return fmt.Sprintf("# Made from the kernel argument, %s.\n[Unit]\nFailureAction=%s\n", p, action)
}
