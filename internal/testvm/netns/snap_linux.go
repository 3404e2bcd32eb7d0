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
// could leave it changed: links, addresses, routes of all tables, rules, neighbours, settings of devices, goroutines and
// descriptors. What changes by itself is left out (counters, ages, the states of neighbours), and so are the goroutines
// of the bench.
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
	err = s.network(r)
	r.close()
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

// network adds what rtnetlink knows.
func (s Snapshot) network(r *rtnl) error {
	names := map[uint32]string{}
	name := func(index uint32) string {
		if n, ok := names[index]; ok {
			return n
		}
		return fmt.Sprintf("#%d", index)
	}
	dumps := []struct {
		kind netlink.HeaderType
		head []byte
		add  func(data []byte) error
	}{
		{unix.RTM_GETLINK, ifinfo(0, 0, 0), func(b []byte) error { return s.link(b, names) }},
		{unix.RTM_GETADDR, make([]byte, unix.SizeofIfAddrmsg), func(b []byte) error { return s.address(b, name) }},
		{unix.RTM_GETROUTE, make([]byte, unix.SizeofRtMsg), func(b []byte) error { return s.route(b, name) }},
		{unix.RTM_GETRULE, make([]byte, unix.SizeofRtMsg), s.rule},
		{unix.RTM_GETNEIGH, make([]byte, unix.SizeofNdMsg), func(b []byte) error { return s.neighbour(b, name) }},
	}
	for _, d := range dumps {
		msgs, err := r.c.Execute(netlink.Message{
			Header: netlink.Header{Type: d.kind, Flags: netlink.Request | netlink.Dump}, Data: d.head,
		})
		if errors.Is(err, unix.EOPNOTSUPP) {
			continue // a kernel without rules
		}
		if err != nil {
			return fmt.Errorf("dump %d: %w", d.kind, err)
		}
		for _, m := range msgs {
			if len(m.Data) < len(d.head) {
				return fmt.Errorf("dump %d: message of %d bytes", d.kind, len(m.Data))
			}
			if err := d.add(m.Data); err != nil {
				return err
			}
		}
	}
	return nil
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

func (s Snapshot) link(b []byte, names map[uint32]string) error {
	index, flags := binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[8:])
	var name, mac string
	var mtu, master, operstate, queue, promiscuity uint32
	err := attributes(b[unix.SizeofIfInfomsg:], func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.IFLA_IFNAME:
			name = ad.String()
		case unix.IFLA_ADDRESS:
			mac = net.HardwareAddr(ad.Bytes()).String()
		case unix.IFLA_MTU:
			mtu = ad.Uint32()
		case unix.IFLA_MASTER:
			master = ad.Uint32()
		case unix.IFLA_OPERSTATE:
			operstate = uint32(ad.Uint8())
		case unix.IFLA_TXQLEN:
			queue = ad.Uint32()
		case unix.IFLA_PROMISCUITY:
			promiscuity = ad.Uint32()
		}
	})
	names[index] = name
	if flags&unix.IFF_UP == 0 {
		// Linkwatch sets the state of a link that went down, up to a second later or more; it says nothing then.
		operstate = 0
	}
	s.add("link %d %s %s flags %#x operstate %d mtu %d master %d qlen %d promiscuity %d",
		index, name, mac, flags, operstate, mtu, master, queue, promiscuity)
	return err
}

func (s Snapshot) address(b []byte, name func(uint32) string) error {
	var addr, local, peer netip.Addr
	flags := uint32(b[2])
	err := attributes(b[unix.SizeofIfAddrmsg:], func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.IFA_ADDRESS:
			addr = ip(ad.Bytes())
		case unix.IFA_LOCAL:
			local = ip(ad.Bytes())
		case unix.IFA_FLAGS:
			flags = ad.Uint32()
		}
	})
	if local.IsValid() && local != addr {
		addr, peer = local, addr
	}
	// An address is tentative until nobody has claimed it; that passes.
	s.add("address %s/%d peer %s dev %s scope %d flags %#x",
		addr, b[1], peer, name(binary.NativeEndian.Uint32(b[4:])), b[3], flags&^(unix.IFA_F_TENTATIVE|unix.IFA_F_OPTIMISTIC))
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
	s.add("route family %d %s/%d via %s dev %s src %s table %d metric %d tos %d protocol %d scope %d type %d",
		family, dst, dstLen, gateway, name(dev), source, table, metric, tos, b[5], b[6], b[7])
	return err
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
