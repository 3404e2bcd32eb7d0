package procfs

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The kernel argument has two names and one grammar. Alias is for those who run no
// Talos. [Parse] reads either.
const (
	Parameter = "talos.hostname.wait"
	Alias     = "nametag.wait"
)

// What an argument means that does not say how long.
const (
	// DefaultWait is how long the default policy waits.
	DefaultWait = 5 * time.Minute
	// DefaultPatience is how long the service is asked where the name is known.
	DefaultPatience = 15 * time.Second
)

// The waits that an argument may ask for. What is shorter cannot hold a single
// exchange with any network, what is longer is meant to be forever: either is
// far more likely a slip.
const (
	shortestWait = time.Millisecond
	longestWait  = 365 * 24 * time.Hour
)

// Mode is how long to wait: not at all, for a time, or without a bound.
type Mode uint8

// The modes.
const (
	Off     Mode = iota // do nothing, boot on at once
	Bounded             // wait for Policy.Wait at most
	Forever             // wait until the name is there
)

// String returns "off", "bounded" or "forever".
func (m Mode) String() string { return nameOf(m, modes) }

// Then is what happens when the time is up and there is no valid name.
type Then uint8

// What may happen then.
const (
	Reboot   Then = iota // start the machine again
	PowerOff             // switch the machine off
	Halt                 // stay, and keep saying why
	Continue             // boot on; the operating system names itself
)

// String returns the word of the kernel argument: "reboot", "poweroff", "halt"
// or "continue".
func (t Then) String() string { return nameOf(t, thens) }

// ParseThen reads the word that String returns. Its error is an [*Error].
func ParseThen(s string) (Then, error) {
	t, err := choose[Then]("then", s, thens)
	return t, asError(err)
}

// Keep is what stays of the network that was set up to ask for the name.
type Keep uint8

// What may stay.
const (
	KeepNone    Keep = iota // undo every address and route, set the link as it was
	KeepNetwork             // leave it for the operating system
)

// String returns the word of the kernel argument: "none" or "network".
func (k Keep) String() string { return nameOf(k, keeps) }

// ParseKeep reads the word that String returns. Its error is an [*Error].
func ParseKeep(s string) (Keep, error) {
	k, err := choose[Keep]("keep", s, keeps)
	return k, asError(err)
}

// Known is what a name counts for that the node remembers from an earlier boot,
// when the service gives none.
type Known uint8

// What it may count for.
const (
	// KnownGoes goes on under the name when the service has given none for
	// Policy.Patience. Where the node's memory cannot be read, but belongs to a
	// system that has booted before and names itself out of it, the boot goes on
	// without a name from us.
	KnownGoes Known = iota
	// KnownStrict is KnownGoes without the second sentence: a memory that cannot
	// be read is none.
	KnownStrict
	// KnownOff looks at no memory: each boot is as the first.
	KnownOff
)

// String returns "goes", "strict" or "off".
func (k Known) String() string { return nameOf(k, knowns) }

// Rename is what to do when the service gives another name, with this machine's
// instance id, than the one that the node remembers.
type Rename uint8

// What to do then.
const (
	RenameFollow Rename = iota // the new name
	RenameStop                 // neither: it counts as no valid name
)

// String returns the word of the kernel argument: "follow" or "stop".
func (r Rename) String() string { return nameOf(r, renames) }

// ID is what to make of an answer whose instance id nothing proves to be this
// machine's, because the firmware does not give it.
type ID uint8

// What to make of it.
const (
	IDProven   ID = iota // it is no valid answer
	IDUnproven           // it is taken all the same
)

// String returns the word of the kernel argument: "proven" or "unproven".
func (i ID) String() string { return nameOf(i, ids) }

// The words in the order of the constants. Functions, not variables, so that
// nobody can change them.
func modes() []string   { return []string{"off", "bounded", "forever"} }
func thens() []string   { return []string{"reboot", "poweroff", "halt", "continue"} }
func keeps() []string   { return []string{"none", "network"} }
func knowns() []string  { return []string{"goes", "strict", "off"} }
func renames() []string { return []string{"follow", "stop"} }
func ids() []string     { return []string{"proven", "unproven"} }
func vias() []string    { return []string{"linklocal", "dhcp", "ipv6"} }

// nameOf returns the word for v, or its number if it is none of the constants.
func nameOf[T ~uint8](v T, words func() []string) string {
	if w := words(); int(v) < len(w) {
		return w[v]
	}
	return strconv.Itoa(int(v))
}

