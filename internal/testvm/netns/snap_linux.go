package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Snapshot is what a network namespace and this process hold at one moment, as far as something that brings a link up
// could leave it changed. Of a link that is all that the kernel keeps: every attribute of rtnetlink (alias, token, flags
// learnt from router advertisements), addresses, routes of all tables, rules, neighbours and the parameters of their
// tables, queueing disciplines, multicast groups, and everything in /proc/sys/net/{ipv4,ipv6}/{conf,neigh}. Beside it,
// goroutines and descriptors. What changes by itself is left out (counters, ages, the states of neighbours), and so are
// the goroutines of the bench.
type Snapshot struct {
	// lines are what is there, each with how often.
	lines map[string]int
	// stacks has an example stack for each goroutine line.
	stacks map[string]string
}

// Snap takes a snapshot of the calling thread's network namespace and of this process.
func Snap() (Snapshot, error) {
	s := Snapshot{lines: map[string]int{}, stacks: map[string]string{}}
	r, err := dial()
	if err != nil {
		return s, err
	}
	up, err := s.network(r)
	r.close()
	if err == nil {
		err = s.groups(up)
	}
	if err == nil {
		err = s.settings()
	}
	if err == nil {
		err = s.descriptors()
	}
	s.goroutines()
	if err != nil {
		return s, fmt.Errorf("netns: snapshot: %w", err)
	}
	return s, nil
}

// Diff says what b has otherwise than s: one line each, "-" for what is gone and "+" for what is new, with the stack for a
// goroutine. Goroutines that have ended meanwhile are no difference. It is empty when nothing differs.
func (s Snapshot) Diff(b Snapshot) string {
	all := maps.Clone(s.lines)
	maps.Copy(all, b.lines)
	var out strings.Builder
	for _, line := range slices.Sorted(maps.Keys(all)) {
		change := b.lines[line] - s.lines[line]
		sign, stack := "+", b.stacks[line]
		if change < 0 {
			if s.stacks[line] != "" {
				continue
			}
			change, sign = -change, "-"
		}
		for range change {
			fmt.Fprintf(&out, "%s %s\n", sign, line)
		}
		if change > 0 && stack != "" {
			out.WriteString("    " + strings.ReplaceAll(strings.TrimSpace(stack), "\n", "\n    ") + "\n")
		}
	}
	return out.String()
}

// Settle takes snapshots until one does not differ from s, for as long as within at most, and returns the last
// difference. Goroutines and sockets need a moment to end.
func (s Snapshot) Settle(within time.Duration) (diff string, err error) {
	deadline := time.Now().Add(within)
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		b, err := Snap()
		if err != nil {
			return "", err
		}
		if diff = s.Diff(b); diff == "" || time.Now().After(deadline) {
			return diff, nil
		}
		time.Sleep(pause)
	}
}

func (s Snapshot) add(format string, args ...any) { s.lines[fmt.Sprintf(format, args...)]++ }

// network adds what rtnetlink knows, and returns the names of links that are up.
func (s Snapshot) network(r *rtnl) (map[string]bool, error) {
	names := map[uint32]string{}
	name := func(index uint32) string {
		if n, ok := names[index]; ok {
			return n
		}
		return fmt.Sprintf("#%d", index)
	}
	up := map[uint32]bool{}
	dumps := []struct {
		kind netlink.HeaderType
		head []byte
		add  func(data []byte) error
	}{
		{unix.RTM_GETLINK, ifinfo(0, 0, 0), func(b []byte) error { return s.link(b, names, up) }},
		{unix.RTM_GETADDR, make([]byte, unix.SizeofIfAddrmsg), func(b []byte) error { return s.address(b, name) }},
		{unix.RTM_GETROUTE, make([]byte, unix.SizeofRtMsg), func(b []byte) error { return s.route(b, name) }},
		{unix.RTM_GETRULE, make([]byte, unix.SizeofRtMsg), s.rule},
		{unix.RTM_GETNEIGH, make([]byte, unix.SizeofNdMsg), func(b []byte) error { return s.neighbour(b, name) }},
		{unix.RTM_GETNEIGHTBL, make([]byte, sizeofNdtMsg), func(b []byte) error { return s.neighbourTable(b, name) }},
		{unix.RTM_GETQDISC, make([]byte, sizeofTcMsg), func(b []byte) error { return s.discipline(b, name, up) }},
		{unix.RTM_GETNEXTHOP, make([]byte, sizeofNhMsg), s.nextHop},
	}
	for _, d := range dumps {
		msgs, err := r.c.Execute(netlink.Message{
			Header: netlink.Header{Type: d.kind, Flags: netlink.Request | netlink.Dump}, Data: d.head,
		})
		if errors.Is(err, unix.EOPNOTSUPP) {
			continue // a kernel without them
		}
		if err != nil {
			return nil, fmt.Errorf("dump %d: %w", d.kind, err)
		}
		for _, m := range msgs {
			if len(m.Data) < len(d.head) {
				return nil, fmt.Errorf("dump %d: message of %d bytes", d.kind, len(m.Data))
			}
			if err := d.add(m.Data); err != nil {
				return nil, err
			}
		}
	}
	ups := map[string]bool{}
	for index := range up {
		ups[name(index)] = true
	}
	return ups, nil
}

