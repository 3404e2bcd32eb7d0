//go:build linux

package earlynet

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// copies makes a copy of each packet socket that this process has on eth0, as a child has them from when it is forked until it
// executes another program, and returns how many. They are closed when the test ends.
func copies(t testing.TB) (n int) {
	t.Helper()
	on := make(map[string]bool)
	for inode, index := range listedSockets("/proc") {
		if index == eth0(t).Index {
			on[fmt.Sprintf("socket:[%d]", inode)] = true
		}
	}
	files, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	files = slices.DeleteFunc(files, func(f string) bool {
		target, _ := os.Readlink(f)
		return !on[target]
	})
	for _, f := range files {
		fd, err := strconv.Atoi(filepath.Base(f))
		if err != nil {
			t.Fatal(err)
		}
		if fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
	}
	return len(files)
}

// The copy keeps the socket open, and in the kernel's list, when we have closed ours.
func TestAChildThatWasForkedAndIsNoOtherProgramYetDoesNotKeepTheLinkUp(t *testing.T) {
	for _, m := range []Method{LinkLocal, DHCP} {
		t.Run(m.String(), func(t *testing.T) {
			plug(t)
			n := openBy(t, m)
			eventually(t, "a packet socket on the link", func() bool { return copies(t) > 0 })
			if err := n.Close(); err != nil {
				t.Error(err)
			}
			if up(t) || n.saw(LinkLeftUp, "") {
				t.Error("the link was left up: our own socket was taken for a stranger's")
			}
		})
	}
}

// socketOn opens a packet socket of a network on eth0.
func socketOn(t testing.TB, n *Network) (inode uint64, shut func()) {
	t.Helper()
	i, err := net.InterfaceByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	conn, shut, err := n.listen(packet.Listen(i, packet.Datagram, unix.ETH_P_ARP, nil))
	if err != nil {
		t.Fatal(err)
	}
	return inodeOf(conn), shut
}

// What the kernel lists is read at one moment, and what is ours known at another.
func TestASocketThatIsClosedWhileTheKernelListsItIsNoStrangers(t *testing.T) {
	plug(t)
	index := eth0(t).Index
	network, err := bareNetwork(context.Background(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer network.cancel()
	inode, shut := socketOn(t, network)
	list, err := os.ReadFile("/proc/thread-self/net/packet")
	if err != nil {
		t.Fatal(err)
	}
	proc := t.TempDir()
	dir := filepath.Join(proc, "thread-self/net")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(dir, "packet")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	found := make(chan []uint64)
	go func() { found <- packetSockets(proc, index) }()
	w, err := os.OpenFile(pipe, os.O_WRONLY, 0) // returns when somebody reads
	if err != nil {
		t.Fatal(err)
	}
	shut()
	if ownSockets.all()[inode] {
		t.Error("a socket that is closed and listed no more is still remembered")
	}
	if _, err := w.Write(list); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if strangers := <-found; len(strangers) > 0 {
		t.Errorf("%d was taken for a stranger's, though it is %d and was ours", strangers, inode)
	}
}

func TestSocketsAreForgottenWhenTheKernelListsThemNoMore(t *testing.T) {
	plug(t)
	network, err := bareNetwork(context.Background(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer network.cancel()
	held, shutHeld := socketOn(t, network)
	if n := copies(t); n != 1 {
		t.Fatalf("%d copies of one socket", n)
	}
	shutHeld()
	open, shutOpen := socketOn(t, network)
	if known := ownSockets.all(); !known[held] {
		t.Error("a socket that a child still has was forgotten")
	} else if closed, known := known[open]; closed || !known {
		t.Error("a socket that is open is not known, or said to be closed")
	}
	shutOpen()
	if known := ownSockets.all(); known[open] || !known[held] {
		t.Errorf("known are %v; want %d without %d", known, held, open)
	}
}
