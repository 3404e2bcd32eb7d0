package netns

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/testvm/cloud"
)

// PlugOption changes what [Plug] makes.
type PlugOption func(*plugConfig)

type plugConfig struct {
	mac net.HardwareAddr
	mtu int
}

// MAC sets the node's address on the new NIC; by default the kernel picks one.
func MAC(mac net.HardwareAddr) PlugOption { return func(c *plugConfig) { c.mac = mac } }

// MTU sets the MTU of both ends; by default it is 1500.
func MTU(mtu int) PlugOption { return func(c *plugConfig) { c.mtu = mtu } }

// Cable is the far end of a NIC that [Plug] made. It implements [cloud.Port].
type Cable struct {
	index int // of the peer
	file  *os.File

	mu   sync.Mutex // guards rtnl, a socket of the hidden namespace
	rtnl *rtnl
	ns   *os.File
}

var _ cloud.Port = (*Cable)(nil)

// peerName is the far end's, in a namespace that nobody else sees.
const peerName = "cloud"

// Plug makes a NIC called ifname in the current network namespace, down and bare, and returns the far end. The cleanup
// removes the NIC, also when it was renamed or moved in the meantime, and waits until it is gone; it may be called more
// than once. Closing the port alone leaves the NIC, with nobody at the other end.
//
// Plug needs CAP_NET_ADMIN and CAP_SYS_ADMIN: call it after [Main] or [Enter], or through [Node.Plug].
func Plug(ifname string, opts ...PlugOption) (port *Cable, cleanup func() error, err error) {
	var cfg plugConfig
	for _, o := range opts {
		o(&cfg)
	}
	fail := func(err error) (*Cable, func() error, error) {
		return nil, nil, fmt.Errorf("netns: plug %s: %w", ifname, err)
	}
	c := new(Cable)
	if err := hidden(c.prepare); err != nil {
		return fail(err)
	}
	here, err := dial()
	if err != nil {
		return fail(errors.Join(err, c.remove()))
	}
	defer here.close()
	if err := here.veth(ifname, peerName, int(c.ns.Fd()), cfg.mac, cfg.mtu); err != nil {
		return fail(errors.Join(fmt.Errorf("make a veth pair: %w", err), c.remove()))
	}
	if err := checksumsByKernel(ifname); err != nil {
		return fail(errors.Join(err, c.remove()))
	}
	if err := c.connect(); err != nil {
		return fail(errors.Join(err, c.remove()))
	}
	return c, sync.OnceValue(c.remove), nil
}

// hidden runs f on a thread in a new network namespace. The thread is thrown away, and with it the namespace unless f
// has kept a descriptor of it.
func hidden(f func() error) error {
	result := make(chan error, 1)
	go func() {
		// Never unlocked: the runtime ends the thread with the goroutine.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			result <- unavailable(fmt.Errorf("unshare: %w", err))
			return
		}
		result <- f()
	}()
	return <-result
}

// prepare opens in the hidden namespace what is needed from it later.
func (c *Cable) prepare() error {
	// Before any device is there: no router solicitation, no duplicate address detection, no listener report. IPv4
	// says nothing without an address. A kernel without IPv6 has nothing to silence.
	for _, which := range []string{"all", "default"} {
		err := os.WriteFile("/proc/sys/net/ipv6/conf/"+which+"/disable_ipv6", []byte("1"), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	c.ns = ns
	if c.rtnl, err = dial(); err != nil {
		return errors.Join(err, ns.Close())
	}
	// No protocol yet, so nothing is queued before it is bound to the device.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		c.rtnl.close()
		return errors.Join(fmt.Errorf("packet socket: %w", err), ns.Close())
	}
	c.file = os.NewFile(uintptr(fd), "packet")
	return nil
}

// buffer is what a packet socket may hold; without rights over the host the kernel's own limit applies.
const buffer = 8 << 20

// connect binds the packet socket to the peer and brings the peer up.
func (c *Cable) connect() error {
	raw, err := c.file.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) {
		inner = func() error {
			s := int(fd)
			if unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer) != nil {
				_ = unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer)
			}
			// What we send ourselves is not for us (kernel 4.20).
			if err := unix.SetsockoptInt(s, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
				return fmt.Errorf("ignore outgoing frames: %w", err)
			}
			// When the node's end comes up, the kernel gives this end its queue later, by linkwatch, after up to a
			// second on a busy machine; until then the queue is one that drops everything. So around it.
			if err := unix.SetsockoptInt(s, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
				return fmt.Errorf("bypass the queue: %w", err)
			}
			ifr, err := unix.NewIfreq(peerName)
			if err != nil {
				return err
			}
			if err := unix.IoctlIfreq(s, unix.SIOCGIFINDEX, ifr); err != nil {
				return fmt.Errorf("find the far end: %w", err)
			}
			c.index = int(ifr.Uint32())
			all := uint16(unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8)
			return unix.Bind(s, &unix.SockaddrLinklayer{Protocol: all, Ifindex: c.index})
		}()
	})
	if err := errors.Join(err, inner); err != nil {
		return err
	}
	return c.rtnl.setFlags(c.index, unix.IFF_UP|unix.IFF_NOARP, unix.IFF_UP|unix.IFF_NOARP)
}

// ReadFrame implements [cloud.Port].
func (c *Cable) ReadFrame(p []byte) (int, error) {
	for {
		n, err := c.file.Read(p)
		switch {
		case err == nil:
			return n, nil
		case errors.Is(err, unix.ENETDOWN):
			// The far end went down, which SetCarrier does, or the NIC is gone; only the latter is the end.
			if c.gone() {
				return 0, io.EOF
			}
		case errors.Is(err, os.ErrClosed):
			return 0, io.EOF
		default:
			return 0, err
		}
	}
}

// gone says whether the far end's device is no more.
func (c *Cable) gone() bool {
	raw, err := c.file.SyscallConn()
	if err != nil {
		return true
	}
	gone := true
	err = raw.Control(func(fd uintptr) {
		ifr, err := unix.NewIfreq(peerName)
		gone = err != nil || unix.IoctlIfreq(int(fd), unix.SIOCGIFINDEX, ifr) != nil
	})
	return gone || err != nil
}

// WriteFrame implements [cloud.Port]. A frame that the NIC does not take is lost.
func (c *Cable) WriteFrame(p []byte) error {
	_, err := c.file.Write(p)
	return err
}

// Close implements [cloud.Port].
func (c *Cable) Close() error {
	if err := c.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// SetCarrier pulls the cable out of the NIC or puts it in again.
func (c *Cable) SetCarrier(up bool) error {
	var flags uint32
	if up {
		flags = unix.IFF_UP
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rtnl == nil {
		return os.ErrClosed
	}
	return c.rtnl.setFlags(c.index, flags, unix.IFF_UP)
}

// remove deletes the pair, which can be named by this end whatever became of the other.
func (c *Cable) remove() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	if c.index != 0 {
		if err := c.rtnl.delete(c.index); err != nil && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, fmt.Errorf("netns: remove the NIC: %w", err))
		}
	}
	c.rtnl.close()
	c.rtnl = nil
	errs = append(errs, c.Close(), c.ns.Close())
	return errors.Join(errs...)
}
