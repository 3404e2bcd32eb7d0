package netns

import (
	"fmt"
	"net"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// rtnl is a route netlink socket of the namespace of the thread that dialled it.
type rtnl struct{ c *netlink.Conn }

func dial() (*rtnl, error) {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, fmt.Errorf("netns: dial rtnetlink: %w", err)
	}
	return &rtnl{c}, nil
}

func (r *rtnl) close() { _ = r.c.Close() }

// ifinfo is a struct ifinfomsg without attributes.
func ifinfo(index int, flags, change uint32) []byte {
	msg := unix.IfInfomsg{Index: int32(index), Flags: flags, Change: change}
	return append([]byte(nil), (*[unix.SizeofIfInfomsg]byte)(unsafe.Pointer(&msg))[:]...)
}

func (r *rtnl) link(kind netlink.HeaderType, flags netlink.HeaderFlags, head []byte, attrs func(*netlink.AttributeEncoder)) error {
	ae := netlink.NewAttributeEncoder()
	if attrs != nil {
		attrs(ae)
	}
	tail, err := ae.Encode()
	if err != nil {
		return err
	}
	_, err = r.c.Execute(netlink.Message{
		Header: netlink.Header{Type: kind, Flags: netlink.Request | netlink.Acknowledge | flags},
		Data:   append(head, tail...),
	})
	return err
}

func (r *rtnl) setFlags(index int, flags, mask uint32) error {
	return r.link(unix.RTM_NEWLINK, 0, ifinfo(index, flags, mask), nil)
}

func (r *rtnl) delete(index int) error {
	return r.link(unix.RTM_DELLINK, 0, ifinfo(index, 0, 0), nil)
}

// vethPeer is VETH_INFO_PEER of linux/veth.h, which x/sys does not have.
const vethPeer = 1

// veth makes a pair: one end here, down, the other called peer in the namespace of the descriptor ns.
func (r *rtnl) veth(name, peer string, ns int, mac net.HardwareAddr, mtu int) error {
	return r.link(unix.RTM_NEWLINK, netlink.Create|netlink.Excl, ifinfo(0, 0, 0), func(ae *netlink.AttributeEncoder) {
		ae.String(unix.IFLA_IFNAME, name)
		if mac != nil {
			ae.Bytes(unix.IFLA_ADDRESS, mac)
		}
		if mtu > 0 {
			ae.Uint32(unix.IFLA_MTU, uint32(mtu))
		}
		ae.Nested(unix.IFLA_LINKINFO, func(info *netlink.AttributeEncoder) error {
			info.String(unix.IFLA_INFO_KIND, "veth")
			info.Nested(unix.IFLA_INFO_DATA, func(data *netlink.AttributeEncoder) error {
				far := netlink.NewAttributeEncoder()
				far.String(unix.IFLA_IFNAME, peer)
				far.Uint32(unix.IFLA_NET_NS_FD, uint32(ns))
				if mtu > 0 {
					far.Uint32(unix.IFLA_MTU, uint32(mtu))
				}
				attrs, err := far.Encode()
				if err != nil {
					return err
				}
				data.Bytes(vethPeer, append(ifinfo(0, 0, 0), attrs...))
				return nil
			})
			return nil
		})
	})
}

// checksumsByKernel makes the kernel compute checksums before frames leave a device of the calling thread's namespace.
// A veth leaves them to hardware that is not there, and a packet socket at the other end would see them half done.
// Without checksums in hardware the kernel also gives up segmentation offload, so no frame is larger than the MTU.
func checksumsByKernel(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	// struct ethtool_value and the part of struct ifreq that the call reads.
	value := struct{ cmd, data uint32 }{unix.ETHTOOL_STXCSUM, 0}
	var req struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
	copy(req.name[:unix.IFNAMSIZ-1], name)
	req.data = unsafe.Pointer(&value)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return fmt.Errorf("switch checksum offload of %s off: %w", name, errno)
	}
	return nil
}
