//go:build linux

package earlynet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/joined"
)

// One Network uses a link at a time, in this process or in another: two that set one link up and down, and add and remove
// the same addresses, would each take away what the other stands on.
//
// The owner is whoever listens on an abstract Unix socket that is named after the link's index. Such a name lives in the
// network namespace, as the link does, and is gone with the process, however that ends. Nobody is ever accepted: those
// who wait connect, and their connection ends when the owner does.

// claimPause is how long to wait before the next try to own a link, where the kernel does not tell when it is worth while.
const claimPause = 20 * time.Millisecond

// errNotOwner means that the name is taken by a user who cannot own a link.
var errNotOwner = errors.New("it is not one of ours")

// claim waits until the link is ours, or ctx ends, and reports which.
func (c *nic) claim(ctx context.Context) bool {
	name := fmt.Sprintf("@nametag/link/%d", c.index)
	var listen net.ListenConfig
	said := 0
	for ctx.Err() == nil {
		l, err := listen.Listen(ctx, "unix", name)
		if err == nil {
			c.claimed = l
			if said != 0 {
				c.net.succeeded(c, 0)
			}
			return true
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			return ctx.Err() == nil // a kernel without such sockets: one may be enough all the same
		}
		owner, err := c.await(ctx, name, func(owner int) {
			if owner != said { // once for each
				said = owner
				c.fail(LinkBusy, &Error{Op: "wait for the link", Err: &busyError{owner}})
			}
		})
		switch {
		case errors.Is(err, errNotOwner):
			c.event(0, LinkBusy, "", fmt.Errorf("%w: process %d of another user holds the name %s", err, owner, name))
			return ctx.Err() == nil
		case err != nil:
			pause(ctx, claimPause)
		}
	}
	return false
}

// await returns when the link's owner has let go. An error says that this could not be waited for.
func (c *nic) await(ctx context.Context, name string, tell func(owner int)) (owner int, err error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", name)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Now()) })()
	cred, err := peerOf(conn)
	if err != nil {
		return 0, err
	}
	// Any user may listen under the name. Only who may configure links can have one.
	if cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		return int(cred.Pid), errNotOwner
	}
	tell(int(cred.Pid))
	_, _ = conn.Read(make([]byte, 1)) // ends with the owner, who writes nothing
	return int(cred.Pid), nil
}

// peerOf returns who listens at the other end of a Unix connection.
func peerOf(conn net.Conn) (cred *unix.Ucred, err error) {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return nil, err
	}
	cerr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return cred, joined.Errors(err, cerr)
}

// disclaim gives the link to whoever waits for it.
func (c *nic) disclaim() {
	if c.claimed != nil {
		_ = c.claimed.Close()
		c.claimed = nil
	}
}

// A busyError says which process uses a link.
type busyError struct{ process int }

func (e *busyError) Error() string {
	if e.process == os.Getpid() {
		return "in use by another Network of this process"
	}
	return fmt.Sprintf("in use by another nametag, process %d", e.process)
}