// choose returns the constant that value names.
func choose[T ~uint8](key, value string, words func() []string) (T, *Error) {
	w := words()
	if i := slices.Index(w, value); i >= 0 {
		return T(i), nil
	}
	return 0, &Error{
		Argument:   key + "=" + value,
		Part:       key + "=" + value,
		Reason:     "is none of " + strings.Join(w, ", "),
		Suggestion: prefixed(key+"=", nearest(value, w)),
	}
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

// asError keeps a nil *Error from becoming an error that is not nil.
func asError(e *Error) error {
	if e == nil {
		return nil
	}
	return e
}

// Policy is what talos.hostname.wait= asks for. The zero value is Off: do
// nothing.
type Policy struct {
	Mode Mode
	// Wait is the bound. It counts with Bounded only, and is then from one
	// millisecond to 365 days.
	Wait time.Duration
	// Then is what to do when Wait has passed without a valid name.
	Then Then
	// NICs are the interfaces to use: MAC addresses (lower case, with colons),
	// names, or globs on names in the syntax of [path.Match]. Empty means every
	// physical Ethernet interface.
	NICs []string
	// Via are the methods to use: "linklocal", "dhcp", "ipv6". Empty means the
	// first two: nobody serves the address for IPv6 today, so that whoever claims it
	// has no competitor.
	Via []string
	// Keep says what stays of the network.
	Keep Keep
	// Known is what a remembered name counts for.
	Known Known
	// Patience is how long the service is asked, with KnownGoes and KnownStrict,
	// where the name is known: see [Policy.KnownAfter]. Zero means
	// [DefaultPatience], [AtOnce] no time at all.
	Patience time.Duration
	// Rename is what to do when the service gives a known node another name.
	Rename Rename
	// ID says whether an answer counts that nothing proves to be this machine's.
	ID ID
}

// AtOnce is the Patience of known=0s: a known name counts before the service was
// asked.
const AtOnce time.Duration = -1

// KnownAfter returns how long the service is asked where the name is known, and
// whether a known name counts at all. The time runs from the first path to the
// service, or from the start where none comes; when the policy's own time is up
// before, that ends it.
func (p Policy) KnownAfter() (patience time.Duration, ok bool) {
	switch {
	case p.Known == KnownOff:
		return 0, false
	case p.Patience == 0:
		return DefaultPatience, true
	}
	return max(0, p.Patience), true
}

// WithDeadline returns a context that ends when the policy's time is up, for a wait
// that began then. With a policy that has no bound it ends only with ctx, or when
// cancel is called, which releases what it holds.
func (p Policy) WithDeadline(ctx context.Context, began time.Time) (context.Context, context.CancelFunc) {
	if p.Mode != Bounded {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, began.Add(p.Wait))
}

// Default returns the policy of a bare talos.hostname.wait: five minutes, then
// reboot. It is also what a malformed argument comes to.
func Default() Policy {
	return Policy{Mode: Bounded, Wait: DefaultWait, Then: Reboot}
}

// String returns the kernel argument that makes the policy, such as
// "talos.hostname.wait=2m,then=halt". What is as by default is left out.
func (p Policy) String() string { return Parameter + "=" + p.Value() }

// Value returns what stands behind the "=" of String.
func (p Policy) Value() string {
	var b strings.Builder
	if p.Mode == Bounded {
		b.WriteString(formatWait(p.Wait))
	} else {
		b.WriteString(p.Mode.String())
	}
	if p.Then != Reboot {
		b.WriteString(",then=" + p.Then.String())
	}
	for _, nic := range p.NICs {
		b.WriteString(",nic=" + nic)
	}
	for _, via := range p.Via {
		b.WriteString(",via=" + via)
	}
	if p.Keep != KeepNone {
		b.WriteString(",keep=" + p.Keep.String())
	}
	switch {
	case p.Known != KnownGoes:
		b.WriteString(",known=" + p.Known.String())
	case p.Patience == AtOnce:
		b.WriteString(",known=0s")
	case p.Patience != 0:
		b.WriteString(",known=" + formatWait(p.Patience))
	}
	if p.Rename != RenameFollow {
		b.WriteString(",rename=" + p.Rename.String())
	}
	if p.ID != IDProven {
		b.WriteString(",id=" + p.ID.String())
	}
	return b.String()
}

// formatWait is time.Duration.String without the zeros at its end: 2m, not 2m0s.
func formatWait(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalText returns what String returns, or an error if no argument makes
// this policy (a Bounded one with no Wait, a NIC with a comma in its name, …).
func (p Policy) MarshalText() ([]byte, error) {
	for _, nic := range p.NICs { // each by itself, lest a comma in one make two
		if _, err := parseNIC(nic); err != nil {
			err.Argument = p.String()
			return nil, err
		}
	}
	for _, via := range p.Via {
		if _, err := choose[uint8]("via", via, vias); err != nil {
			err.Argument = p.String()
			return nil, err
		}
	}
	again, err := ParsePolicy(p.Value())
	if err != nil {
		return nil, err
	}
	if again.Known != p.Known || again.Patience != p.Patience {
		return nil, &Error{Argument: p.String(), Part: p.Value(), Reason: "does not say what Known and Patience say: they contradict each other"}
	}
	return []byte(p.String()), nil
}

// UnmarshalText reads the argument with either name or without, which makes a
// Policy fit for [flag.TextVar]. On error p is the policy of [Default].
func (p *Policy) UnmarshalText(text []byte) error {
	name, value, _ := strings.Cut(string(text), "=")
	if name != Parameter && name != Alias { // the value alone
		name, value = Parameter, string(text)
	}
	var err error
	*p, err = Parser{}.parse(name, value)
	return err
}