// attributes calls f for each attribute behind a message's head.
func attributes(b []byte, f func(ad *netlink.AttributeDecoder)) error {
	ad, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return err
	}
	for ad.Next() {
		f(ad)
	}
	return ad.Err()
}

// Sizes of headers in front of attributes that x/sys does not have: struct ndtmsg, tcmsg and nhmsg.
const sizeofNdtMsg, sizeofTcMsg, sizeofNhMsg = 4, 20, 8

// words are names for the attributes that a reader of a difference is likely to meet; others are numbers.
type words map[uint16]string

func (w words) of(kind uint16) string {
	if s, ok := w[kind]; ok {
		return s
	}
	return fmt.Sprintf("attribute %d", kind)
}

// listed are all attributes behind a message's head but those left out, each as a word and its bytes; four bytes are
// nearly always a number.
func (w words) listed(b []byte, without ...uint16) ([]string, error) {
	var parts []string
	err := attributes(b, func(ad *netlink.AttributeDecoder) {
		switch value := ad.Bytes(); {
		case slices.Contains(without, ad.Type()):
		case len(value) == 4:
			parts = append(parts, fmt.Sprintf("%s %d", w.of(ad.Type()), binary.NativeEndian.Uint32(value)))
		default:
			parts = append(parts, fmt.Sprintf("%s %x", w.of(ad.Type()), value))
		}
	})
	slices.Sort(parts)
	return parts, err
}

// Attributes of linux/if_link.h that x/sys does not have.
const (
	iflaInet6Flags, iflaInet6Token, iflaInet6AddrGenMode, iflaInet6RAMTU = 1, 7, 8, 9
	iflaCarrierUpCount, iflaCarrierDownCount                             = 47, 48
)

// in6Ready is IF_READY of net/if_inet6.h: duplicate address detection may run, which is so while the link is up.
const in6Ready = 0x80000000

