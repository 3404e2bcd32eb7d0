//go:build linux

package earlynet

import (
	"errors"
	"slices"

	"github.com/nametag-boot/nametag/internal/safely"
)

// A ledger holds how to take back what was done.
type ledger []entry

type entry struct {
	what string
	undo func() error
}

func (l *ledger) add(what string, undo func() error) { *l = append(*l, entry{what, undo}) }

// undo takes everything back, the last thing first, and reports each. What is
// gone already counts as taken back.
func (l *ledger) undo(c *nic, m Method) []error {
	var errs []error
	for _, e := range slices.Backward(*l) {
		err := safely.Do("taking back "+e.what, e.undo)
		if errors.Is(err, errLeft) {
			continue
		}
		if err == nil || gone(err) {
			c.event(m, Undone, e.what, nil)
			continue
		}
		err = &UndoError{Interface: c.name(), What: e.what, Err: permission(err)}
		c.event(m, UndoFailed, e.what, err)
		errs = append(errs, err)
	}
	*l = nil
	return errs
}

// drop forgets an entry: what it says is to stay.
func (l *ledger) drop(what string) {
	*l = slices.DeleteFunc(*l, func(e entry) bool { return e.what == what })
}
