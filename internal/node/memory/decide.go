//go:build linux

package memory

import (
	"strings"

	"github.com/nametag-boot/nametag/procfs"
)

// Stage is how far the asking has come.
type Stage uint8

// The stages.
const (
	Asking   Stage = iota // there is no valid answer so far
	Silent                // there was none for as long as the service is asked where the name is known
	Over                  // there was none until the policy's own time was up, or there will be none
	Answered              // there is a valid one
)

// Verdict is what to do.
type Verdict uint8

// What there is to do.
const (
	KeepAsking  Verdict = iota // go on asking
	TakeAnswer                 // the service's name
	TakeRenamed                // the service's name, and say that the server was renamed
	Refuse                     // the server was renamed and that is not wanted: no valid name; go on asking
	TakeKnown                  // the remembered name
	BootOn                     // no name from us: the system has a memory of its own
	Explicit                   // no name from us: the operator has given one
	GiveUp                     // the policy
)

// String returns the verdict in words.
func (v Verdict) String() string {
	words := [...]string{"keep asking", "take the answer", "take the answer: renamed", "refuse the answer: renamed", "take the known name", "boot on", "explicit", "the policy"}
	if int(v) < len(words) {
		return words[v]
	}
	return "unknown"
}

// Decide is the whole table: what follows from the policy, from what the node remembers (as [Recall.For] this instance),
// and from what the service has said. answer is its name where there is one, else empty. refused says that an answer was
// refused before: the service has spoken then, and its silence later is no outage.
func Decide(p procfs.Policy, r Recall, stage Stage, answer string, refused bool) Verdict {
	_, counts := p.KnownAfter()
	if !counts {
		r = Recall{} // as at the first boot
	}
	switch {
	case r.Explicit != "":
		return Explicit
	case stage == Answered && r.Known() && !SameName(answer, r.Name.Hostname):
		if p.Rename == procfs.RenameStop {
			return Refuse
		}
		return TakeRenamed
	case stage == Answered:
		return TakeAnswer
	case stage == Asking:
		return KeepAsking
	case r.Known() && !refused:
		return TakeKnown
	case r.Sealed && p.Known != procfs.KnownStrict && !r.Known():
		return BootOn
	case stage == Silent:
		return KeepAsking
	}
	return GiveUp
}

// SameName compares host names, in which upper and lower case are one (RFC 4343).
func SameName(a, b string) bool { return strings.EqualFold(a, b) }