func (s Snapshot) link(b []byte, names map[uint32]string, up map[uint32]bool) error {
	index, flags := binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[8:])
	var name, mac, alias string
	var operstate uint32
	err := attributes(b[unix.SizeofIfInfomsg:], func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.IFLA_IFNAME:
			name = ad.String()
		case unix.IFLA_ADDRESS:
			mac = net.HardwareAddr(ad.Bytes()).String()
		case unix.IFLA_OPERSTATE:
			operstate = uint32(ad.Uint8())
		case unix.IFLA_IFALIAS:
			alias = ad.String()
		}
	})
	if err != nil {
		return err
	}
	names[index] = name
	if flags&unix.IFF_UP != 0 {
		up[index] = true
	}
	without := []uint16{
		unix.IFLA_IFNAME, unix.IFLA_ADDRESS, unix.IFLA_OPERSTATE, unix.IFLA_IFALIAS,
		unix.IFLA_STATS, unix.IFLA_STATS64, unix.IFLA_CARRIER_CHANGES, iflaCarrierUpCount, iflaCarrierDownCount,
		unix.IFLA_AF_SPEC, // below, and in the settings
		unix.IFLA_QDISC,   // by its own message
	}
	if flags&unix.IFF_UP == 0 {
		// Linkwatch sets the state of a link that went down, up to a second later or more; it says nothing then. And
		// whether there is a carrier on a link that is down not every driver knows.
		operstate = 0
		without = append(without, unix.IFLA_CARRIER)
	}
	rest, err := words{
		unix.IFLA_MTU: "mtu", unix.IFLA_MASTER: "master", unix.IFLA_TXQLEN: "qlen", unix.IFLA_PROMISCUITY: "promiscuity",
		unix.IFLA_GROUP: "group", unix.IFLA_LINKMODE: "linkmode", unix.IFLA_PROP_LIST: "altnames",
	}.listed(b[unix.SizeofIfInfomsg:], without...)
	if err != nil {
		return err
	}
	s.add("link %d %s %s flags %#x operstate %d alias %q", index, name, mac, flags, operstate, alias)
	for _, attribute := range rest {
		s.add("link %d %s %s", index, name, attribute)
	}
	return attributes(b[unix.SizeofIfInfomsg:], func(ad *netlink.AttributeDecoder) {
		if ad.Type() != unix.IFLA_AF_SPEC {
			return
		}
		ad.Nested(func(families *netlink.AttributeDecoder) error {
			for families.Next() {
				if families.Type() == unix.AF_INET6 {
					families.Nested(func(ad *netlink.AttributeDecoder) error { s.linkIPv6(ad, name); return nil })
				}
			}
			return nil
		})
	})
}

// linkIPv6 adds what IPv6 keeps of a link beside its settings.
func (s Snapshot) linkIPv6(ad *netlink.AttributeDecoder, name string) {
	for ad.Next() {
		switch ad.Type() {
		case iflaInet6Flags:
			s.add("IPv6 on %s: flags %#x", name, ad.Uint32()&^in6Ready)
		case iflaInet6Token:
			s.add("IPv6 on %s: token %s", name, ip(ad.Bytes()))
		case iflaInet6AddrGenMode:
			s.add("IPv6 on %s: addr_gen_mode %d", name, ad.Uint8())
		case iflaInet6RAMTU:
			s.add("IPv6 on %s: MTU of a router advertisement %d", name, ad.Uint32())
		}
	}
}

// Attributes of linux/if_addr.h.
const ifaProto = 11

func (s Snapshot) address(b []byte, name func(uint32) string) error {
	var addr, local, peer netip.Addr
	var proto uint8
	flags, lasts := uint32(b[2]), true
	err := attributes(b[unix.SizeofIfAddrmsg:], func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.IFA_ADDRESS:
			addr = ip(ad.Bytes())
		case unix.IFA_LOCAL:
			local = ip(ad.Bytes())
		case unix.IFA_FLAGS:
			flags = ad.Uint32()
		case unix.IFA_CACHEINFO:
			lasts = len(ad.Bytes()) >= 8 && binary.NativeEndian.Uint32(ad.Bytes()[4:]) == 1<<32-1
		case ifaProto:
			proto = ad.Uint8()
		}
	})
	if local.IsValid() && local != addr {
		addr, peer = local, addr
	}
	// An address is tentative until nobody has claimed it; that passes.
	s.add("address %s/%d peer %s dev %s scope %d flags %#x protocol %d lasts %t",
		addr, b[1], peer, name(binary.NativeEndian.Uint32(b[4:])), b[3], flags&^(unix.IFA_F_TENTATIVE|unix.IFA_F_OPTIMISTIC), proto, lasts)
	return err
}

