//go:build linux

package earlynet

import "slices"

// A view is what the kernel has told of a link, for all who look at it and wait for it to change. The network's mu guards it.
type view struct {
	link                  // as it is, or was last
	gone    bool          // it was removed
	breaks  int           // how often it has ceased to carry frames
	falls   int           // how often it was set down
	news    chan struct{} // closed at the next change
	nic     *nic          // that uses it; nil: none does
	ignored string        // why not
}

func newView(l link) *view { return &view{link: l, news: make(chan struct{})} }

// take takes the link's new state.
func (v *view) take(l link) {
	if v.carries() && !l.carries() || !slices.Equal(v.mac, l.mac) {
		v.breaks++
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
	close(v.news)
	v.news = make(chan struct{})
}
