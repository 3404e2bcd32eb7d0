package initramfs

import (
	"debug/elf"
	"errors"
	"io/fs"
	"iter"
	"maps"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A Node is a file, folder, link or device of what an image unpacks to. Hard links are the same Node under several
// names.
type Node struct {
	Mode     uint32 // type and permissions, as in the archive (S_IFMT and 07777)
	UID, GID uint32
	MTime    uint32 // seconds since 1970
	Size     int64  // of a regular file's content
	Target   string // of a symbolic link
	Links    int    // how many names it has
	Segment  int    // the archive that its content comes from
	// Machine is the processor that an ELF program is for; 0 for anything else.
	Machine elf.Machine
	// Interpreter is what a script names behind its #!; empty for anything else.
	Interpreter string

	at       int64  // where the content begins in what the archive unpacks to
	kept     []byte // the content, of a small /init
	children map[string]*Node
}

func (n *Node) kind() uint32 { return n.Mode & unix.S_IFMT }

// IsDir reports whether it is a folder.
func (n *Node) IsDir() bool { return n.kind() == unix.S_IFDIR }

// IsRegular reports whether it is a regular file.
func (n *Node) IsRegular() bool { return n.kind() == unix.S_IFREG }

// IsLink reports whether it is a symbolic link.
func (n *Node) IsLink() bool { return n.kind() == unix.S_IFLNK }

// Children is what is in a folder, by name.
func (n *Node) Children() iter.Seq2[string, *Node] {
	return func(yield func(string, *Node) bool) {
		for _, name := range slices.Sorted(maps.Keys(n.children)) {
			if !yield(name, n.children[name]) {
				return
			}
		}
	}
}

var (
	errNotDir = errors.New("not a folder")
	errLoop   = errors.New("too many symbolic links")
	errLong   = errors.New("a name that is too long")
)

// tree is what the kernel unpacks into.
type tree struct {
	root *Node
	lost int // entries that the kernel drops: their folder is missing, or the name is a folder's
	hard map[hardLink]string
}

// hardLink is what the kernel knows a file of several names by, within one archive. What it keeps is the first name.
type hardLink struct{ major, minor, ino, kind uint32 }

func newTree() *tree {
	return &tree{root: &Node{Mode: unix.S_IFDIR | 0o755, Links: 1}, hard: map[hardLink]string{}}
}

// clone is a copy that shares nothing that put changes.
func (t *tree) clone() *tree {
	copies := map[*Node]*Node{}
	var copied func(*Node) *Node
	copied = func(n *Node) *Node {
		if c := copies[n]; c != nil {
			return c
		}
		c := *n
		copies[n] = &c
		if n.children != nil {
			c.children = make(map[string]*Node, len(n.children))
			for name, child := range n.children {
				c.children[name] = copied(child)
			}
		}
		return &c
	}
	return &tree{root: copied(t.root), lost: t.lost, hard: map[hardLink]string{}}
}

// lookup finds what a path leads to, through symbolic links. With last, a link at its end is followed too. Where only
// the last name is missing, the folder and that name come with fs.ErrNotExist.
func (t *tree) lookup(name string, last bool) (folder *Node, base string, n *Node, err error) {
	var trail []*Node // the folders above
	folder, links := t.root, 0
	todo := strings.Split(name, "/")
	for len(todo) > 0 {
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			if len(trail) > 0 {
				folder, trail = trail[len(trail)-1], trail[:len(trail)-1]
			}
			continue
		}
		if len(part) > maxPart {
			return nil, "", nil, errLong
		}
		final := !slices.ContainsFunc(todo, func(s string) bool { return s != "" && s != "." })
		child := folder.children[part]
		switch {
		case child == nil:
			if final {
				return folder, part, nil, fs.ErrNotExist
			}
			return nil, "", nil, fs.ErrNotExist
		case child.IsLink() && (!final || last):
			if links++; links > maxLinks {
				return nil, "", nil, errLoop
			}
			if strings.HasPrefix(child.Target, "/") {
				folder, trail = t.root, nil
			}
			todo = append(strings.Split(child.Target, "/"), todo...)
		case final:
			return folder, part, child, nil
		case !child.IsDir():
			return nil, "", nil, errNotDir
		default:
			trail, folder = append(trail, folder), child
		}
	}
	return folder, ".", folder, nil
}

