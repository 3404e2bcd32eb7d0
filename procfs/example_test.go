package procfs_test

import (
	"errors"
	"fmt"
	"time"

	"github.com/nametag-boot/nametag/procfs"
	goprocfs "github.com/siderolabs/go-procfs/procfs"
)

// What a helper does at boot: report the error, obey the policy.
func ExampleRead() {
	line, err := procfs.Read()
	if err != nil {
		fmt.Println(err)
	}
	switch line.Decide("hcloud") {
	case procfs.DecisionWait:
		// ask the metadata service, as line.Policy says
	case procfs.DecisionNamed:
		// the operator's own name ends the matter
	default:
		// boot on
	}
}

func ExampleParse() {
	line, err := procfs.Parse(goprocfs.NewCmdline("talos.platform=hcloud talos.hostname.wait=2m,then=halt"))
	fmt.Println(line.Platform, line.Policy.Wait, line.Policy.Then, err)
	// Output: hcloud 2m0s halt <nil>
}

func ExampleParseString() {
	line, err := procfs.ParseString("ip=[2001:db8::2]::[2001:db8::1]::web-1:eth0:none talos.hostname.wait")
	fmt.Println(line.Hostname, "from", line.HostnameFrom, line.Policy, err)
	// Output: web-1 from ip= talos.hostname.wait=5m <nil>
}

// A mistake never turns waiting off: the default policy comes with the error.
func ExampleParsePolicy() {
	policy, err := procfs.ParsePolicy("90")
	fmt.Println(err)
	fmt.Println(policy)
	var e *procfs.Error
	if errors.As(err, &e) {
		fmt.Println(e.Suggestion)
	}
	// Output:
	// procfs: talos.hostname.wait=90: "90" has no unit (did you mean 90s?)
	// talos.hostname.wait=5m
	// 90s
}

// A distribution with a prefix of its own.
func ExampleParser() {
	argument := procfs.Parser{Parameter: "myos.hostname.wait"}
	line, err := argument.ParseString("quiet myos.hostname.wait=90")
	fmt.Println(err)
	fmt.Println(line.Policy.Wait, line.Decide("hcloud"))
	// Output:
	// procfs: myos.hostname.wait=90: "90" has no unit (did you mean 90s?)
	// 5m0s wait
}

func ExamplePolicy_String() {
	fmt.Println(procfs.Policy{
		Mode: procfs.Bounded,
		Wait: 90 * time.Second,
		Then: procfs.PowerOff,
		NICs: []string{"enp1s0", "ens*"},
	})
	fmt.Println(procfs.Policy{})
	// Output:
	// talos.hostname.wait=1m30s,then=poweroff,nic=enp1s0,nic=ens*
	// talos.hostname.wait=off
}
