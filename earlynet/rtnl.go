//go:build linux

package earlynet

import (
	"encoding"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// createExcl makes a request create what is not there, and nothing else.
const createExcl = netlink.Create | netlink.Excl

// An rtnl is a socket for rtnetlink requests. It is safe for concurrent use;
// requests are answered one after the other. The zero value is none: only a network of [Host] goes on without.
type rtnl struct {
	c *netlink.Conn
	// patience is how long the kernel may take to answer one request, a Duration; 0: for ever.
	patience *atomic.Int64
}

// over is a socket for requests over a connection.
func over(c *netlink.Conn) rtnl { return rtnl{c, new(atomic.Int64)} }

func dialRTNL() (rtnl, error) {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return rtnl{}, err
	}
	// Better messages (from 4.12 on), and dumps that honour the interface
	// index (from 4.20 on). Everything works without them.
	_ = c.SetOption(netlink.ExtendedAcknowledge, true)
	_ = c.SetOption(netlink.GetStrictCheck, true)
	return over(c), nil
}

// do sends one request and waits for the kernel's verdict. Extra holds encoded
// attributes that m cannot express.
func (r rtnl) do(typ netlink.HeaderType, flags netlink.HeaderFlags, m encoding.BinaryMarshaler, extra ...byte) error {
	data, err := m.MarshalBinary()
	if err != nil {
		return err
	}
	_, err = r.execute(netlink.Message{
		Header: netlink.Header{Type: typ, Flags: netlink.Request | netlink.Acknowledge | flags},
		Data:   append(data, extra...),
	})
	return err
}

// dump returns all objects of a kind that the kernel finds to match m. Where it
// cannot filter it returns more: the caller must look for itself.
func (r rtnl) dump(typ netlink.HeaderType, m encoding.BinaryMarshaler) ([]netlink.Message, error) {
	data, err := m.MarshalBinary()
	if err != nil {
		return nil, err
	}
	return r.execute(netlink.Message{
		Header: netlink.Header{Type: typ, Flags: netlink.Request | netlink.Dump},
		Data:   data,
	})
}

// get returns what the kernel answers to one question.
func (r rtnl) get(typ netlink.HeaderType, m encoding.BinaryMarshaler) ([]netlink.Message, error) {
	data, err := m.MarshalBinary()
	if err != nil {
		return nil, err
	}
	return r.execute(netlink.Message{Header: netlink.Header{Type: typ, Flags: netlink.Request}, Data: data})
}

// execute sends a request, and returns the answer.
func (r rtnl) execute(m netlink.Message) ([]netlink.Message, error) {
	if d := time.Duration(r.patience.Load()); d != 0 {
		_ = r.c.SetDeadline(time.Now().Add(d))
	}
	return r.c.Execute(m)
}

// bound limits each further request to d from its beginning, and the one that goes on to d from now.
func (r rtnl) bound(d time.Duration) {
	if r.c == nil {
		return
	}
	r.patience.Store(int64(d))
	_ = r.c.SetDeadline(time.Now().Add(d))
}

func (r rtnl) close() error {
	if r.c == nil {
		return nil
	}
	return r.c.Close()
}

// raw is a message body that is encoded already.
type raw []byte

func (b raw) MarshalBinary() ([]byte, error) { return append([]byte(nil), b...), nil }

// exists reports whether err says that the object is there already.
func exists(err error) bool { return errors.Is(err, unix.EEXIST) }

// gone reports whether err says that the object of a request does not exist
// (any more), which is what undoing wants.
func gone(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ESRCH) ||
		errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EADDRNOTAVAIL)
}

// permission wraps ErrPermission around a refusal and leaves other errors.
func permission(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%w: %w", ErrPermission, err)
	}
	return err
}
