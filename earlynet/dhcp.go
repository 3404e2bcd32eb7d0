package earlynet

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/safely"
)

// Retransmission. RFC 2131, section 4.1, begins with 4 s for the sake of shared
// links of its time; on a link that nobody else shares a lost packet is missed
// after milliseconds.
const (
	firstInterval  = 75 * time.Millisecond
	lastInterval   = 4 * time.Second
	renewInterval  = 60 * time.Second // RFC 2131, section 4.4.5
	requestTries   = 5                // then another server is looked for
	maxDHCPMessage = 1500
	maxReplies     = 64 // that are looked at after one message of ours: a flood is nobody's answer

	// A lease that is in use for so long has not led anywhere yet. Where
	// another server offers one, it is taken instead; the time doubles.
	firstDoubt = 5 * time.Second
	lastDoubt  = 60 * time.Second
	doubtTries = 3
)

var (
	errNoAnswer = errors.New("no answer")
	errNak      = errors.New("refused by the server")
	errDoubt    = errors.New("another server may do better")

	errLeaseEnded = errors.New("the lease has ended")
)

// leaseGrain is how much earlier than the lease its address may go: the kernel counts
// whole seconds, down, and looks at them when it finds the time.
const leaseGrain = 3 * time.Second

// dhcp keeps a path from a DHCPv4 lease up until ctx ends.
func (c *nic) dhcp(ctx context.Context) {
	if !c.net.wants(netip.Addr.Is4) {
		return
	}
	x := &exchange{
		nic: c, link: c.current(), rand: c.net.random(c.index),
		shunned: make(map[netip.Addr]int), doubt: c.net.doubt,
	}
	for tries := 0; ctx.Err() == nil; tries++ {
		began := time.Now()
		if err := c.dhcpOnce(ctx, x); ctx.Err() != nil || errors.Is(err, errDoubt) {
			continue
		}
		if time.Since(began) > lastInterval {
			tries = 0
		}
		pause(ctx, x.interval(tries, lastInterval))
	}
}

// dhcpOnce acquires a lease and keeps a path up from it until ctx ends or the
// lease cannot be used any more; the error says why.
func (c *nic) dhcpOnce(ctx context.Context, x *exchange) (err error) {
	a := c.begin(DHCP)
	defer func() { a.stop(err) }()

	var l *lease
	err = x.open(ctx, func(ctx context.Context) error {
		l, err = x.acquire(ctx)
		return err
	})
	if err != nil {
		if ctx.Err() == nil {
			c.fail(PathFailed, &Error{Op: "acquire a lease", Method: DHCP, Err: permission(err)})
		}
		return err
	}
	if err = a.use(x.link, l); err != nil {
		c.refuse(DHCP, err)
		return err
	}

	refresh := time.NewTicker(addressLife / 3)
	defer refresh.Stop()
	renew := time.NewTimer(l.renew)
	defer renew.Stop()
	doubt := time.NewTimer(x.doubt)
	defer doubt.Stop()
	var renewed chan renewal // nil: nobody asks
	var renewing safely.Group
	defer renewing.Wait()
	aside, stop := context.WithCancel(ctx)
	defer stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.lost:
			err = fmt.Errorf("address %v was removed by somebody else", l.prefix)
			if l.until(time.Now()) <= leaseGrain {
				err = fmt.Errorf("%w: %v, which was for %v", errLeaseEnded, l.prefix, leaseTime(l))
			}
			c.fail(PathFailed, &Error{Op: "keep the path", Method: DHCP, Err: err})
			return err
		case <-refresh.C:
			a.prolong(l)
		case <-renew.C:
			// Beside this loop: a server may be silent for longer than an address of ours lives.
			renewed = make(chan renewal, 1)
			renewing.Go("renewing a lease", func() {
				var r renewal
				r.err = x.open(aside, func(ctx context.Context) (err error) {
					r.lease, err = x.renew(ctx, l)
					return err
				})
				renewed <- r
			}, func(err error) { renewed <- renewal{err: err} })
		case r := <-renewed:
			renewed = nil
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err = r.err; err != nil {
				c.fail(PathFailed, &Error{Op: "renew the lease", Method: DHCP, Err: err})
				return err
			}
			a.mu.Lock() // Keep looks at it
			l.life, l.renew, l.begun = r.lease.life, r.lease.renew, r.lease.begun
			a.mu.Unlock()
			a.prolong(l) // the kernel counts by the lease before
			renew.Reset(l.renew)
		case <-doubt.C:
			if renewed != nil { // one exchange at a time
				doubt.Reset(x.doubt)
				continue
			}
			x.doubt = min(2*x.doubt, lastDoubt)
			if x.another(ctx, l.server) {
				x.shunned[l.server]++
				c.fail(PathFailed, &Error{Op: fmt.Sprintf("leave the lease of %v", l.server), Method: DHCP, Err: errDoubt})
				return errDoubt
			}
			doubt.Reset(x.doubt)
		}
	}
}

