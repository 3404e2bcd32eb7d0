package identity

import (
	"fmt"

	"github.com/nametag-boot/nametag/identity/dmi"
)

// A Proof is what an instance id was compared with. Whoever answers first on the
// link is believed otherwise: the id is what tells this machine's name from
// another's.
type Proof string

// What an id may be proven by.
const (
	ProofDMI      Proof = "dmi"      // the firmware's own number of this machine
	ProofExpected Proof = "expected" // Resolver.ExpectID
	ProofNone     Proof = "none"     // nothing, which Resolver.Unproven allows
)

// UnprovenError says that nothing proves an answer to be meant for this machine.
// Resolver.ExpectID gives a proof, and Resolver.Unproven does without.
type UnprovenError struct {
	Source     string // the source's name
	InstanceID string // the answer's; empty if nobody was asked, since no answer could be proven
	Facts      dmi.Facts
}

// Error says what is missing.
func (e *UnprovenError) Error() string {
	why := "the firmware gives no serial number"
	switch {
	case e.Facts.SerialHidden:
		why = "the firmware's serial number can be read by root only"
	case e.Facts.Serial != "":
		why = fmt.Sprintf("the firmware (vendor %q) gives the serial number %q", shorten(e.Facts.Vendor, 64), shorten(e.Facts.Serial, 64))
	}
	if e.InstanceID == "" {
		return fmt.Sprintf("nothing could prove that an answer of %s is meant for this machine: %s", e.Source, why)
	}
	return fmt.Sprintf("nothing proves that the answer, for instance %q, is meant for this machine: %s", e.InstanceID, why)
}

// provable is an error if no answer could be proven, which is known before anybody is asked.
func (r *resolver) provable() error {
	if r.Unproven || r.ExpectID != "" || r.own != "" {
		return nil
	}
	var err error = &UnprovenError{Source: r.name, Facts: r.facts}
	for _, fault := range r.faults {
		err = fmt.Errorf("%w; %w", err, fault) // perhaps the firmware would have told it
	}
	return fmt.Errorf("identity: %w", err)
}

// verify is rule one: only a valid name of this very machine. It is the look at an
// answer against the network and the source. Who gets the name in the same process
// need not look again.
func (r *resolver) verify(a Answer) (Proof, error) {
	if err := ValidateHostname(a.Hostname); err != nil {
		return "", err
	}
	switch {
	case r.ExpectID != "" && a.InstanceID != r.ExpectID:
		return "", &MismatchError{InstanceID: shorten(a.InstanceID, 64), Serial: r.ExpectID}
	case r.own != "" && a.InstanceID == r.own:
		return ProofDMI, nil
	case r.own != "" && r.presence == PresenceYes:
		return "", &MismatchError{InstanceID: shorten(a.InstanceID, 64), Serial: r.own}
	case r.ExpectID != "":
		return ProofExpected, nil
	case r.Unproven:
		return ProofNone, nil
	}
	return "", &UnprovenError{Source: r.name, InstanceID: shorten(a.InstanceID, 64), Facts: r.facts}
}
