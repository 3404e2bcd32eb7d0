//go:build linux

package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// slot waits until this machine has a processor for one more guest, counting the guests of every test process, and
// takes it until free. More guests than processors would only run into each other's time-outs.
func (d Deps) slot(ctx context.Context) (free func(), err error) {
	for {
		for i := range runtime.NumCPU() {
			name := filepath.Join(d.Cache, fmt.Sprintf("slot-%d.lock", i))
			f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o666) //nolint:gosec // shared by the users of this checkout
			if err != nil {
				return nil, err
			}
			err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
			if err == nil {
				return func() { _ = f.Close() }, nil // the lock goes with the descriptor, also when this process dies
			}
			_ = f.Close()
			if !errors.Is(err, unix.EWOULDBLOCK) {
				return nil, fmt.Errorf("locking %s: %w", name, err)
			}
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