func (s Snapshot) route(b []byte, name func(uint32) string) error {
	family, dstLen, tos, table := b[0], b[1], b[3], uint32(b[4])
	if binary.NativeEndian.Uint32(b[8:])&unix.RTM_F_CLONED != 0 {
		return nil // the kernel's cache
	}
	var dst, gateway, source netip.Addr
	var dev, metric uint32
	err := attributes(b[unix.SizeofRtMsg:], func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.RTA_DST:
			dst = ip(ad.Bytes())
		case unix.RTA_GATEWAY:
			gateway = ip(ad.Bytes())
		case unix.RTA_PREFSRC:
			source = ip(ad.Bytes())
		case unix.RTA_OIF:
			dev = ad.Uint32()
		case unix.RTA_PRIORITY:
			metric = ad.Uint32()
		case unix.RTA_TABLE:
			table = ad.Uint32()
		}
	})
	if err != nil {
		return err
	}
	rest, err := words{unix.RTA_METRICS: "metrics", unix.RTA_MULTIPATH: "multipath"}.listed(b[unix.SizeofRtMsg:],
		unix.RTA_DST, unix.RTA_GATEWAY, unix.RTA_PREFSRC, unix.RTA_OIF, unix.RTA_PRIORITY, unix.RTA_TABLE, unix.RTA_CACHEINFO)
	s.add("route family %d %s/%d via %s dev %s src %s table %d metric %d tos %d protocol %d scope %d type %d %v",
		family, dst, dstLen, gateway, name(dev), source, table, metric, tos, b[5], b[6], b[7], rest)
	return err
}

// Attributes of linux/neighbour.h.
const (
	ndtaName, ndtaParms, ndtaConfig, ndtaStats              = 1, 6, 7, 8
	ndtpaIfindex, ndtpaRefCnt, ndtpaReachable, ndtpaRetrans = 1, 2, 3, 5
)

// neighbourTable adds a table's parameters, of a link or its defaults.
func (s Snapshot) neighbourTable(b []byte, name func(uint32) string) error {
	var table, dev string
	var parameters []byte
	err := attributes(b[sizeofNdtMsg:], func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case ndtaName:
			table = ad.String()
		case ndtaParms:
			parameters = ad.Bytes()
		}
	})
	if err != nil {
		return err
	}
	err = attributes(parameters, func(ad *netlink.AttributeDecoder) {
		if ad.Type() == ndtpaIfindex {
			dev = name(ad.Uint32())
		}
	})
	if err != nil {
		return err
	}
	// The time for which a neighbour counts as reachable is drawn anew now and then.
	rest, err := words{ndtpaRetrans: "retrans_time"}.listed(parameters, ndtpaIfindex, ndtpaRefCnt, ndtpaReachable)
	for _, parameter := range rest {
		s.add("neighbour table %s dev %s %s", table, dev, parameter)
	}
	return err
}

// discipline adds a queueing discipline. The kernel gives each link a default one when it is first set up, and it stays:
// of a link that is down, having none and having the default are the same.
func (s Snapshot) discipline(b []byte, name func(uint32) string, up map[uint32]bool) error {
	index, handle, parent := binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[8:]), binary.NativeEndian.Uint32(b[12:])
	if handle == 0 && !up[index] {
		return nil
	}
	const kind, options = 1, 2 // TCA_KIND, TCA_OPTIONS; the rest are counters
	var what, how string
	err := attributes(b[sizeofTcMsg:], func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case kind:
			what = ad.String()
		case options:
			how = fmt.Sprintf("%x", ad.Bytes())
		}
	})
	s.add("qdisc %s handle %x parent %x dev %s %s", what, handle, parent, name(index), how)
	return err
}

func (s Snapshot) nextHop(b []byte) error {
	rest, err := words{}.listed(b[sizeofNhMsg:])
	s.add("nexthop %x %v", b[:sizeofNhMsg], rest)
	return err
}

// groups adds the multicast groups that links are in, by the kernel's own lists: device and address, and for how many.
func (s Snapshot) groups(up map[string]bool) error {
	for file, fields := range map[string][]int{
		"dev_mcast": {1, 4, 2}, "igmp6": {1, 2, 3}, "anycast6": {1, 2, 3},
	} {
		text, err := os.ReadFile("/proc/thread-self/net/" + file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			words := strings.Fields(line)
			if len(words) > slices.Max(fields) && (file != "dev_mcast" || up[words[1]]) { // a NIC that is down listens to nobody
				s.add("%s %s %s for %s", file, words[fields[0]], words[fields[1]], words[fields[2]])
			}
		}
	}
	// Groups of IPv4 stand below a line with their device: "2 eth0 : 1 V3", then "010000E0 1 0:00000000 0".
	text, err := os.ReadFile("/proc/thread-self/net/igmp")
	if err != nil {
		return err
	}
	var dev string
	for line := range strings.Lines(string(text)) {
		switch words := strings.Fields(line); {
		case len(words) < 2 || words[0] == "Idx":
		case !strings.HasPrefix(line, "\t"):
			dev = words[1]
		default:
			s.add("igmp %s %s for %s", dev, words[0], words[1])
		}
	}
	return nil
}

