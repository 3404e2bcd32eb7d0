//go:build linux

package memory

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// The files that Talos keeps on STATE (its pkg/machinery/constants).
const (
	fileConfig   = "config.yaml"           // the machine configuration
	filePlatform = "platform-network.yaml" // what the platform said last
)

// The keys that are read. A name with a domain stands whole in metadata, and in two parts elsewhere.
const (
	keyField    key = "machine/network/hostname" // Talos up to 1.11, and later ones that were upgraded
	keyKind     key = "kind"
	keyHostname key = "hostname" // of a document of the kind HostnameConfig, from 1.12 on
	keyName     key = "metadata/hostname"
	keyInstance key = "metadata/instanceId"
)

// volume is a file system to read from.
type volume interface {
	open(name string) (*os.File, error)
	close() error
}

// talos reads what a Talos remembers.
type talos struct {
	sys, dev string // where sysfs and devtmpfs are mounted
	mount    func(device string) (volume, error)
}

// most is how many partitions of one label are looked at.
const most = 4

// recall reads these partitions STATE. There is one, as a rule: where there are several, say since a disk was copied, the
// one counts that is of this instance.
func (t talos) recall(states []partition, instance string) Recall {
	var first *Recall
	for _, p := range states[:min(len(states), most)] {
		r := t.state(p)
		if len(states) == 1 {
			return r
		}
		if r.Known() && r.Name.InstanceID == instance {
			return r
		}
		if r.Known() {
			// Another machine's: neither its name nor what its operator says is ours.
			r.Explicit, r.ExplicitFrom = "", ""
		}
		if first == nil || r.Sealed && !first.Sealed || r.Explicit != "" && first.Explicit == "" {
			first = &r
		}
	}
	if first == nil {
		return Recall{}
	}
	return *first
}

// state reads one partition.
func (t talos) state(p partition) Recall {
	at := labelState + " (" + p.device + ")"
	device := filepath.Join(t.dev, p.device)
	kind, err := contentOf(device)
	switch {
	case err != nil:
		return Recall{Why: fmt.Sprintf("%s cannot be read: %v", at, err)}
	case kind == blank:
		return Recall{} // before the first boot has come so far
	case kind == luks:
		return Recall{Why: at + " is encrypted", Sealed: t.hasBooted()}
	case kind == unknown:
		return Recall{Why: at + " holds no file system of Talos"}
	}
	v, err := t.mount(device)
	if err != nil {
		return Recall{Why: fmt.Sprintf("%s cannot be mounted: %v", at, err)}
	}
	r := read(v, at)
	if err := v.close(); err != nil && r.Why == "" {
		r.Why = fmt.Sprintf("%s: %v", at, err)
	}
	return r
}

// hasBooted reports whether this Talos was past making its partitions: EPHEMERAL is filled after STATE is. It may be on
// another disk, and come a moment later.
func (t talos) hasBooted() bool {
	for range 3 {
		all, _ := partitions(t.sys)
		for _, p := range labelled(all, labelEphemeral) {
			if kind, err := contentOf(filepath.Join(t.dev, p.device)); err == nil && (kind == xfs || kind == luks) {
				return true
			}
		}
		time.Sleep(lookOften)
	}
	return false
}

// read reads both files. Of what goes wrong with them, the first is told, by the file's name and never by what is in it.
func read(v volume, at string) (r Recall) {
	wrong := func(file string, err error) {
		if err != nil && !errors.Is(err, fs.ErrNotExist) && r.Why == "" {
			r.Why = fmt.Sprintf("%s: %s: %v", at, file, err)
		}
	}
	found, _, err := readYAML(v, fileConfig, keyKind, keyHostname, keyField)
	wrong(fileConfig, err)
	for _, doc := range found {
		switch name := doc[keyHostname]; {
		case doc[keyKind] == "" && doc[keyField] != "":
			r.Explicit, r.ExplicitFrom = doc[keyField], "machine.network.hostname in the machine configuration"
		case doc[keyKind] == "HostnameConfig" && name != "":
			r.Explicit, r.ExplicitFrom = name, "HostnameConfig in the machine configuration"
		}
	}
	if r.Explicit != "" && !printable(r.Explicit) {
		r.Explicit, r.ExplicitFrom = "", "" // no name that Talos would take
	}
	found, modified, err := readYAML(v, filePlatform, keyName, keyInstance)
	wrong(filePlatform, err)
	if len(found) != 1 {
		return r
	}
	n := Name{Hostname: strings.TrimSpace(found[0][keyName]), InstanceID: strings.TrimSpace(found[0][keyInstance]), Since: modified}
	switch {
	case n.Hostname == "": // the platform gave none
	case n.valid() != nil:
		wrong(filePlatform, errors.New("it names no instance of a valid name"))
	default:
		r.Name, r.From = n, at
	}
	return r
}

// printable reports whether a name is fit for a console.
func printable(s string) bool {
	return len(s) <= 253 && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// readYAML reads values from a file, and when that was written.
func readYAML(v volume, file string, keys ...key) (found []map[key]string, modified time.Time, err error) {
	f, err := v.open(file)
	if err != nil {
		return nil, modified, err
	}
	defer f.Close() // opened for reading
	text, err := bounded(f)
	if err != nil {
		return nil, modified, err
	}
	if info, err := f.Stat(); err == nil {
		modified = info.ModTime() // Talos writes it only where it has changed
	}
	found, err = scalars(text, keys...)
	return found, modified, err
}
