//go:build linux

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
	"sync/atomic"
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
	requestTries   = 5                // then others are asked
	refusedTries   = 3                // where the server has refused
	knownTries     = 3                // while nobody has answered but those who have let us down
	sendTime       = time.Second      // for a message to find room; it finds it at once
	maxDHCPMessage = 1500

	// How many replies are looked at after one message of ours, in all and of one
	// sender: a flood is nobody's answer, and who makes one drowns himself alone.
	maxReplies = 64
	maxOfOne   = 16
)

var (
	errNoAnswer = errors.New("no answer")
	errNak      = errors.New("refused by the server")
	errSocket   = errors.New("no packet socket")
)

// An exchange talks to DHCP servers on a link that has no address.
//
// It uses a packet socket: one of UDP would need port 68 for itself, which
// another DHCP client on this machine may hold, and would not see an answer
// that is sent to an address not yet ours. Closing it takes the kernel a grace
// period of RCU, 8 to 16 ms, which nobody waits for but the end of Close.
//
// Nothing that is heard is proof of anything: whoever is on the link sees what is
// asked, for it is broadcast, and can answer in anybody's name. So no single
// message ends anything or keeps another from being heard.
type exchange struct {
	nic   *nic
	link  link
	rand  *rand.Rand
	heard candidates

	pending []*candidate // that were requested last, where none of them has answered so far
	useless int          // messages
	flaw    error        // the last useless message's, since open
	refusal int          // messages that said so

	conn    net.PacketConn
	in      chan reply
	began   time.Time
	sent    int
	renewal atomic.Uint32 // the transaction of a renewal
	round   atomic.Uint32 // counts our messages, for the bound on replies

	// transaction is the one that all questions and requests are in, but for renewals (RFC 2131, section 4.1, leaves that to the
	// client): a server that is slow answers what was asked long ago, and has offered by then what others are asked for.
	transaction dhcpv4.TransactionID
}

// A reply is a DHCP message to us, and the hardware address that it came from.
type reply struct {
	*dhcpv4.DHCPv4
	sender [6]byte
}

