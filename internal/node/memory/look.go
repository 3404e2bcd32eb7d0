//go:build linux

package memory

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/nametag-boot/nametag/internal/node/wait"
	"github.com/nametag-boot/nametag/internal/safely"
)

const (
	// headStart bounds how long asking waits for a disk to show up, and readTime how long for STATE to be read once it is
	// there. Both take a fraction of it.
	headStart = 100 * time.Millisecond
	readTime  = 500 * time.Millisecond
	// Disks are looked for often while they may come any moment, and then now and then: as long as the service is asked, a
	// disk that comes late costs nobody anything.
	lookOften = 10 * time.Millisecond
	often     = 2 * time.Second
	lookSome  = 200 * time.Millisecond
)

// Config says where things are.
type Config struct {
	Sys, Dev string // where sysfs and devtmpfs are mounted; empty: "/sys", "/dev"
	// Instance is this machine's id, by its firmware; empty: it does not tell.
	Instance string
	// Disks says that a disk is to be expected: something that has disks has its driver. nil: not.
	Disks func() bool
}

// Looking is a look into a Talos' memory that is under way.
type Looking struct {
	// Recall gives what was found, once. It gives nothing where no partition STATE comes up.
	Recall <-chan Recall
	// Ready is closed when nobody need wait any longer before the service is asked.
	Ready <-chan struct{}

	expects func() bool
	began   time.Time
	disk    atomic.Bool // there is one
	reading atomic.Bool // STATE is there and is just being read
	ended   chan struct{}
}

// Reading reports whether there is something to wait for: STATE is just being read, or the first disk is to be there any
// moment.
func (l *Looking) Reading() bool {
	select {
	case <-l.ended:
		return false
	default:
	}
	return l.reading.Load() || !l.disk.Load() && l.expects != nil && l.expects() && time.Since(l.began) < often
}

// Done is closed when the look has ended and holds nothing any longer.
func (l *Looking) Done() <-chan struct{} { return l.ended }

// Look looks for the partition STATE of a Talos, whichever disk it is on, until it was found and read, it is certain that
// there is none, or ctx ends. It writes nothing, mounts where nobody sees it, and leaves nothing mounted. A disk that does
// not answer may keep it in the kernel for longer than ctx; nobody has to wait for that.
func Look(ctx context.Context, c Config) *Looking {
	return lookTalos(ctx, c.withDefaults(), func(device string) (volume, error) { return mountDetached("xfs", device) })
}

func lookTalos(ctx context.Context, c Config, mount func(string) (volume, error)) *Looking {
	without := 0
	return look(ctx, c, func() func() Recall {
		all, _ := partitions(c.Sys)
		states := labelled(all, labelState)
		// A Talos' disk without STATE is one before its first boot. The kernel adds a disk's partitions one after the other.
		if len(states) == 0 && len(labelled(all, labelMeta)) > 0 {
			without++
		}
		switch {
		case len(states) > 0:
			return func() Recall { return talos{sys: c.Sys, dev: c.Dev, mount: mount}.recall(states, c.Instance) }
		case without > 2:
			return func() Recall { return Recall{} }
		}
		return nil
	})
}

func (c Config) withDefaults() Config {
	if c.Sys == "" {
		c.Sys = "/sys"
	}
	if c.Dev == "" {
		c.Dev = "/dev"
	}
	return c
}

// look calls find, now and then, until it has found how to read the memory, and reads it.
func look(ctx context.Context, c Config, find func() (read func() Recall)) *Looking {
	recall, ready := make(chan Recall, 1), make(chan struct{})
	l := &Looking{Recall: recall, Ready: ready, ended: make(chan struct{}), expects: c.Disks, began: time.Now()}
	found := make(chan struct{}) // the memory is there
	safely.Go("waiting for a disk", func() {
		defer close(ready)
		disk := time.NewTimer(headStart)
		defer disk.Stop()
		select {
		case <-found:
			_, _ = wait.For(l.ended, readTime)
		case <-l.ended:
		case <-disk.C:
		}
	}, func(error) {})
	safely.Go("looking into the node's memory", func() {
		defer close(l.ended)
		read := l.await(ctx, c.Sys, find)
		if read == nil {
			return
		}
		l.reading.Store(true)
		close(found)
		recall <- read()
	}, func(err error) { // whatever a disk holds must not end the boot
		recall <- Recall{Why: err.Error()}
	})
	return l
}

// await waits for the memory to be there.
func (l *Looking) await(ctx context.Context, sysfs string, find func() func() Recall) func() Recall {
	for {
		if _, disk := partitions(sysfs); disk {
			l.disk.Store(true)
		}
		if read := find(); read != nil {
			return read
		}
		pause := lookOften
		if time.Since(l.began) > often {
			pause = lookSome
		}
		if !wait.Sleep(ctx, pause) {
			return nil
		}
	}
}