func (s Snapshot) rule(b []byte) error {
	var parts []string
	err := attributes(b[unix.SizeofRtMsg:], func(ad *netlink.AttributeDecoder) {
		parts = append(parts, fmt.Sprintf("%d=%x", ad.Type(), ad.Bytes()))
	})
	s.add("rule family %d %x %s", b[0], b[:unix.SizeofRtMsg], strings.Join(parts, " "))
	return err
}

func (s Snapshot) neighbour(b []byte, name func(uint32) string) error {
	state := binary.NativeEndian.Uint16(b[8:])
	var addr netip.Addr
	err := attributes(b[unix.SizeofNdMsg:], func(ad *netlink.AttributeDecoder) {
		if ad.Type() == unix.NDA_DST {
			addr = ip(ad.Bytes())
		}
	})
	dev := name(binary.NativeEndian.Uint32(b[4:]))
	if dev == "lo" || state&unix.NUD_NOARP != 0 {
		return err // the kernel's own, for loopback and multicast
	}
	kind := "dynamic"
	if state&unix.NUD_PERMANENT != 0 {
		kind = "permanent"
	}
	s.add("neighbour %s dev %s %s flags %#x", addr, dev, kind, b[10])
	return err
}

// settings adds the sysctls of devices, neighbour timers included.
func (s Snapshot) settings() error {
	for _, pattern := range []string{
		"/proc/sys/net/ipv4/conf/*/*", "/proc/sys/net/ipv4/neigh/*/*",
		"/proc/sys/net/ipv6/conf/*/*", "/proc/sys/net/ipv6/neigh/*/*",
	} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, path := range paths {
			value, err := os.ReadFile(path)
			if err != nil {
				continue // write-only, or without a value yet, as stable_secret
			}
			s.add("setting %s = %s", strings.TrimPrefix(path, "/proc/sys/"), strings.TrimSpace(string(value)))
		}
	}
	return nil
}

// descriptors adds the open files of this process.
func (s Snapshot) descriptors() error {
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // the one that read the directory
		}
		if err != nil {
			return err
		}
		if target == "anon_inode:[eventpoll]" || target == "anon_inode:[eventfd]" {
			continue // the runtime's poller, made when it is first needed
		}
		s.add("descriptor %s %s", e.Name(), target)
	}
	return nil
}

// bench are the frames that mark a goroutine as the bench's own or the test framework's: the fake cloud, its TCP stack
// and HTTP server.
var bench = []string{
	"/internal/testvm/cloud.", "/internal/testvm/netns.(*Node).run", "/internal/testvm/netns.reexec", "gvisor.dev/gvisor/",
	"net/http.(*conn).serve", "net/http.(*connReader).backgroundRead", "net/http.(*Server).", "testing.", "os/signal.",
	"runtime.ensureSigM",
}

// goroutines adds the goroutines of this process but the calling one, by where they began and were made.
func (s Snapshot) goroutines() {
	buf := make([]byte, 1<<18)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	for i, stack := range strings.Split(strings.TrimSpace(string(buf)), "\n\n") {
		if i == 0 {
			continue // the caller
		}
		if slices.ContainsFunc(bench, func(frame string) bool { return strings.Contains(stack, frame) }) {
			continue
		}
		line := "goroutine " + origin(stack)
		s.lines[line]++
		s.stacks[line] = stack
	}
}

// origin is a goroutine's first function and who made it, without arguments and numbers.
func origin(stack string) string {
	var first, maker string
	for line := range strings.SplitSeq(stack, "\n") {
		switch {
		case strings.HasPrefix(line, "\t") || strings.HasPrefix(line, "goroutine "):
		case strings.HasPrefix(line, "created by "):
			maker, _, _ = strings.Cut(strings.TrimPrefix(line, "created by "), " in goroutine")
		default:
			first = line
			if i := strings.LastIndex(line, "("); i > 0 {
				first = line[:i]
			}
		}
	}
	return first + " made by " + maker
}

func ip(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}
