package earlynet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
)

var (
	// ErrPermission means that the process may not configure links.
	ErrPermission = errors.New("not permitted: needs CAP_NET_ADMIN and CAP_NET_RAW (run as root)")

	// ErrNoNIC means that no NIC was there that the configuration selects.
	ErrNoNIC = errors.New("no usable NIC")

	// ErrPathDone means that what a path stood on is gone: its link, its
	// address, or the whole network.
	ErrPathDone = errors.New("path is gone")

	// ErrConflict means that another host uses the address.
	ErrConflict = errors.New("address is in use by another host")

	// ErrName means that a path of [Open] was asked to dial a name. It dials
	// literal addresses only, there being no resolver yet.
	ErrName = errors.New("not a literal address")
)

// An Error says what failed, where, and after how much effort. It reads like
// "earlynet: eth0 (dhcp): no offer after 6 tries in 3.1s".
type Error struct {
	Op        string        // what was attempted, or what did not come
	Interface string        // the NIC's name; empty for the network as a whole
	Method    Method        // 0: the link itself
	Tries     int           // 0: not counted
	Elapsed   time.Duration // 0: not measured
	Err       error         // the cause; may be nil
}

// Error implements error.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("earlynet: ")
	if e.Interface != "" {
		b.WriteString(e.Interface)
		if e.Method != 0 {
			fmt.Fprintf(&b, " (%v)", e.Method)
		}
		b.WriteString(": ")
	}
	b.WriteString(e.Op)
	switch {
	case e.Tries == 1:
		b.WriteString(" after 1 try")
	case e.Tries > 1:
		fmt.Fprintf(&b, " after %d tries", e.Tries)
	}
	if e.Elapsed > 0 {
		fmt.Fprintf(&b, " in %v", round(e.Elapsed))
	}
	if e.Err != nil {
		b.WriteString(": ")
		b.WriteString(e.Err.Error())
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Timeout reports whether it failed by silence: nobody has answered, be it to DHCP, ARP or TCP, and whoever waits longer may
// hear something. So it is with an error that counts Tries and knows no cause, and with one whose cause is a timeout.
// [os.IsTimeout] asks this.
func (e *Error) Timeout() bool {
	if e.Err == nil {
		return e.Tries > 0
	}
	var cause interface{ Timeout() bool }
	return errors.As(e.Err, &cause) && cause.Timeout()
}

// A silentError is a cause that is a timeout.
type silentError string

func (e silentError) Error() string { return string(e) }

// Timeout says that it is one.
func (silentError) Timeout() bool { return true }

// An UndoError names one thing that [Network.Close] could not take back.
type UndoError struct {
	Interface string // the NIC's name
	What      string // what is left behind: "address 169.254.7.9/32"
	Err       error
}

// Error implements error.
func (e *UndoError) Error() string {
	return fmt.Sprintf("earlynet: %s: %s is left behind: %v", e.Interface, e.What, e.Err)
}

// Unwrap returns the cause.
func (e *UndoError) Unwrap() error { return e.Err }

var _, _ error = (*Error)(nil), (*UndoError)(nil)

// A conflictError is an ErrConflict that knows who the other host is.
type conflictError struct {
	ip  netip.Addr
	mac [6]byte
}

func (e *conflictError) Error() string {
	return fmt.Sprintf("%v: %v is at %v", ErrConflict, e.ip, net.HardwareAddr(e.mac[:]))
}

func (e *conflictError) Unwrap() error { return ErrConflict }

// round cuts a duration to what a person reads.
func round(d time.Duration) time.Duration {
	switch {
	case d < 10*time.Millisecond:
		return d.Round(10 * time.Microsecond)
	case d < time.Second:
		return d.Round(time.Millisecond)
	default:
		return d.Round(100 * time.Millisecond)
	}
}
