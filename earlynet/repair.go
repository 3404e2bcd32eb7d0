//go:build linux

package earlynet

import (
	"context"

	"github.com/nametag-boot/nametag/internal/joined"
)

// Repair puts links back as a process found them that was killed while it had a [Network]: addresses, routes, settings and
// flags. What they were stands in such a link's alias; other links are left alone. A Network repairs the links that it uses
// by itself. This is for who is to use none any more. A link with which udev has not finished, since it was up, is shown to it
// once more.
//
// Of cfg count Alone, Proc and Observer, which is told of each thing. A link that a living process uses is waited for
// as long as ctx lasts, and is an error then. The other errors are as those of [Open] and [Network.Close].
func Repair(ctx context.Context, cfg Config) error {
	n, err := newNetwork(ctx, Config{Alone: cfg.Alone, Proc: cfg.Proc, Observer: cfg.Observer, udev: cfg.udev, sys: cfg.sys})
	if err != nil {
		return err
	}
	defer n.cancel()
	defer func() { _ = n.rtnl.close() }()
	n.undoing = true
	n.rtnl.bound(undoTime)
	if err := n.rtnl.permitted(); err != nil {
		return &Error{Op: "configure links", Err: err}
	}
	links, err := n.rtnl.links()
	if err != nil {
		return &Error{Op: "list links", Err: err}
	}
	var errs []error
	for _, l := range links {
		if _, dead := parseAlias(l.alias); dead {
			errs = append(errs, n.repair(l)...)
		}
	}
	return joined.Errors(errs...)
}

// repair takes a link over as the next user would, and gives it back at once.
func (n *Network) repair(l link) []error {
	c := newNIC(n, newView(l))
	if !c.claim(n.ctx) {
		return []error{&Error{Op: "repair", Interface: l.name, Err: context.Cause(n.ctx)}}
	}
	defer c.disclaim()
	c.prepare()
	return c.undo()
}
