//go:build linux

package earlynet

import (
	"encoding/binary"
	"errors"
	"math"
	"net/netip"
	"time"

	"github.com/jsimonetti/rtnetlink/v2"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// rtprotNametag is this package's number, for routes (rtm_protocol) and addresses
	// (IFA_PROTO): its mark. Nobody has claimed it in linux/rtnetlink.h.
	rtprotNametag = 110

	// ifaProto is IFA_PROTO of linux/if_addr.h, since Linux 5.18.
	ifaProto = 11
	// The kernel's own values of it, for ::1, router advertisements and fe80::.
	ifaProtoKernelFirst, ifaProtoKernelLast = 1, 3

	// addressLife is how long an address outlives a killed process. It is
	// extended every third of it.
	addressLife = 60 * time.Second
)

// An address is what this package wants to know about an interface's address.
type address struct {
	index  int
	prefix netip.Prefix
	flags  uint32
	proto  uint8  // who added it, if the kernel knows
	valid  uint32 // remaining seconds; MaxUint32: for ever
}

// ours reports whether the address is still the one that this package added:
// whoever replaces an address gives it no mark, or another lifetime. A kernel
// that knows no marks shows the lifetime alone.
func (a address) ours() bool {
	return (a.proto == rtprotNametag || a.proto == 0) && a.valid <= uint32(addressLife/time.Second)
}

// foreign reports whether somebody other than the kernel itself stands behind
// the address.
func (a address) foreign() bool {
	switch {
	case a.prefix.Addr().Is4():
		return true
	case a.proto >= ifaProtoKernelFirst && a.proto <= ifaProtoKernelLast:
		return false
	case a.prefix.Addr().IsLinkLocalUnicast():
		return false // fe80::, made by any kernel that sets a link up
	default:
		// From a router advertisement, on a kernel that does not say so: not permanent.
		return a.flags&unix.IFA_F_PERMANENT != 0
	}
}

// usable reports whether the kernel lets sockets use the address.
func (a address) usable() bool {
	return a.flags&unix.IFA_F_DADFAILED == 0 &&
		(a.flags&unix.IFA_F_TENTATIVE == 0 || a.flags&unix.IFA_F_OPTIMISTIC != 0)
}

// parseAddress reads an RTM_NEWADDR or RTM_DELADDR message.
func parseAddress(data []byte) (address, error) {
	var m rtnetlink.AddressMessage
	if err := m.UnmarshalBinary(data); err != nil {
		return address{}, err
	}
	if m.Attributes == nil {
		return address{}, errors.New("address message without an address")
	}
	ip := m.Attributes.Local // of a point-to-point interface, Address is the peer's
	if ip == nil {
		ip = m.Attributes.Address
	}
	addr, ok := netip.AddrFromSlice(ip)
	if !ok || int(m.PrefixLength) > addr.BitLen() {
		return address{}, errors.New("address message without an address")
	}
	a := address{
		index:  int(m.Index),
		prefix: netip.PrefixFrom(addr, int(m.PrefixLength)),
		flags:  uint32(m.Flags) | m.Attributes.Flags,
		valid:  m.Attributes.CacheInfo.Valid,
	}
	ad, err := netlink.NewAttributeDecoder(data[unix.SizeofIfAddrmsg:])
	if err != nil {
		return address{}, err
	}
	for ad.Next() {
		if ad.Type() == ifaProto {
			a.proto = ad.Uint8()
		}
	}
	return a, ad.Err()
}

// addresses returns the addresses of an interface, or of all for index 0.
func (r rtnl) addresses(index int) ([]address, error) {
	msgs, err := r.dump(unix.RTM_GETADDR, raw(ifaddrmsg(index)))
	if err != nil {
		return nil, err
	}
	var as []address
	for _, m := range msgs {
		if a, err := parseAddress(m.Data); err == nil && (index == 0 || a.index == index) {
			as = append(as, a)
		}
	}
	return as, nil
}

// ifaddrmsg returns the header of a request for all addresses of an interface.
func ifaddrmsg(index int) []byte {
	b := make([]byte, unix.SizeofIfAddrmsg)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	return b
}

// addAddress adds an address of ours for a limited time, which must be more than nothing.
func (r rtnl) addAddress(index int, p netip.Prefix, life time.Duration) error {
	return r.newAddress(createExcl, index, p, rtprotNametag, life)
}

// extendAddress gives an address a new lifetime. With life ≤ 0 it lasts.
func (r rtnl) extendAddress(index int, p netip.Prefix, proto uint8, life time.Duration) error {
	return r.newAddress(netlink.Replace, index, p, proto, life)
}

func (r rtnl) newAddress(flags netlink.HeaderFlags, index int, p netip.Prefix, proto uint8, life time.Duration) error {
	seconds := uint32(math.MaxUint32)
	if life > 0 {
		seconds = uint32(max(1, min(life/time.Second, math.MaxInt32)))
	}
	ae := netlink.NewAttributeEncoder()
	ae.Do(unix.IFA_CACHEINFO, func() ([]byte, error) {
		b := make([]byte, 16) // preferred, valid, created, updated
		binary.NativeEndian.PutUint32(b[0:], seconds)
		binary.NativeEndian.PutUint32(b[4:], seconds)
		return b, nil
	})
	ae.Uint8(ifaProto, proto)
	extra, err := ae.Encode()
	if err != nil {
		return err
	}
	return r.do(unix.RTM_NEWADDR, flags, addressMessage(index, p), extra...)
}

func (r rtnl) deleteAddress(index int, p netip.Prefix) error {
	return r.do(unix.RTM_DELADDR, 0, addressMessage(index, p))
}

func addressMessage(index int, p netip.Prefix) *rtnetlink.AddressMessage {
	m := &rtnetlink.AddressMessage{
		Family: unix.AF_INET, PrefixLength: uint8(p.Bits()), Index: uint32(index),
		Scope: unix.RT_SCOPE_UNIVERSE,
		Attributes: &rtnetlink.AddressAttributes{
			Address: p.Addr().AsSlice(), Local: p.Addr().AsSlice(),
			Flags: unix.IFA_F_NOPREFIXROUTE,
		},
	}
	if p.Addr().IsLinkLocalUnicast() {
		m.Scope = unix.RT_SCOPE_LINK
	}
	return m
}