// prolong has the kernel keep the address for as long as the lease says.
func (a *attempt) prolong(l *lease) {
	if err := a.extend(l.until(time.Now())); err != nil {
		a.nic.fail(PathFailed, &Error{Op: "extend address " + l.prefix.String(), Method: DHCP, Err: permission(err)})
	}
}

// A renewal is what comes of asking for a lease again.
type renewal struct {
	lease *lease
	err   error
}

// use puts a lease's address on the link, and a route to each destination.
func (a *attempt) use(l link, ls *lease) error {
	source := ls.prefix.Addr()
	// Without its subnet: another DHCP client on this NIC is given the same
	// lease, and can then add the address with its subnet beside ours.
	if err := a.address(netip.PrefixFrom(source, 32), ls.until(time.Now())); err != nil {
		return err
	}
	p := &Path{Interface: l.name, Index: l.index, Source: source, Method: DHCP}
	n := a.nic.net
	for _, d := range n.cfg.Destinations {
		if !d.Is4() {
			continue
		}
		gateway, ok := ls.via(d)
		if !ok && !d.IsLinkLocalUnicast() { // those are on every link (RFC 3927, section 2.6.2)
			return &Error{
				Op: "find a route to " + d.String(), Interface: l.name, Method: DHCP,
				Err: errors.New("the lease has none"),
			}
		}
		// The gateway may be outside of the subnet, as on Hetzner's public
		// network. The kernel need not be told that it is on the link by a
		// further route. The MTU goes with the route, so that the link's need
		// not be changed.
		err := a.route(route{
			dst: netip.PrefixFrom(d, 32), gateway: gateway, onLink: true,
			source: source, metric: metricDHCP, mtu: ls.mtu,
		})
		if err != nil {
			return err
		}
		if gateway.IsValid() {
			n.mu.Lock()
			n.gateways[gateway] = struct{}{}
			n.mu.Unlock()
			if !p.Gateway.IsValid() {
				p.Gateway = gateway
			}
		}
	}
	a.mu.Lock()
	a.lease = ls
	a.mu.Unlock()
	a.ready(p, dialVia(l.index, l.name, source, false))
	return nil
}

// random returns a source of random numbers that never waits for entropy: Go's
// runtime seeds itself with what there is.
func (n *Network) random(salt int) *rand.Rand {
	seed := n.cfg.Seed
	if seed == 0 {
		seed = rand.Uint64()
	}
	return rand.New(rand.NewPCG(seed, uint64(salt)))
}

// An exchange talks to DHCP servers on a link that has no address.
//
// It uses a packet socket: one of UDP would need port 68 for itself, which
// another DHCP client on this machine may hold, and would not see an answer
// that is sent to an address not yet ours. Closing it takes the kernel a grace
// period of RCU, 8 to 16 ms, which nobody waits for but the end of Close.
type exchange struct {
	nic     *nic
	link    link
	rand    *rand.Rand
	shunned map[netip.Addr]int // servers that have let us down, how often
	doubt   time.Duration      // when to look for another server
	useless int                // messages
	flaw    error              // the last useless message's, since open

	conn  net.PacketConn
	in    chan *dhcpv4.DHCPv4
	began time.Time
	sent  int
}

// open calls fn with the socket open.
func (x *exchange) open(ctx context.Context, fn func(context.Context) error) error {
	filter, err := dhcpFilter()
	if err != nil {
		return err
	}
	conn, shut, err := x.nic.net.listen(packet.Listen(&net.Interface{Index: x.link.index, Name: x.link.name, HardwareAddr: x.link.mac},
		packet.Datagram, unix.ETH_P_IP, &packet.Config{Filter: filter}))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	x.conn, x.in, x.began, x.sent, x.flaw = conn, make(chan *dhcpv4.DHCPv4), time.Now(), 0, nil
	read := make(chan struct{})
	safely.Go("reading DHCP replies", func() {
		defer close(read)
		x.receive(ctx)
	}, x.nic.net.died)
	defer func() {
		cancel()
		_ = conn.SetReadDeadline(time.Now())
		<-read
		x.nic.net.closers.Go("closing a socket", shut, x.nic.net.died)
	}()
	return fn(ctx)
}

