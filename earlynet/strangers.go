//go:build linux

package earlynet

import (
	"encoding/binary"
	"fmt"
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
	inodes := packetSockets(c.net.proc, c.index)
	for _, proto := range []uint8{unix.IPPROTO_UDP, unix.IPPROTO_RAW} {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			inodes = append(inodes, boundSockets(family, proto, c.index)...)
		}
	}
	for _, inode := range inodes {
		name, process := ownerOf(c.net.proc, inode)
		c.managed = slices.Contains(readsAdvertisements, name)
		return fmt.Sprintf("%s (process %s) has a socket on it", name, process)
	}
	if now, err := c.setting("ipv6", "accept_ra"); err == nil && c.shielded && now != noAdvertisements {
		return "somebody else has set its accept_ra to " + now
	}
	return ""
}

// readsAdvertisements are the programs that hear routers themselves and set accept_ra to 0 for it. Where it is 0 already they
// write nothing, so that nobody sees that they want it so: it must not become 1 behind their backs.
var readsAdvertisements = []string{"systemd-network", "NetworkManager", "dhcpcd", "connmand"}

// ownSockets are the packet sockets of this package in this process, by their inodes: of every Network, since one may still
// be closing its own when the next owns the link. The names are the kernel's, and so they are the process's.
var ownSockets sync.Map

// listen takes what [packet.Listen] returns. The socket is known for ours until it is closed by the function returned.
func listen(conn *packet.Conn, err error) (_ *packet.Conn, shut func(), _ error) {
	if err != nil {
		return nil, nil, err
	}
	inode := inodeOf(conn)
	ownSockets.Store(inode, true)
	return conn, func() {
		_ = conn.Close()
		ownSockets.Delete(inode)
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

// packetSockets returns the packet sockets on a link that are not ours. The file is that of the thread: a
// process may have threads elsewhere.
func packetSockets(proc string, index int) (inodes []uint64) {
	text, err := os.ReadFile(filepath.Join(proc, "thread-self/net/packet"))
	if err != nil {
		return nil // a kernel without packet sockets, or no /proc
	}
	const dev, inode = 4, 8 // the columns
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) <= inode || words[dev] != strconv.Itoa(index) {
			continue
		}
		i, err := strconv.ParseUint(words[inode], 10, 64)
		if _, ours := ownSockets.Load(i); err == nil && !ours {
			inodes = append(inodes, i)
		}
	}
	return inodes
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

// ownerOf says who has a socket open: "dhclient", process "812".
func ownerOf(proc string, inode uint64) (name, process string) {
	socket := fmt.Sprintf("socket:[%d]", inode)
	files, _ := filepath.Glob(filepath.Join(proc, "[0-9]*/fd/*"))
	for _, f := range files {
		if target, err := os.Readlink(f); err == nil && target == socket {
			holder := filepath.Dir(filepath.Dir(f))
			comm, _ := os.ReadFile(filepath.Join(holder, "comm"))
			return strings.TrimSpace(string(comm)), filepath.Base(holder)
		}
	}
	return "another program", "unknown"
}
