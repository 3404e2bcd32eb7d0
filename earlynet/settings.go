//go:build linux

package earlynet

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/jsimonetti/rtnetlink/v2"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/joined"
)

// While a link is ours, some of its settings are other than they were:
//
//   - accept_ra is 0 on a link that we set up. Of a router advertisement the kernel keeps more than can be put back: the
//     hop limit, an MTU, the timers of the neighbour table, two flags, all of which outlive that the link is set down; and
//     a default route, over which the system's own connections would go as long as we wait. So nothing is learnt.
//   - rp_filter is 2 (loose) where it is 1 (strict): with two NICs the kernel would drop the service's answers on one of
//     them. The larger one of a link's own value and that of conf/all counts (IN_DEV_MAXCONF, linux/inetdevice.h), so
//     that conf/all can be left as it is.
//   - The ARP timers are short.
//
// What they were before stands in the link's alias meanwhile (ip link show). So a person sees whose doing it is, and where
// the process is killed, the next one puts it back.
const (
	strictFilter, looseFilter = "1", "2"
	noAdvertisements          = "0"
)

// before is how a link was found.
type before struct {
	down     bool
	acceptRA string // empty where there is no such setting
	rpFilter string
	arp      arpTimers
}

// The words of an alias, before and between the values.
const aliasOwner, aliasState = "nametag: in use by process ", "; was "

// alias is what stands on the link as long as it is changed.
func (b before) alias() string {
	word := "up"
	if b.down {
		word = "down"
	}
	return fmt.Sprintf("%s%d%s%s, accept_ra %s, rp_filter %s, retrans_time_ms %d, mcast_solicit %d", aliasOwner, os.Getpid(), aliasState,
		word, cmp.Or(b.acceptRA, "none"), cmp.Or(b.rpFilter, "none"), b.arp.retrans, b.arp.probes)
}

// parseAlias reads what alias has written; ok is false where somebody else has.
func parseAlias(s string) (b before, ok bool) {
	owner, state, found := strings.Cut(s, aliasState)
	process, found2 := strings.CutPrefix(owner, aliasOwner)
	if _, err := strconv.Atoi(process); err != nil || !found || !found2 {
		return b, false
	}
	var numbers []int
	words := strings.Fields(strings.ReplaceAll(state, ",", ""))
	if len(words) != 9 || words[1] != "accept_ra" || words[3] != "rp_filter" || words[5] != "retrans_time_ms" || words[7] != "mcast_solicit" {
		return b, false
	}
	for _, i := range []int{2, 4, 6, 8} {
		n, err := strconv.Atoi(words[i])
		if err != nil && words[i] != "none" {
			return b, false
		}
		numbers = append(numbers, n)
	}
	b = before{down: words[0] == "down", acceptRA: words[2], rpFilter: words[4], arp: arpTimers{uint64(numbers[2]), uint32(numbers[3])}}
	for _, s := range []*string{&b.acceptRA, &b.rpFilter} {
		if *s == "none" {
			*s = ""
		}
	}
	return b, true
}

// prepare notes how the link is, takes over what a dead run has left, and changes the settings. The link must be owned.
func (c *nic) prepare() {
	if c.prepared {
		return
	}
	c.prepared = true
	r := c.net.rtnl
	l, err := r.link(c.index)
	if err != nil {
		return // it is gone, which will be told
	}
	was, dead := parseAlias(l.alias)
	if !dead {
		was = before{down: !l.up()}
		was.acceptRA, _ = c.setting("ipv6", "accept_ra")
		was.rpFilter, _ = c.setting("ipv4", "rp_filter")
		was.arp, _ = r.arpTimers(c.index)
	}
	c.before = was
	c.clear(dead)
	if l.up() {
		c.knowNeighbours()
	}
	if l.alias == "" || dead {
		if err := r.setAlias(c.index, was.alias()); err == nil {
			c.ledger.add("alias", c.dropAlias)
		}
	}
	c.tuneNeighbours()
	c.loosen()
	if !l.up() || dead && was.down {
		c.shield()
	}
	if dead && was.down && l.up() {
		// It was set up by the run that was killed, as if by us.
		c.ledger.add(linkUp, c.lower)
		c.leaveToUdev()
	}
}

// dropAlias takes the link's alias away, if it is still ours.
func (c *nic) dropAlias() error {
	l, err := c.net.rtnl.link(c.index)
	if err != nil {
		return err
	}
	if _, ours := parseAlias(l.alias); !ours {
		return nil // udev gives one by a .link file, for instance
	}
	return c.net.rtnl.setAlias(c.index, "")
}

// clear takes back the addresses, routes and neighbour entries of a run that was killed: nobody else uses our mark, and no
// living process of ours the link. Marked says that the link's alias tells of such a run, too: kernels before 5.18 do not
// keep the mark of addresses.
func (c *nic) clear(marked bool) {
	r := c.net.rtnl
	addrs, err := r.addresses(c.index)
	if err != nil {
		return
	}
	for _, a := range addrs {
		if a.ours() && (a.proto == rtprotNametag || marked && a.flags&unix.IFA_F_NOPREFIXROUTE != 0) {
			if err := c.dropAddress(a.prefix); err == nil {
				c.event(0, TakenOver, "address "+a.prefix.String(), nil)
			}
		}
	}
	rts, err := r.routes(c.index, unix.AF_INET)
	if err != nil {
		return
	}
	for _, rt := range rts {
		if rt.protocol == rtprotNametag && r.do(unix.RTM_DELROUTE, 0, raw(rt.raw)) == nil {
			c.event(0, TakenOver, "route to "+rt.dst.String(), nil)
		}
	}
	c.unpin()
}

