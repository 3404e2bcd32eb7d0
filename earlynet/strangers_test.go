//go:build linux

package earlynet

import (
	"context"
	"errors"
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

// listing is a /proc whose list of packet sockets is one for who reads it first, and another from then on. Between is called
// when the first has begun to read.
func listing(t testing.TB, first, then []byte, between func()) (proc string) {
	t.Helper()
	proc = t.TempDir()
	dir := filepath.Join(proc, "thread-self/net")
	list, next := filepath.Join(dir, "packet"), filepath.Join(dir, "next")
	if err := errors.Join(os.MkdirAll(dir, 0o755), unix.Mkfifo(list, 0o600), os.WriteFile(next, then, 0o600)); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() {
		w, err := os.OpenFile(list, os.O_WRONLY, 0) // returns when somebody reads
		if err != nil {
			served <- err
			return
		}
		between()
		err = os.Rename(next, list)
		_, err2 := w.Write(first)
		served <- errors.Join(err, err2, w.Close())
	}()
	t.Cleanup(func() {
		if reader, err := os.OpenFile(list, os.O_RDONLY|unix.O_NONBLOCK, 0); err == nil { // where nobody has read
			defer func() { _ = reader.Close() }()
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return proc
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
	proc := listing(t, list, nil, func() {
		shut()
		if ownSockets.all()[inode] {
			t.Error("a socket that is closed and listed no more is still remembered")
		}
	})
	if strangers := packetSockets(proc, index); len(strangers) > 0 {
		t.Errorf("%d was taken for a stranger's, though it is %d and was ours", strangers, inode)
	}
}

// A program that has left does not use the link. One that cannot be seen may.
func TestAStrangerThatLeavesWhileItIsLookedForDoesNotKeepTheLinkUp(t *testing.T) {
	plug(t)
	index := eth0(t).Index
	line := fmt.Appendf(nil, "0000000000000000 3 2 0806 %d 1 0 0 4242\n", index)
	for about, c := range map[string]struct {
		then []byte
		want string
	}{
		"it has closed its socket": {nil, ""},
		"it is there still":        {line, "another program (process unknown) has a socket on it"},
	} {
		t.Run(about, func(t *testing.T) {
			network, err := newNetwork(context.Background(), Config{Proc: listing(t, line, c.then, func() {})})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				network.cancel()
				if err := network.rtnl.close(); err != nil {
					t.Error(err)
				}
			}()
			if got := newNIC(network, newView(link{index: index})).stranger(); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
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
