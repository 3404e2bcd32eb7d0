//go:build linux

package memory

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"
)

// A Recall is what looking into a node's memory came to. The zero value is a node that remembers nothing, which is what
// every node is at its first boot.
type Recall struct {
	// Explicit is the name that the operator gave this node in its system's own configuration, and ExplicitFrom where it
	// stands there. It ends the matter. Empty: none.
	Explicit, ExplicitFrom string
	// Name is the one that the node had, and From where it was read.
	Name Name
	From string
	// Sealed says that there is a memory that cannot be read, of a system that has booted before and will read it itself.
	Sealed bool
	// Why says, in one line, why nothing is known; empty where there is nothing to say.
	Why string
}

// Known reports whether there is a name.
func (r Recall) Known() bool { return r.Name.Hostname != "" }

// For is what r means on the instance with that id: a name that another instance had is none. An empty id, of a machine
// that does not tell, is nobody's.
func (r Recall) For(instance string) Recall {
	if !r.Known() || r.Name.InstanceID == instance && instance != "" {
		return r
	}
	of := fmt.Sprintf("and this one is %s", instance)
	if instance == "" {
		of = "and which one this is the firmware does not tell"
	}
	r.Why = fmt.Sprintf("%s remembers the name %s, of the instance %.64q, %s: it counts for nothing", r.From, r.Name.Hostname, r.Name.InstanceID, of)
	r.Name, r.From = Name{}, ""
	return r
}

// RecallFile is the memory of a system that is not Talos and whose root is mounted at root: "/", "/sysroot".
func RecallFile(root, instance string) Recall {
	return recallEither(instance, func(path string) Recall {
		path = filepath.Join(root, path)
		n, err := Read(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return Recall{}
		case err != nil:
			return Recall{Why: err.Error()}
		}
		return Recall{Name: n, From: path}
	})
}

// recallEither is what is read at the two places of a root: this instance's name, if there is one, and the later of two;
// else another's; else why there is none. Either may be the older one: the second where it lies below a /var that is mounted
// later, the first where /etc has become read-only.
func recallEither(instance string, read func(path string) Recall) Recall {
	early, other := read(Early), read(Path)
	switch {
	case early.For(instance).Known() && other.For(instance).Known() && other.Name.Since.After(early.Name.Since):
		return other
	case early.For(instance).Known():
		return early
	case other.For(instance).Known():
		return other
	case early.Known() || !other.Known() && early.Why != "":
		return early
	}
	return other
}

// since is a date for an operator; empty where it is not known.
func since(t time.Time) string {
	if t.IsZero() || t.Year() < 2015 { // before Talos: a clock that was not set
		return ""
	}
	return " since " + t.UTC().Format("2006-01-02 15:04 MST")
}
