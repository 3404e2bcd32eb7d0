//go:build linux

package boot

import (
	"fmt"
	"os"

	"github.com/nametag-boot/nametag/internal/node/remedy"
)

// The inits that nametag stands in front of.
const (
	initPath   = "/init"
	behindPath = "/init.next" // where the original is when nametag is /init
)

// A next is the init that is executed after us. It is started as the kernel would have started it: by the path that is
// its own, from which the kernel takes /proc/1/exe, /proc/1/comm and what a script's interpreter is given, and with that
// path as its first argument, which programs of many names go by.
type next struct {
	asked string      // by the caller or by the kernel argument; empty: the one that we stand in front of
	self  string      // the path that we were started by
	us    os.FileInfo // what stood there then; nil: unknown
	back  bool        // the original stands at /init again
}

// behind reports whether the next init is the original of the /init that we are.
func (n *next) behind() bool { return n.asked == "" && n.self == initPath }

// path is where the next init is now.
func (n *next) path() string {
	switch {
	case n.asked != "":
		return n.asked
	case n.behind() && !n.back:
		return behindPath
	}
	return initPath
}

// name is what the kernel would have called it.
func (n *next) name() string {
	if n.behind() {
		return initPath
	}
	return n.path()
}

// check says why the next init could not be executed, before anybody waits for a name that nobody would get.
func (n *next) check() error {
	path := n.path()
	found, err := os.Stat(path)
	switch {
	case err != nil:
		return fmt.Errorf("there is no next init: %w; check the image, or %s=%s", err, nextParameter, remedy.NextInit.See())
	case found.Mode()&0o111 == 0 || found.IsDir():
		return fmt.Errorf("the next init %s is not executable; check the image, or %s=%s", path, nextParameter, remedy.NextInit.See())
	case n.us != nil && os.SameFile(n.us, found):
		return fmt.Errorf("the next init %s is nametag itself; check %s=%s", path, nextParameter, remedy.NextInit.See())
	}
	return nil
}

// putBack gives the original /init its path again, in our place: we run on from a file without a name. A link stays the
// link that it was. On an error the next init is where it was, and can be executed from there.
func (n *next) putBack() error {
	if !n.behind() || n.back {
		return nil
	}
	if err := os.Rename(behindPath, initPath); err != nil {
		return fmt.Errorf("boot: /init cannot be put back, so it runs as %s: %w", behindPath, err)
	}
	n.back = true
	return nil
}
