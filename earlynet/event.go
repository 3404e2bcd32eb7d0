package earlynet

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// An Event is one step that a [Network] took, or one thing that it saw.
type Event struct {
	Interface string // the NIC's name; empty for the network as a whole
	Method    Method // 0: the link itself
	Kind      EventKind
	Try       int           // the number of the try, or of those that failed; 0: not counted
	Address   netip.Addr    // that is ours, or is to be; zero: of no matter here
	Server    netip.Addr    // the DHCP server; zero: of no matter here
	Lease     time.Duration // how long it is for, with DHCPAck; the largest Duration: for ever
	Detail    string        // for people: all of this in words, a reason, a remedy; may be empty
	Err       error         // set for failures
	Time      time.Time     // when, with a monotonic reading
}

// String returns the event as one line: "eth0 (dhcp): ack: 10.0.0.2/32".
func (e Event) String() string {
	var b strings.Builder
	if e.Interface != "" {
		b.WriteString(e.Interface)
		if e.Method != 0 {
			fmt.Fprintf(&b, " (%v)", e.Method)
		}
		b.WriteString(": ")
	}
	b.WriteString(e.Kind.String())
	if e.Detail != "" {
		b.WriteString(": ")
		b.WriteString(e.Detail)
	}
	if e.Err != nil {
		b.WriteString(": ")
		b.WriteString(e.Err.Error())
	}
	return b.String()
}

// An EventKind says what an [Event] is about.
type EventKind uint8

// The kinds of events.
const (
	NICFound       EventKind = iota + 1 // a NIC that will be used
	NICIgnored                          // a NIC that will not; Detail says why, and what to do
	NICGone                             // a NIC in use was removed
	NICRenamed                          // Detail: the former name
	LinkUp                              // the link was set up
	Carrier                             // the link can carry frames
	CarrierLost                         // the link cannot carry frames any more
	AddressAdded                        // to the link, unless it is there already, as Detail says; Address
	Conflict                            // another host uses our Address
	ProxyARP                            // a host answers ARP for every address, and is ignored; Detail: its MAC address
	DHCPDiscover                        // a DHCPDISCOVER is sent: for the first time, and the Try-th, told ever more seldom
	DHCPOffer                           // Address, Server
	DHCPAck                             // Address, Server, Lease
	DHCPNak                             // Server; Err: its message
	PathReady                           // a path; Address: its source
	PathFailed                          // a method could not make a path, or the path it made ended
	Kept                                // a path will outlive the network
	Undone                              // Detail: what was taken back
	UndoFailed                          // Detail: what could not be
	LinkLeftUp                          // the link was down before and is left up; Detail: why
	NextHop                             // several hosts claim to be the next on the way; Detail: which one is tried
	NetlinkOverrun                      // notifications were lost; everything was read anew
	LinkBusy                            // another Network uses the link, of this process or another, or udev does; Err: which
	LinkSetDown                         // somebody else has set the link down; Detail: what follows
	TakenOver                           // what a process had left that was killed is gone, or ours; Detail: what
	SettingFailed                       // a setting of the link could not be changed for our time; Detail: which
	NoNIC                               // there is no NIC to use yet, or any more; Err: an ErrNoNIC. Told again where that has another reason, ever more seldom
)

// String returns the kind in words.
func (k EventKind) String() string {
	names := [...]string{
		NICFound: "found", NICIgnored: "ignored", NICGone: "gone", NICRenamed: "renamed",
		LinkUp: "link set up", Carrier: "carrier", CarrierLost: "carrier lost",
		AddressAdded: "address", Conflict: "conflict", ProxyARP: "proxy ARP",
		DHCPDiscover: "discover", DHCPOffer: "offer", DHCPAck: "ack", DHCPNak: "nak",
		PathReady: "path ready", PathFailed: "path failed", Kept: "kept",
		Undone: "undone", UndoFailed: "undo failed", LinkLeftUp: "link left up",
		NextHop: "next hop", NetlinkOverrun: "notifications lost", LinkBusy: "busy", LinkSetDown: "set down by somebody else",
		TakenOver: "taken over from a run that was killed", SettingFailed: "setting cannot be changed", NoNIC: "no NIC yet",
	}
	if int(k) < len(names) && names[k] != "" {
		return names[k]
	}
	return fmt.Sprintf("event %d", k)
}
