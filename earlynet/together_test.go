//go:build linux

package earlynet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// runs is how often to repeat what goes wrong seldom: NAMETAG_RUNS, or a few times.
func runs(t testing.TB) int {
	t.Helper()
	if s := os.Getenv("NAMETAG_RUNS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return 8
}

// use is one use of eth0 as Resolve makes it: a path, an answer over it, and everything taken back. The error is the first
// thing that was not as it should be.
func use(ctx context.Context) error {
	var leftUp error // of Close, which calls no observer after it has returned
	n, err := Open(ctx, Config{
		NICs: []string{"eth0"}, Methods: []Method{LinkLocal}, Destinations: []netip.Addr{metadata},
		Observer: func(e Event) {
			if e.Kind == LinkLeftUp {
				leftUp = errors.New(e.String())
			}
		},
	})
	if err != nil {
		return err
	}
	for p := range n.Paths() {
		got, err := ask(ctx, p)
		if err != nil && ctx.Err() == nil {
			continue // the path has ended, which may be; another follows
		}
		if err == nil && got != p.Source.String() {
			err = fmt.Errorf("the service saw %q, not %v", got, p.Source)
		}
		err = errors.Join(err, n.Close())
		return errors.Join(err, leftUp)
	}
	return fmt.Errorf("no path: %v; Close: %w", n.Status(), n.Close())
}

func TestOneOfTwo(t *testing.T) {
	if os.Getenv("NAMETAG_TEST_ONE_OF_TWO") == "" {
		return // a part of others
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := use(ctx); err != nil {
		t.Error(err)
	}
}

func TestOneNetworkAtATimeUsesALinkInThisProcessOrAnother(t *testing.T) {
	t.Run("two processes: each gets its answer, and the link is as it was", func(t *testing.T) {
		serving(t)
		restored(t)
		for i := range runs(t) {
			var both sync.WaitGroup
			for range 2 {
				cmd := exec.Command("/proc/self/exe", "-test.run=^TestOneOfTwo$", "-test.count=1")
				cmd.Env = append(os.Environ(), "NAMETAG_TEST_ONE_OF_TWO=1")
				both.Go(func() {
					if out, err := cmd.CombinedOutput(); err != nil {
						t.Errorf("run %d: %v\n%s", i, err, out)
					}
				})
			}
			both.Wait()
			if l := run(t, "ip -o link show eth0"); strings.Contains(l, ",UP") || strings.Contains(l, "nametag") {
				t.Fatalf("run %d: %s", i, l)
			}
		}
	})
	t.Run("ten in one process", func(t *testing.T) {
		serving(t)
		restored(t)
		for i := range runs(t) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			var all sync.WaitGroup
			for range 10 {
				all.Go(func() {
					if err := use(ctx); err != nil {
						t.Errorf("run %d: %v", i, err)
					}
				})
			}
			all.Wait()
			cancel()
			if l := run(t, "ip -o link show eth0"); strings.Contains(l, ",UP") || strings.Contains(l, "nametag") {
				t.Fatalf("run %d: %s", i, l)
			}
		}
	})
	t.Run("who waits says for whom, and goes on when that one is killed", func(t *testing.T) {
		serving(t)
		n := openBy(t, LinkLocal)
		p := next(t, n)
		second := open(context.Background(), t, Config{Methods: []Method{LinkLocal}})
		eventually(t, "the second to wait", func() bool { return second.saw(LinkBusy, "in use by another Network of this process") })
		if st := second.Status(); len(st) != 1 || !strings.Contains(st[0].Error(), "eth0: wait for the link: in use by another") {
			t.Errorf("status: %v", st)
		}
		reaches(t, p)
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		reaches(t, next(t, second))
		if st := second.Status(); len(st) != 0 {
			t.Errorf("status: %v", st)
		}
	})
	t.Run("who waits stops at once when its time is up", func(t *testing.T) {
		plug(t)
		next(t, openBy(t, LinkLocal))
		ctx, cancel := context.WithCancel(context.Background())
		second := open(ctx, t, Config{Methods: []Method{LinkLocal}})
		eventually(t, "the second to wait", func() bool { return second.saw(LinkBusy, "") })
		cancel()
		if p, ok := <-second.Paths(); ok {
			t.Errorf("path %v", p)
		}
		if err := second.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestAnotherUserCannotHoldALink(t *testing.T) {
	plug(t)
	// The name is anybody's to take; a link is not.
	taken := make(chan error)
	var l net.Listener
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534)
		if errno != 0 {
			taken <- errno
			return
		}
		var err error
		l, err = net.Listen("unix", fmt.Sprintf("@nametag/link/%d", eth0(t).Index))
		taken <- err
	}()
	if err := <-taken; err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	n := openBy(t, LinkLocal)
	next(t, n)
	if !n.saw(LinkBusy, "another user") {
		t.Error("nobody was told")
	}
}
