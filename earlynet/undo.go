//go:build linux

package earlynet

import (
	"errors"
	"slices"

	"github.com/nametag-boot/nametag/internal/safely"
)

// A change is one thing that is done to a link, and how it is taken back.
type change struct {
	name     string // "address 169.254.7.9/32"
	do, undo func() error
}

// A ledger holds the changes that were made, in order.
type ledger []change

// add notes a change that was made.
func (l *ledger) add(name string, undo func() error) { *l = append(*l, change{name: name, undo: undo}) }

// undo takes everything back, the last thing first, and reports each. What is
// gone already counts as taken back.
func (l *ledger) undo(c *nic, m Method) []error {
	var errs []error
	for _, made := range slices.Backward(*l) {
		err := safely.Do("taking back "+made.name, made.undo)
		if errors.Is(err, errLeft) {
			continue
		}
		if err == nil || gone(err) {
			c.event(m, Undone, made.name, nil)
			continue
		}
		c.net.tooSlow(err)
		err = &UndoError{Interface: c.name(), What: made.name, Err: permission(err)}
		c.event(m, UndoFailed, made.name, err)
		errs = append(errs, err)
	}
	*l = nil
	return errs
}

// has reports whether there is such a change.
func (l *ledger) has(name string) bool {
	return slices.ContainsFunc(*l, func(made change) bool { return made.name == name })
}

// drop forgets a change: what it made is to stay.
func (l *ledger) drop(name string) {
	*l = slices.DeleteFunc(*l, func(made change) bool { return made.name == name })
}