// receive passes on every DHCP reply to this link.
func (x *exchange) receive(ctx context.Context) {
	buf := make([]byte, maxDHCPMessage)
	for ctx.Err() == nil {
		n, _, err := x.conn.ReadFrom(buf)
		if err != nil {
			// ENETDOWN is told once; whether the link is gone others decide.
			pause(ctx, firstInterval)
			continue
		}
		m := parseReply(buf[:n], x.link.mac)
		if m == nil {
			continue
		}
		select {
		case x.in <- m:
		case <-ctx.Done():
		}
	}
}

// parseReply returns the DHCP reply in an IP datagram, or nil. It does not
// panic, whatever the parser of the options thinks of them: this may be the
// machine's first process.
func parseReply(b []byte, mac net.HardwareAddr) (m *dhcpv4.DHCPv4) {
	defer func() {
		if recover() != nil {
			m = nil
		}
	}()
	payload, ok := decodeDatagram(b)
	if !ok {
		return nil
	}
	m, err := dhcpv4.FromBytes(payload)
	if err != nil || m.OpCode != dhcpv4.OpcodeBootReply || m.ClientHWAddr.String() != mac.String() {
		return nil
	}
	if !overloaded(m, payload) {
		return nil
	}
	return m
}

// overloaded adds the options that a server has put into the fields for a file's
// and its own name, because there was no room elsewhere (RFC 2131, section 4.1;
// the order is RFC 3396's). It reports false where they are malformed.
func overloaded(m *dhcpv4.DHCPv4, payload []byte) bool {
	const name, file, cookie = 44, 108, 236 // where the fields begin, and what follows them
	var which byte
	if v := m.Options.Get(dhcpv4.OptionOptionOverload); len(v) == 1 {
		which = v[0]
	}
	return (which&1 == 0 || m.Options.FromBytes(payload[file:cookie]) == nil) &&
		(which&2 == 0 || m.Options.FromBytes(payload[name:file]) == nil)
}

// xid returns a new transaction's number.
func (x *exchange) xid() (id dhcpv4.TransactionID) {
	binary.NativeEndian.PutUint32(id[:], x.rand.Uint32())
	return id
}

// interval returns how long to wait after the nth try, from 0: doubling, give
// or take a quarter so that machines that start together do not stay together.
func (x *exchange) interval(n int, limit time.Duration) time.Duration {
	d := limit
	if n < 16 {
		d = min(limit, firstInterval<<n)
	}
	return d*3/4 + time.Duration(x.rand.Int64N(int64(d/2)))
}

// acquire gets a lease from whichever server gives one.
func (x *exchange) acquire(ctx context.Context) (*lease, error) {
	for failures := 0; ; failures++ {
		xid := x.xid()
		offers, err := x.discover(ctx, xid)
		if err != nil {
			return nil, err
		}
		// Offers that come in while a server is asked are asked for next.
		for len(offers) > 0 {
			offer := offers[0]
			var ack *lease
			ack, offers, err = x.request(ctx, xid, offer, offers[1:])
			switch {
			case err == nil:
				return ack, nil
			case ctx.Err() != nil:
				return nil, ctx.Err()
			}
			x.shunned[offer.server]++
		}
		pause(ctx, x.interval(failures, lastInterval))
	}
}

// discover asks all servers until one offers something, and returns the offers,
// the best first. Those that have let us down before are used only when no
// other speaks up.
func (x *exchange) discover(ctx context.Context, xid dhcpv4.TransactionID) ([]*lease, error) {
	x.nic.event(DHCP, DHCPDiscover, "", nil)
	var offers []*lease
	for try := 0; ; try++ {
		x.send(netip.IPv4Unspecified(), xid, dhcpv4.MessageTypeDiscover)
		err := x.await(ctx, xid, x.interval(try, lastInterval), func(m *dhcpv4.DHCPv4) bool {
			offer := x.offer(m)
			if offer == nil {
				return false
			}
			offers = append(offers, offer)
			return x.shunned[offer.server] == 0
		})
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err == nil || len(offers) > 0:
			slices.SortStableFunc(offers, func(a, b *lease) int { return x.shunned[a.server] - x.shunned[b.server] })
			return offers, nil
		}
		what := "no offer"
		if x.flaw != nil { // worth more to whoever reads it than that the server has stopped
			what = "no usable offer"
		}
		e := x.silence(what)
		e.Interface, e.Err = x.nic.name(), x.flaw
		x.nic.net.failed(e)
		if e.Tries >= 4 && seldom(e.Tries) {
			x.nic.event(DHCP, PathFailed, "", e)
		}
	}
}