func newExchange(c *nic, l link) *exchange {
	x := &exchange{nic: c, link: l, rand: c.net.random(c.index)}
	x.heard.rand = x.rand
	x.transaction = x.xid()
	return x
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

// open calls fn with the socket open.
func (x *exchange) open(ctx context.Context, fn func(context.Context) error) error {
	filter, err := dhcpFilter()
	if err != nil {
		return err
	}
	conn, shut, err := x.nic.net.listen(packet.Listen(&net.Interface{Index: x.link.index, Name: x.link.name, HardwareAddr: x.link.mac},
		packet.Datagram, unix.ETH_P_IP, &packet.Config{Filter: filter}))
	if err != nil {
		return fmt.Errorf("%w: %w", errSocket, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	x.conn, x.in = conn, make(chan reply)
	read := make(chan struct{})
	safely.Go("reading DHCP replies", func() {
		defer close(read)
		x.nic.goOn(ctx, DHCP, func() { x.receive(ctx) })
	}, x.nic.net.died)
	defer func() {
		cancel()
		_ = conn.SetReadDeadline(time.Now())
		<-read
		x.nic.net.closers.Go("closing a socket", shut, x.nic.net.died)
	}()
	return fn(ctx)
}

// receive passes on every DHCP reply to this link that is worth it.
func (x *exchange) receive(ctx context.Context) {
	buf := make([]byte, maxDHCPMessage)
	var round uint32
	var all int
	of := make(map[[6]byte]int)
	for ctx.Err() == nil {
		n, from, err := x.conn.ReadFrom(buf)
		if err != nil {
			// ENETDOWN is told once; whether the link is gone others decide.
			pause(ctx, firstInterval)
			continue
		}
		payload, ok := decodeDatagram(buf[:n])
		if !ok || !x.expects(payload) {
			continue
		}
		if now := x.round.Load(); now != round {
			round, all = now, 0
			clear(of)
		}
		r := reply{sender: senderOf(from)}
		if all == maxReplies || of[r.sender] == maxOfOne {
			continue
		}
		if r.DHCPv4 = parseReply(payload, x.link.mac); r.DHCPv4 == nil {
			continue
		}
		all++
		of[r.sender]++
		select {
		case x.in <- r:
		case <-ctx.Done():
		}
	}
}

// expects reports whether a message belongs to a transaction of ours: a look at it
// that costs next to nothing.
func (x *exchange) expects(payload []byte) bool {
	if len(payload) < 8 || payload[0] != byte(dhcpv4.OpcodeBootReply) {
		return false
	}
	id := dhcpv4.TransactionID(payload[4:8])
	return id == x.transaction || id != dhcpv4.TransactionID{} && binary.NativeEndian.Uint32(id[:]) == x.renewal.Load()
}

func senderOf(a net.Addr) (mac [6]byte) {
	if p, ok := a.(*packet.Addr); ok {
		copy(mac[:], p.HardwareAddr)
	}
	return mac
}

// xid returns a new transaction's number, which is not 0: that is none.
func (x *exchange) xid() (id dhcpv4.TransactionID) {
	binary.NativeEndian.PutUint32(id[:], max(1, x.rand.Uint32()))
	return id
}

// begin begins to count anew, for messages about silence.
func (x *exchange) begin() { x.began, x.sent, x.flaw, x.refusal = time.Now(), 0, nil, 0 }

// interval returns how long to wait after the nth try, from 0: doubling, give
// or take a quarter so that machines that start together do not stay together.
func (x *exchange) interval(n int, limit time.Duration) time.Duration {
	d := limit
	if n < 16 {
		d = min(limit, firstInterval<<n)
	}
	return x.jitter(d)
}

func (x *exchange) jitter(d time.Duration) time.Duration {
	return d*3/4 + time.Duration(x.rand.Int64N(int64(d/2)))
}

// acquire gets a lease from whichever server gives one, and says what it is a lease
// of.
func (x *exchange) acquire(ctx context.Context) (*candidate, *lease, error) {
	x.pending = nil
	for failures := 0; ; failures++ {
		x.begin()
		if c, l, err := x.discover(ctx); l != nil || err != nil {
			return c, l, err
		}
		if c, l, err := x.request(ctx); err == nil || ctx.Err() != nil {
			return c, l, err
		}
		pause(ctx, x.interval(failures, lastInterval))
	}
}

// ask asks all servers what they offer.
func (x *exchange) ask() {
	x.heard.asked++
	x.send(netip.IPv4Unspecified(), x.transaction, dhcpv4.MessageTypeDiscover)
}

// discover asks all servers until there is a candidate. What was heard before
// counts. Where all candidates have let us down, a few more tries are made first.
// It returns the lease of a request before it, where the answer comes only now.
func (x *exchange) discover(ctx context.Context) (of *candidate, got *lease, err error) {
	x.nic.tell(Event{Method: DHCP, Kind: DHCPDiscover, Try: 1})
	x.ask()
	for try := 0; ; try++ {
		if try > 0 {
			if seldom(try + 1) {
				x.nic.tell(Event{Method: DHCP, Kind: DHCPDiscover, Try: try + 1, Detail: fmt.Sprintf("try %d", try+1)})
			}
			x.send(netip.IPv4Unspecified(), x.transaction, dhcpv4.MessageTypeDiscover)
		}
		err := x.await(ctx, x.interval(try, lastInterval), func(r reply) bool {
			if of, got = x.late(r); got != nil {
				return true
			}
			c := x.offer(r)
			return c != nil && (c.trouble() == 0 || x.heard.turn%2 == 1 && slices.Contains(x.heard.best(), c))
		})
		if ctx.Err() != nil || got != nil {
			return of, got, ctx.Err()
		}
		best := x.heard.best()
		if err == nil || len(best) > 0 && (best[0].trouble() == 0 || x.heard.turn%2 == 1 || try >= knownTries) {
			return nil, nil, nil
		}
		if len(best) > 0 {
			continue
		}
		what := "no offer"
		if x.flaw != nil { // worth more to whoever reads it than that the server has stopped
			what = "no usable offer"
		}
		e := x.silence(what)
		e.Interface, e.Err = x.nic.name(), x.flaw
		x.nic.net.failed(x.nic, e)
		if e.Tries >= 4 && seldom(e.Tries) {
			x.nic.event(DHCP, PathFailed, "", e)
		}
	}
}

// late returns the lease in an acknowledgement of what was requested last, and what it is a lease of, if it is that. One of what
// was requested before is noted.
func (x *exchange) late(r reply) (*candidate, *lease) {
	if c := x.granted(r, nil); c != nil && slices.Contains(x.pending, c) {
		return c, c.take()
	}
	return nil, nil
}

// granted notes an acknowledgement of what was requested before, is waited for and not among those that are requested now: it
// counts when the candidate's turn comes. It returns the candidate of such a message.
func (x *exchange) granted(r reply, now []*candidate) *candidate {
	if r.MessageType() != dhcpv4.MessageTypeAck || r.TransactionID != x.transaction {
		return nil
	}
	l, err := x.lease(r)
	if err != nil {
		return nil
	}
	c := x.heard.find(l.yields(x.nic.net.cfg.Destinations))
	if c == nil || c.requested.IsZero() || slices.Contains(now, c) {
		return nil
	}
	if l.begun = c.requested; c.grant == nil || l.life > c.grant.life {
		c.grant = l
		x.acked(l)
	}
	return c
}

// acked tells of an acknowledgement.
func (x *exchange) acked(l *lease) {
	x.nic.tell(Event{
		Method: DHCP, Kind: DHCPAck, Address: l.prefix.Addr(), Server: l.server, Lease: l.life,
		Detail: fmt.Sprintf("%v from %v for %v", l.prefix, l.server, leaseTime(l)),
	})
}

// seldom reports whether the nth time is worth telling: ever more seldom.
func seldom(n int) bool { return n&(n-1) == 0 }

// lease is parseLease, and refuses an address that is to be dialled: the kernel
// would deliver to itself what is meant for the service, over every path.
func (x *exchange) lease(r reply) (*lease, error) {
	l, err := parseLease(r.DHCPv4, x.link.mac, x.link.mtu)
	if err == nil && slices.Contains(x.nic.net.cfg.Destinations, l.prefix.Addr()) {
		return nil, fmt.Errorf("address %v cannot be used: it is the destination's", l.prefix.Addr())
	}
	return l, err
}

// offer returns the candidate that a message makes or confirms, or nil.
func (x *exchange) offer(r reply) *candidate {
	if r.MessageType() != dhcpv4.MessageTypeOffer || r.TransactionID != x.transaction {
		return nil
	}
	l, err := x.lease(r)
	if err != nil {
		x.unusable("unusable offer", err)
		return nil
	}
	c, fresh := x.heard.hear(l, l.yields(x.nic.net.cfg.Destinations), r.sender)
	if fresh {
		x.nic.tell(Event{Method: DHCP, Kind: DHCPOffer, Address: l.prefix.Addr(), Server: l.server, Detail: fmt.Sprintf("%v from %v", l.prefix, l.server)})
	}
	return c
}

// unusable notes a message that makes no sense, and tells it now and then: a
// server may send any number of them.
func (x *exchange) unusable(what string, err error) {
	e := &Error{Op: what, Interface: x.nic.name(), Method: DHCP, Err: err}
	x.nic.net.failed(x.nic, e)
	x.flaw = err
	if x.useless++; seldom(x.useless) {
		x.nic.event(DHCP, PathFailed, "", e)
	}
}

// request asks for the best candidates until one is acknowledged: for the first of
// them, and for one more with each try, as long as they are as good. Whoever
// answers first has it. One that was overtaken before is given more tries alone.
//
// A refusal does not end it, for anybody can send one: it only makes the tries
// fewer. An acknowledgement of something else than what was offered counts when the
// right one has not come within the same time.
func (x *exchange) request(ctx context.Context) (*candidate, *lease, error) {
	best := x.heard.best()
	if len(best) == 0 {
		return nil, nil, errNoAnswer
	}
	x.heard.turn++
	x.pending = nil
	for _, c := range best {
		if l := c.take(); l != nil {
			return c, l, nil
		}
	}
	asked := time.Now()
	var got *lease
	var of *candidate
	for try := 0; try < requestTries && (x.refusal == 0 || try < refusedTries); try++ {
		for _, c := range best[:min(1+max(0, try-best[0].overtaken), len(best))] {
			for _, o := range c.offers[:min(try+1, len(c.offers))] {
				x.send(netip.IPv4Unspecified(), x.transaction, dhcpv4.MessageTypeRequest,
					dhcpv4.OptServerIdentifier(o.server.AsSlice()),
					dhcpv4.OptRequestedIPAddress(o.prefix.Addr().AsSlice()))
			}
		}
		err := x.await(ctx, x.interval(try, lastInterval), func(r reply) bool {
			if x.offer(r) != nil || x.granted(r, best) != nil {
				return false
			}
			l, c := x.acknowledged(r, best)
			if l == nil {
				return false
			}
			exact := l.yields(x.nic.net.cfg.Destinations) == c.yield
			if got == nil || exact {
				got, of = l, c
			}
			return exact
		})
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		if err == nil || got != nil {
			// It may be the request before that is answered, unless it would be over by now.
			if got.begun = of.requested; of.requested.IsZero() || got.until(asked) <= leaseGrain {
				got.begun = asked
			}
			waitFor(best, asked)
			of.requested = time.Time{}
			x.heard.overtake(of, best)
			return x.settle(of, got)
		}
		if x.refusal == 0 { // which says more
			e := x.silence(fmt.Sprintf("no answer from %v to a request for its offer", best[0].offers[0].server))
			e.Interface = x.nic.name()
			x.nic.net.failed(x.nic, e)
		}
	}
	for _, c := range best {
		x.heard.failed(c, &c.unanswered)
	}
	waitFor(best, asked)
	x.pending = best // also where it was refused, which anybody can say sooner than a server that is slow
	if x.refusal == 0 {
		x.nic.fail(PathFailed, x.silence(fmt.Sprintf("no answer from %v to a request for its offer", best[0].offers[0].server)))
	}
	return nil, nil, errNoAnswer
}

// settle returns the candidate that a lease turns out to be. Where it is one that
// has led nowhere already, the lease is as it was offered: it would lead nowhere
// again.
func (x *exchange) settle(asked *candidate, l *lease) (*candidate, *lease, error) {
	y := l.yields(x.nic.net.cfg.Destinations)
	if y == asked.yield {
		return asked, l, nil
	}
	if known := x.heard.find(y); known != nil && known.trouble() > asked.trouble() {
		offered := *asked.offers[0]
		offered.life, offered.renew, offered.begun = l.life, l.renew, l.begun
		return asked, &offered, nil
	}
	c, _ := x.heard.hear(l, y, asked.sender)
	return c, l, nil
}

// acknowledged returns the lease in a message, and which of the candidates it is
// for.
func (x *exchange) acknowledged(r reply, best []*candidate) (*lease, *candidate) {
	if r.TransactionID != x.transaction {
		return nil, nil
	}
	server, _ := addrOf(r.ServerIdentifier())
	address, _ := addrOf(r.YourIPAddr)
	nak := r.MessageType() == dhcpv4.MessageTypeNak
	var offer *lease
	for _, c := range best {
		for _, o := range c.offers {
			if o.server != server {
				continue
			}
			if offer = o; nak || o.prefix.Addr() == address {
				l, _ := x.verdict(r, o)
				return l, c
			}
		}
	}
	if offer == nil {
		offer = best[0].offers[0] // for what is said of it
	}
	l, _ := x.verdict(r, offer)
	return l, best[0]
}

// verdict returns the lease of a DHCPACK for what was offered, or errNak. Of
// other messages it makes nothing.
func (x *exchange) verdict(r reply, offer *lease) (*lease, error) {
	server, _ := addrOf(r.ServerIdentifier())
	switch r.MessageType() {
	case dhcpv4.MessageTypeNak:
		if server != offer.server {
			return nil, nil // another server's, which nobody has asked
		}
		if x.refusal++; seldom(x.refusal) {
			x.nic.failed(Event{Kind: DHCPNak, Server: server}, &Error{Op: fmt.Sprintf("%v refused its own offer", server), Method: DHCP, Err: nakReason(r.DHCPv4)})
		}
		return nil, errNak
	case dhcpv4.MessageTypeAck:
		l, err := x.lease(r)
		if err == nil && (l.prefix.Addr() != offer.prefix.Addr() || l.server != offer.server) {
			err = fmt.Errorf("%v acknowledged %v, but %v offered %v", l.server, l.prefix, offer.server, offer.prefix)
		}
		if err != nil {
			x.unusable("unusable acknowledgement", err)
			return nil, err
		}
		x.acked(l)
		return l, nil
	}
	return nil, nil
}

// renew asks for a lease again before it ends. All servers are asked, as RFC 2131
// calls rebinding: the one that gave it is among them.
func (x *exchange) renew(l *lease, id dhcpv4.TransactionID) {
	x.renewal.Store(binary.NativeEndian.Uint32(id[:]))
	x.send(l.prefix.Addr(), id, dhcpv4.MessageTypeRequest)
}

// send broadcasts a message. What the link does not take is a packet lost.
func (x *exchange) send(from netip.Addr, xid dhcpv4.TransactionID, t dhcpv4.MessageType, opts ...dhcpv4.Option) {
	x.sent++
	x.round.Add(1)
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
	// A link that has come to a halt fills the socket: the next message would wait for it, and Close for that one.
	_ = x.conn.SetWriteDeadline(time.Now().Add(sendTime))
	_, _ = x.conn.WriteTo(encodeDatagram(from, m.ToBytes()), &packet.Addr{HardwareAddr: broadcast})
}

// await passes replies to take until it has what it wants.
func (x *exchange) await(ctx context.Context, d time.Duration, take func(reply) bool) error {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
			return errNoAnswer
		case r := <-x.in:
			if take(r) {
				return nil
			}
		}
	}
}

// silence says how long nobody has answered.
func (x *exchange) silence(op string) *Error {
	return &Error{Op: op, Method: DHCP, Tries: x.sent, Elapsed: time.Since(x.began)}
}