// shield keeps router advertisements from the link, until it is as it was.
func (c *nic) shield() {
	was := c.before.acceptRA
	if c.shielded || was == "" || was == noAdvertisements {
		return
	}
	c.shielded = c.change("ipv6", "accept_ra", was, noAdvertisements, func() error {
		if c.managed {
			return errLeft
		}
		err := c.put("ipv6", "accept_ra", noAdvertisements, was)
		// The kernel has asked for an advertisement when the link was set up, and did not hear the answer. Whoever
		// the link is left to may want one.
		if l, lerr := c.net.rtnl.link(c.index); err == nil && lerr == nil && l.up() {
			_ = solicitRouters(c.index)
		}
		return err
	})
}

// loosen lets answers in that come by another link than the one that the system would send to their sender.
func (c *nic) loosen() {
	all, _ := os.ReadFile(c.conf("ipv4", "all", "rp_filter"))
	effective := max(c.before.rpFilter, strings.TrimSpace(string(all))) // one digit each
	if c.before.rpFilter != "" && effective == strictFilter {
		c.change("ipv4", "rp_filter", c.before.rpFilter, looseFilter, func() error {
			return c.put("ipv4", "rp_filter", looseFilter, c.before.rpFilter)
		})
	}
}

// change sets a setting that was, to be put back by back, and reports whether it could be. Whoever has set it since meant
// it, and it is left.
func (c *nic) change(family, name, was, now string, back func() error) bool {
	what := fmt.Sprintf("net.%s.conf.%s.%s", family, c.name(), name)
	if err := c.put(family, name, "", now); err != nil {
		// A favour to the links, not a need.
		c.event(0, SettingFailed, what+" stays "+was, permission(err))
		return false
	}
	c.ledger.add(what, back)
	return true
}

// setting reads a setting of the link. One that is not there is no error, and empty.
func (c *nic) setting(family, name string) (value string, err error) {
	err = c.open(family, name, os.O_RDONLY, func(_ *os.File, now string) error { value = now; return nil })
	return value, err
}

// put sets a setting of the link, if it is what it is expected to be; empty: whatever it is.
func (c *nic) put(family, name, expected, value string) error {
	return c.open(family, name, os.O_RDWR, func(f *os.File, now string) error {
		if expected != "" && now != expected {
			return nil
		}
		_, err := f.WriteString(value)
		return err
	})
}

// open calls fn with a setting of the link and its value. Settings go by name, which may change at any moment, and this
// link's may become another's. The file is opened first, then the kernel is asked whose name it was: from then on the file
// is this link's, since a link that is renamed gets new files, and the old ones can be neither read nor written
// (addrconf_sysctl_unregister, net/ipv6/addrconf.c).
func (c *nic) open(family, name string, flag int, fn func(f *os.File, now string) error) error {
	var err error
	for range 3 {
		var l link
		if l, err = c.net.rtnl.link(c.index); err != nil {
			return err
		}
		err = func() error {
			f, err := os.OpenFile(c.conf(family, l.name, name), flag, 0)
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }()
			if again, err := c.net.rtnl.link(c.index); err != nil || again.name != l.name {
				return joined.Errors(fs.ErrNotExist, err)
			}
			b := make([]byte, 32)
			n, err := f.ReadAt(b, 0)
			if n == 0 {
				return err
			}
			return fn(f, strings.TrimSpace(string(b[:n])))
		}()
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if _, no := os.Stat(c.conf(family)); errors.Is(no, fs.ErrNotExist) && errors.Is(err, fs.ErrNotExist) {
		return nil // a kernel without IPv6
	}
	return err
}

// conf is a path below the settings of a family's links.
func (c *nic) conf(family string, names ...string) string {
	return filepath.Join(append([]string{c.net.proc, "sys/net", family, "conf"}, names...)...)
}

// link returns one interface.
func (r rtnl) link(index int) (link, error) {
	msgs, err := r.get(unix.RTM_GETLINK, &rtnetlink.LinkMessage{Index: uint32(index)})
	if err != nil {
		return link{}, err
	}
	for _, m := range msgs {
		if l, err := parseLink(m.Data); err == nil && l.index == index {
			return l, nil
		}
	}
	return link{}, unix.ENODEV
}

// setAlias gives a link an alias; the empty one takes it away.
func (r rtnl) setAlias(index int, alias string) error {
	ae := netlink.NewAttributeEncoder()
	ae.Bytes(unix.IFLA_IFALIAS, []byte(alias))
	b, err := ae.Encode()
	if err != nil {
		return err
	}
	return r.do(unix.RTM_NEWLINK, 0, &rtnetlink.LinkMessage{Index: uint32(index)}, b...)
}

// solicitRouters asks the routers on a link to advertise themselves (RFC 4861, section 4.1).
func solicitRouters(index int) error {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255); err != nil {
		return err
	}
	all := &unix.SockaddrInet6{Addr: [16]byte{0xff, 0x02, 15: 2}, ZoneId: uint32(index)}
	return unix.Sendto(fd, []byte{133, 0, 0, 0, 0, 0, 0, 0}, 0, all)
}
