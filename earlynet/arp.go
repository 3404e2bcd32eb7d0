//go:build linux

package earlynet

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// This file says what is said on the link, arppacket.go what a packet means, and linklocal.go when an address is given up.

// When to ask whether another host has the address, and when to say that it is
// ours. RFC 3927 (section 9) spreads this over seconds, before the address is
// used; here it is in use already, so the first question goes out at once.
var (
	probeTimes    = []time.Duration{0, 200 * time.Millisecond, time.Second}
	announceTimes = []time.Duration{2 * time.Second, 4 * time.Second}
)

var broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// listenARP opens a packet socket for ARP. Closing it takes the kernel 10 ms and
// more (an RCU grace period, packet_release in net/packet/af_packet.c): nobody waits
// for that but the end of Close.
func (c *nic) listenARP(l link, filter []bpf.RawInstruction) (conn net.PacketConn, shut func(), err error) {
	pc, closeSocket, err := c.net.listen(packet.Listen(&net.Interface{Index: l.index, Name: l.name, HardwareAddr: l.mac},
		packet.Datagram, unix.ETH_P_ARP, &packet.Config{Filter: filter}))
	if err != nil {
		return nil, nil, err
	}
	return pc, func() { c.net.closers.Go("closing a socket", closeSocket, c.net.died) }, nil
}

// A step is a packet, and when it is sent.
type step struct {
	at     time.Time
	packet arpPacket
}

// converse sends each packet when it is due, the first first, and gives take each
// packet that comes meanwhile, until take returns an error, ctx ends, or, if until
// is not zero, that time comes.
func converse(ctx context.Context, conn net.PacketConn, steps []step, until time.Time, take func(p arpPacket, left []step) error) error {
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })()
	buf := make([]byte, 64)
	for {
		for len(steps) > 0 && !time.Now().Before(steps[0].at) {
			// A packet that the link does not take is a packet lost.
			_, _ = conn.WriteTo(steps[0].packet.marshal(), &packet.Addr{HardwareAddr: broadcast})
			steps = steps[1:]
		}
		wake := until
		if len(steps) > 0 && (wake.IsZero() || steps[0].at.Before(wake)) {
			wake = steps[0].at
		}
		if err := conn.SetReadDeadline(wake); err != nil {
			return err
		}
		if ctx.Err() != nil { // after the deadline, which its end also sets
			return ctx.Err()
		}
		n, _, err := conn.ReadFrom(buf)
		var timeout net.Error
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case !until.IsZero() && !time.Now().Before(until):
			return nil
		case errors.Is(err, unix.ENETDOWN):
			continue // told once; what the kernel tells of the link decides
		case errors.As(err, &timeout) && timeout.Timeout():
			continue
		case err != nil:
			return err
		}
		if p, ok := parseARP(buf[:n]); ok {
			if err := take(p, steps); err != nil {
				return err
			}
		}
	}
}

// detectConflict asks the link whether another host has the address, then claims
// it, and watches until ctx ends (RFC 5227 calls it address conflict detection). It
// returns an error that wraps [ErrConflict] when another host has it, and heed says
// that this counts.
func (c *nic) detectConflict(ctx context.Context, l link, ip netip.Addr, heed func(*conflictError) bool) error {
	filter, err := arpFilter(ip)
	if err != nil {
		return err
	}
	conn, shut, err := c.listenARP(l, filter)
	if err != nil {
		return err
	}
	defer shut()

	mac := [6]byte(l.mac)
	now := time.Now()
	var steps []step
	for _, at := range probeTimes {
		steps = append(steps, step{now.Add(at), arpPacket{op: 1, senderMAC: mac, senderIP: netip.IPv4Unspecified(), targetIP: ip}})
	}
	for _, at := range announceTimes {
		steps = append(steps, step{now.Add(at), arpPacket{op: 1, senderMAC: mac, senderIP: ip, targetIP: ip}})
	}
	return converse(ctx, conn, steps, time.Time{}, func(p arpPacket, left []step) error {
		if p.conflicts(mac, ip, len(left) >= len(announceTimes)) {
			if other := (&conflictError{ip, p.senderMAC}); heed(other) {
				return other
			}
		}
		return nil
	})
}