// seldom reports whether the nth time is worth telling: ever more seldom.
func seldom(n int) bool { return n&(n-1) == 0 }

// another reports whether a server other than that one offers a lease, and has
// not let us down more often.
func (x *exchange) another(ctx context.Context, than netip.Addr) bool {
	err := x.open(ctx, func(ctx context.Context) error {
		xid := x.xid()
		for try := range doubtTries {
			x.send(netip.IPv4Unspecified(), xid, dhcpv4.MessageTypeDiscover)
			err := x.await(ctx, xid, x.interval(try, lastInterval), func(m *dhcpv4.DHCPv4) bool {
				if m.MessageType() != dhcpv4.MessageTypeOffer {
					return false
				}
				l, err := x.lease(m)
				return err == nil && l.server != than && x.shunned[l.server] <= x.shunned[than]
			})
			if err == nil || ctx.Err() != nil {
				return err
			}
		}
		return errNoAnswer
	})
	return err == nil
}

// lease is parseLease, and refuses an address that is to be dialled: the kernel
// would deliver to itself what is meant for the service, over every path.
func (x *exchange) lease(m *dhcpv4.DHCPv4) (*lease, error) {
	l, err := parseLease(m, x.link.mac, x.link.mtu)
	if err == nil && slices.Contains(x.nic.net.cfg.Destinations, l.prefix.Addr()) {
		return nil, fmt.Errorf("address %v cannot be used: it is the destination's", l.prefix.Addr())
	}
	return l, err
}

// offer returns the offer in a message, or nil.
func (x *exchange) offer(m *dhcpv4.DHCPv4) *lease {
	if m.MessageType() != dhcpv4.MessageTypeOffer {
		return nil
	}
	l, err := x.lease(m)
	if err != nil {
		x.unusable("unusable offer", err)
		return nil
	}
	x.nic.event(DHCP, DHCPOffer, fmt.Sprintf("%v from %v", l.prefix, l.server), nil)
	return l
}

// unusable notes a message that makes no sense, and tells it now and then: a
// server may send any number of them.
func (x *exchange) unusable(what string, err error) {
	e := &Error{Op: what, Interface: x.nic.name(), Method: DHCP, Err: err}
	x.nic.net.failed(e)
	x.flaw = err
	if x.useless++; seldom(x.useless) {
		x.nic.event(DHCP, PathFailed, "", e)
	}
}

// request asks a server for what it has offered. It returns the further offers
// that came meanwhile.
func (x *exchange) request(ctx context.Context, xid dhcpv4.TransactionID, offer *lease, more []*lease) (*lease, []*lease, error) {
	var ack *lease
	var failure error
	asked := time.Now()
	for try := range requestTries {
		x.send(netip.IPv4Unspecified(), xid, dhcpv4.MessageTypeRequest,
			dhcpv4.OptServerIdentifier(offer.server.AsSlice()),
			dhcpv4.OptRequestedIPAddress(offer.prefix.Addr().AsSlice()))
		err := x.await(ctx, xid, x.interval(try, lastInterval), func(m *dhcpv4.DHCPv4) bool {
			if other := x.offer(m); other != nil {
				if other.server != offer.server {
					more = append(more, other)
				}
				return false
			}
			ack, failure = x.verdict(m, offer)
			return ack != nil || errors.Is(failure, errNak)
		})
		switch {
		case ctx.Err() != nil:
			return nil, more, ctx.Err()
		case err != nil:
			e := x.silence(fmt.Sprintf("no answer from %v to a request for its offer", offer.server))
			e.Interface = x.nic.name()
			x.nic.net.failed(e)
			continue
		case failure != nil:
			return nil, more, failure
		}
		ack.begun = asked
		return ack, more, nil
	}
	x.nic.fail(PathFailed, x.silence(fmt.Sprintf("no answer from %v to a request for its offer", offer.server)))
	return nil, more, errNoAnswer
}

