//go:build linux

package earlynet

import (
	"encoding/binary"
	"fmt"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/mdlayher/netlink"
	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// stranger says what shows that another program has begun to use the link without having put anything on it yet, such as
// a DHCP client that waits for its first lease. It found the link up and will not set it up again. Empty: nothing does.
//
// A netlink socket is no sign, nor is a packet socket for all links: whoever listens everywhere does not need this one.
func (c *nic) stranger() string {
	for _, inode := range socketsOn(c.net.proc, c.index) {
		name, process, found := ownerOf(c.net.proc, inode)
		if !found && !slices.Contains(socketsOn(c.net.proc, c.index), inode) {
			continue // whoever had it has closed it since
		}
		c.managed = slices.Contains(readsAdvertisements, name)
		return fmt.Sprintf("%s (process %s) has a socket on it", name, process)
	}
	if now, err := c.setting("ipv6", "accept_ra"); err == nil && c.shielded && now != noAdvertisements {
		return "somebody else has set its accept_ra to " + now
	}
	return ""
}

// socketsOn returns the sockets that are bound to a link and not ours, by their inodes.
func socketsOn(proc string, index int) []uint64 {
	inodes := packetSockets(proc, index)
	for _, protocol := range []uint8{unix.IPPROTO_UDP, unix.IPPROTO_RAW} {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			inodes = append(inodes, boundSockets(family, protocol, index)...)
		}
	}
	return inodes
}

// readsAdvertisements are the programs that hear routers themselves and set accept_ra to 0 for it. Where it is 0 already they
// write nothing, so that nobody sees that they want it so: it must not become 1 behind their backs.
var readsAdvertisements = []string{"systemd-network", "NetworkManager", "dhcpcd", "connmand"}

// ownSockets are the packet sockets of this package in this process: of every Network, since one may still be closing its own
// when the next owns the link. The names are the kernel's, and so they are the process's.
var ownSockets = sockets{known: make(map[uint64]bool)}

// sockets are known for ours from before they are asked about until the kernel has been seen to list them no more. That is not
// when they are closed: a child has a copy of each from the moment that this process forks until it executes another program.
type sockets struct {
	mu    sync.Mutex
	known map[uint64]bool // by their inodes; true: closed by us
}

// all returns the inodes of those that are known.
func (s *sockets) all() map[uint64]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.known)
}

// set notes a socket that is opened or closed.
func (s *sockets) set(inode uint64, closed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[inode] = closed
}

// forget forgets those that were closed before the kernel was asked, and are not listed: they will never be again.
func (s *sockets) forget(proc string) {
	before := s.all()
	for inode := range listedSockets(proc) {
		delete(before, inode)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for inode, closed := range before {
		if closed {
			delete(s.known, inode)
		}
	}
}

// listen takes what [packet.Listen] returns. The socket is known for ours until the function returned has closed it, at least.
func (n *Network) listen(conn *packet.Conn, err error) (_ *packet.Conn, shut func(), _ error) {
	if err != nil {
		return nil, nil, err
	}
	inode := inodeOf(conn)
	ownSockets.set(inode, false)
	return conn, func() {
		_ = conn.Close()
		ownSockets.set(inode, true)
		ownSockets.forget(n.proc)
	}, nil
}

// inodeOf returns the number by which the kernel lists a socket; 0 if it does not say.
func inodeOf(conn syscall.Conn) (inode uint64) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		var st unix.Stat_t
		if unix.Fstat(int(fd), &st) == nil {
			inode = st.Ino
		}
	})
	return inode
}

// packetSockets returns the packet sockets on a link that are not ours.
func packetSockets(proc string, index int) (inodes []uint64) {
	// Ours is what was ours before the kernel is asked: it may have been closed and forgotten by the time of the answer.
	ours := ownSockets.all()
	for inode, on := range listedSockets(proc) {
		if _, known := ours[inode]; on == index && !known {
			inodes = append(inodes, inode)
		}
	}
	return inodes
}

// listedSockets yields the packet sockets of the network namespace as the kernel lists them: their inodes, and the index of the
// link that each is on. The file is that of the thread: a process may have threads elsewhere.
func listedSockets(proc string) iter.Seq2[uint64, int] {
	return func(yield func(inode uint64, on int) bool) {
		text, err := os.ReadFile(filepath.Join(proc, "thread-self/net/packet"))
		if err != nil {
			return // a kernel without packet sockets, or no /proc
		}
		const dev, node = 4, 8 // the columns
		for line := range strings.Lines(string(text)) {
			words := strings.Fields(line)
			if len(words) <= node {
				continue
			}
			inode, err1 := strconv.ParseUint(words[node], 10, 64)
			on, err2 := strconv.Atoi(words[dev])
			if err1 == nil && err2 == nil && !yield(inode, on) {
				return
			}
		}
	}
}

// The messages of sock_diag(7) for Internet sockets: struct inet_diag_req_v2, and struct inet_diag_msg with the fields
// that are read.
const (
	sizeofDiagRequest   = 56
	sizeofDiagReply     = 72
	diagIndex, diagNode = 40, 68
)

// boundSockets returns the sockets of one protocol that are bound to a link, as far as the kernel says.
func boundSockets(family, proto uint8, index int) (inodes []uint64) {
	c, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return nil
	}
	defer func() { _ = c.Close() }()
	request := make([]byte, sizeofDiagRequest)
	request[0], request[1] = family, proto
	binary.NativeEndian.PutUint32(request[4:], 1<<32-1) // in every state
	replies, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.SOCK_DIAG_BY_FAMILY, Flags: netlink.Request | netlink.Dump}, Data: request,
	})
	if err != nil {
		return nil // the kernel was made without
	}
	for _, m := range replies {
		if len(m.Data) >= sizeofDiagReply && int(binary.NativeEndian.Uint32(m.Data[diagIndex:])) == index {
			inodes = append(inodes, uint64(binary.NativeEndian.Uint32(m.Data[diagNode:])))
		}
	}
	return inodes
}

// ownerOf says who has a socket open: "dhclient", process "812". Found is false where nobody is seen to: it was closed, or its
// owner is in a place that cannot be looked into.
func ownerOf(proc string, inode uint64) (name, process string, found bool) {
	socket := fmt.Sprintf("socket:[%d]", inode)
	files, _ := filepath.Glob(filepath.Join(proc, "[0-9]*/fd/*"))
	for _, f := range files {
		if target, err := os.Readlink(f); err == nil && target == socket {
			holder := filepath.Dir(filepath.Dir(f))
			comm, _ := os.ReadFile(filepath.Join(holder, "comm"))
			return strings.TrimSpace(string(comm)), filepath.Base(holder), true
		}
	}
	return "another program", "unknown", false
}