// put does with an entry what init/initramfs.c does.
func (t *tree) put(name string, h *header, fresh *Node) {
	// What ends in a slash or a dot can be a folder only, and a link in its place is followed.
	if last := name[strings.LastIndexByte(name, '/')+1:]; last == "" || last == "." || last == ".." {
		_, _, n, err := t.lookup(name, true)
		switch short := strings.TrimRight(name, "/"); {
		case name == "", !fresh.IsDir(), err == nil && !n.IsDir():
			t.lost++
		case err == nil:
			n.Mode, n.UID, n.GID, n.MTime = fresh.Mode, fresh.UID, fresh.GID, fresh.MTime
		default:
			if _, _, there, _ := t.lookup(short, false); there != nil || last != "" {
				t.lost++
				return
			}
			t.put(short, h, fresh)
		}
		return
	}
	folder, base, old, err := t.lookup(name, false)
	key := hardLink{h.major, h.minor, h.ino, h.kind()}
	first, known := t.hard[key]
	if h.nlink >= 2 && !known && !fresh.IsDir() && !fresh.IsLink() {
		t.hard[key] = name
	}
	if err != nil && folder == nil {
		t.lost++
		return
	}
	makeWay := func(kind uint32) bool { // clean_path: what is of another type is taken away
		if old == nil || old.kind() == kind {
			return true
		}
		if old.IsDir() && len(old.children) > 0 {
			return false
		}
		old.Links--
		delete(folder.children, base)
		old = nil
		return true
	}
	insert := func(n *Node) {
		if folder.children == nil {
			folder.children = map[string]*Node{}
		}
		n.Links++
		folder.children[base] = n
	}

	switch {
	case fresh.IsDir():
		if !makeWay(unix.S_IFDIR) {
			t.lost++
			return
		}
		if old == nil {
			insert(fresh)
		} else { // mkdir fails, chown and chmod do not
			old.Mode, old.UID, old.GID, old.MTime = fresh.Mode, fresh.UID, fresh.GID, fresh.MTime
		}
		return
	case fresh.IsLink():
		if !makeWay(0) {
			t.lost++
			return
		}
		insert(fresh)
		return
	}

	free := makeWay(fresh.kind())
	if h.nlink >= 2 && known {
		// maybe_link: this name goes first, then it is made one of whatever has the first name now.
		if !makeWay(0) {
			t.lost++
			return
		}
		_, _, n, err := t.lookup(first, false)
		if err != nil || n.IsDir() {
			t.lost++
			return
		}
		insert(n)
		if fresh.IsRegular() && n.IsRegular() {
			if fresh.Size > 0 {
				n.content(fresh)
			}
			n.Mode, n.UID, n.GID = fresh.Mode, fresh.UID, fresh.GID
		}
		return
	}
	if !free {
		t.lost++
		return
	}
	if old == nil {
		insert(fresh)
		return
	}
	// The same file gets new content, under all its names.
	old.content(fresh)
	old.Mode, old.UID, old.GID, old.MTime = fresh.Mode, fresh.UID, fresh.GID, fresh.MTime
}

// content takes over another's.
func (n *Node) content(from *Node) {
	n.Size, n.Segment, n.at, n.kept, n.Machine, n.Interpreter = from.Size, from.Segment, from.at, from.kept, from.Machine, from.Interpreter
}

// machine is the processor that a program is for, by way of its interpreter if it is a script; 0 if that is not known.
func (t *tree) machine(n *Node) elf.Machine {
	for range 4 { // BINPRM_MAX_RECURSION, about
		if n.Machine != 0 || n.Interpreter == "" {
			break
		}
		_, _, next, err := t.lookup(n.Interpreter, true)
		if err != nil {
			return 0
		}
		n = next
	}
	return n.Machine
}

// missing is the folders above a path that are not there, the upper first. The path is one that the kernel would not
// find its way to if a name in it leads nowhere or to a file.
func (t *tree) missing(name string) ([]string, error) {
	var missing []string
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		_, _, n, err := t.lookup(dir, true)
		switch {
		case err == nil && n.IsDir():
			slices.Reverse(missing)
			return missing, nil
		case err == nil:
			return nil, refuse("give another --path", "%q is in the image, and not a folder", dir)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, refuse("give another --path", "%q: %v", dir, err)
		}
		if _, _, n, err := t.lookup(dir, false); err == nil && n.IsLink() {
			return nil, refuse("give another --path", "%q is a link in the image that leads nowhere", dir)
		}
		missing = append(missing, dir)
	}
	slices.Reverse(missing)
	return missing, nil
}