// verdict returns the lease of a DHCPACK for what was offered, or errNak. Of
// other messages it makes nothing.
func (x *exchange) verdict(m *dhcpv4.DHCPv4, offer *lease) (*lease, error) {
	server, _ := addrOf(m.ServerIdentifier())
	switch m.MessageType() {
	case dhcpv4.MessageTypeNak:
		if server != offer.server {
			return nil, nil // another server's, which nobody has asked
		}
		x.nic.fail(DHCPNak, &Error{Op: fmt.Sprintf("%v refused its own offer", server), Method: DHCP, Err: nakReason(m)})
		return nil, errNak
	case dhcpv4.MessageTypeAck:
		l, err := x.lease(m)
		if err == nil && (l.prefix.Addr() != offer.prefix.Addr() || l.server != offer.server) {
			err = fmt.Errorf("%v acknowledged %v, but %v offered %v", l.server, l.prefix, offer.server, offer.prefix)
		}
		if err != nil {
			x.unusable("unusable acknowledgement", err)
			return nil, err
		}
		x.nic.event(DHCP, DHCPAck, fmt.Sprintf("%v from %v for %v", l.prefix, l.server, leaseTime(l)), nil)
		return l, nil
	}
	return nil, nil
}

// nakReason is what the server says, made fit to print.
func nakReason(m *dhcpv4.DHCPv4) error {
	if s := m.Message(); s != "" {
		return fmt.Errorf("%w: %q", errNak, s[:min(len(s), 80)])
	}
	return errNak
}

func leaseTime(l *lease) string {
	if l.life == forever {
		return "ever"
	}
	return l.life.String()
}

// renew extends a lease before it ends. All servers are asked, as RFC 2131
// calls rebinding: the one that gave it is among them.
func (x *exchange) renew(ctx context.Context, l *lease) (*lease, error) {
	xid := x.xid()
	var ack *lease
	var refused error
	for try := 0; ; try++ {
		left := l.until(time.Now())
		if left <= 0 {
			return nil, x.silence("the lease has ended: no answer")
		}
		asked := time.Now()
		x.send(l.prefix.Addr(), xid, dhcpv4.MessageTypeRequest)
		err := x.await(ctx, xid, min(left, x.interval(try, renewInterval)), func(m *dhcpv4.DHCPv4) bool {
			server, _ := addrOf(m.ServerIdentifier())
			ack, refused = x.verdict(m, &lease{prefix: l.prefix, server: server})
			return ack != nil || errors.Is(refused, errNak)
		})
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err == nil && refused != nil:
			return nil, refused
		case err == nil:
			ack.begun = asked
			return ack, nil
		}
	}
}

// send broadcasts a message. What the link does not take is a packet lost.
func (x *exchange) send(from netip.Addr, xid dhcpv4.TransactionID, t dhcpv4.MessageType, opts ...dhcpv4.Option) {
	x.sent++
	m := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootRequest, HWType: iana.HWTypeEthernet,
		TransactionID: xid, NumSeconds: uint16(min(time.Since(x.began)/time.Second, 0xffff)),
		ClientHWAddr: x.link.mac, ClientIPAddr: from.AsSlice(),
		// No client identifier (option 61): the lease is to be the one that
		// the system gets which boots next, and servers tell clients apart by
		// it where it is sent.
		Options: dhcpv4.OptionsFromList(append(opts,
			dhcpv4.OptMessageType(t),
			dhcpv4.OptMaxMessageSize(maxDHCPMessage),
			dhcpv4.OptParameterRequestList(
				dhcpv4.OptionSubnetMask, dhcpv4.OptionClasslessStaticRoute, dhcpv4.OptionRouter,
				dhcpv4.OptionInterfaceMTU, dhcpv4.OptionIPAddressLeaseTime, dhcpv4.OptionServerIdentifier,
				dhcpv4.OptionRenewTimeValue),
		)...),
	}
	_, _ = x.conn.WriteTo(encodeDatagram(from, m.ToBytes()), &packet.Addr{HardwareAddr: broadcast})
}

// await passes replies to take until it has what it wants.
func (x *exchange) await(ctx context.Context, xid dhcpv4.TransactionID, d time.Duration, take func(*dhcpv4.DHCPv4) bool) error {
	t := time.NewTimer(d)
	defer t.Stop()
	heard := 0
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
			return errNoAnswer
		case m := <-x.in:
			if m.TransactionID != xid || heard == maxReplies {
				continue
			}
			heard++
			if take(m) {
				return nil
			}
		}
	}
}

// silence says how long nobody has answered.
func (x *exchange) silence(op string) *Error {
	return &Error{Op: op, Method: DHCP, Tries: x.sent, Elapsed: time.Since(x.began)}
}
