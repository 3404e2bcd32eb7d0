//go:build linux

package earlynet

import "slices"

// A view is what the kernel has told of a link, for all who look at it and wait for it to change. The network's mu guards it.
type view struct {
	link                  // as it is, or was last
	gone    bool          // it was removed
	session int           // grows when it ceases to carry frames, or has another hardware address: see session
	falls   int           // how often it was set down
	changed chan struct{} // closed at the next change
	nic     *nic          // that uses it; nil: none does
	ignored string        // why not
}

func newView(l link) *view { return &view{link: l, changed: make(chan struct{})} }

// update takes over the link's new state.
func (v *view) update(l link) {
	if v.carries() && !l.carries() || !slices.Equal(v.mac, l.mac) {
		v.session++
	}
	if v.up() && !l.up() {
		v.falls++
	}
	v.link = l
	v.touch()
}

// leave notes that the link was removed.
func (v *view) leave() {
	v.gone = true
	v.touch()
}

// touch wakes everything that waits for a change.
func (v *view) touch() {
	close(v.changed)
	v.changed = make(chan struct{})
}
