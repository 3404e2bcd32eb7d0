//go:build linux

package boot

import (
	"fmt"

	goprocfs "github.com/siderolabs/go-procfs/procfs"

	"github.com/nametag-boot/nametag/procfs"
)

// nextParameter is the kernel argument that chooses the next init.
const nextParameter = "nametag.init"

// The platform that Talos calls Hetzner Cloud, and the argument that says so.
const (
	platformParameter = "talos.platform"
	platformHetzner   = "hcloud"
)

// A decision is what follows from the kernel command line.
type decision struct {
	wait      bool
	policy    procfs.Policy
	why       string // not waiting: why not, for the console; empty where nobody asked for it
	onHetzner bool   // the command line names the platform, and it is Hetzner
	talos     bool   // the command line is a Talos' own
	next      string // the next init that the command line chooses; empty: none
}

// decide reads the command line. On an error the decision counts all the same: it is to wait by the default policy.
func decide(line string) (decision, error) {
	args := goprocfs.NewCmdline(line)
	c, err := procfs.Parse(args)
	d := decision{policy: c.Policy}
	if next := args.Get(nextParameter).First(); next != nil {
		d.next = *next
	}
	d.talos = args.Get(platformParameter).First() != nil
	d.onHetzner = c.Platform == platformHetzner
	switch c.Decide(platformHetzner) {
	case procfs.DecisionWait:
		d.wait = true
	case procfs.DecisionNotAsked, procfs.DecisionOff:
	case procfs.DecisionNamed:
		d.why = fmt.Sprintf("%s%s names this node: nothing to find out", c.HostnameFrom, c.Hostname)
	case procfs.DecisionElsewhere:
		d.why = fmt.Sprintf("%s=%s is not Hetzner Cloud (%s): nothing to find out", platformParameter, c.Platform, platformHetzner)
	}
	return d, err
}
