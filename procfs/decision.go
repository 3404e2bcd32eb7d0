package procfs

import "fmt"

// A Decision is what a boot is to do about its name, as the command line says.
type Decision uint8

// What it may be.
const (
	DecisionWait      Decision = iota // ask for the name, and wait as Policy says
	DecisionNotAsked                  // nothing: the argument is not there
	DecisionOff                       // nothing: the argument says so
	DecisionNamed                     // nothing: the operator gave the name, Hostname, by HostnameFrom
	DecisionElsewhere                 // nothing: Platform is another one
)

// String returns "wait", "not asked", "off", "named" or "elsewhere".
func (d Decision) String() string {
	names := [...]string{"wait", "not asked", "off", "named", "elsewhere"}
	if int(d) >= len(names) {
		return fmt.Sprint(uint8(d))
	}
	return names[d]
}

// Decide returns what is to be done on a machine of this platform, as Talos calls it
// ("hcloud"); an empty platform is any. A line with a mistake is one that waits.
func (c CommandLine) Decide(platform string) Decision {
	switch {
	case c.Policy.Mode == Off && !c.Present:
		return DecisionNotAsked
	case c.Policy.Mode == Off:
		return DecisionOff
	case c.Hostname != "":
		return DecisionNamed
	case platform != "" && c.Platform != "" && c.Platform != platform:
		return DecisionElsewhere
	}
	return DecisionWait
}
