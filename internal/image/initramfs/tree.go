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

	"github.com/nametag-boot/nametag/internal/image/limit"
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

func (n *Node) kind() uint32 { return n.Mode & typeMask }

// IsDir reports whether it is a folder.
func (n *Node) IsDir() bool { return n.kind() == typeDir }

// IsRegular reports whether it is a regular file.
func (n *Node) IsRegular() bool { return n.kind() == typeFile }

// IsLink reports whether it is a symbolic link.
func (n *Node) IsLink() bool { return n.kind() == typeLink }

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

	steps, seen int64 // what lookups cost, in steps of limit.Steps, and how much of it newSteps has told
}

// hardLink is what the kernel knows a file of several names by, within one archive. What it keeps is the first name.
type hardLink struct{ major, minor, ino, kind uint32 }

func newTree() *tree {
	return &tree{root: &Node{Mode: typeDir | 0o755, Links: 1}, hard: map[hardLink]string{}}
}

// forgetLinks ends what hard links are known by: another archive begins.
func (t *tree) forgetLinks() {
	if len(t.hard) > 0 {
		t.hard = map[hardLink]string{} // to clear a large one takes time, each time
	}
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

// newSteps is what lookups have cost since it was last asked.
func (t *tree) newSteps() int64 {
	n := t.steps - t.seen
	t.seen = t.steps
	return n
}

// walk is a path that is gone along: what is still to go of it, and in front of that what is of the links that it led to.
type walk []string

// push puts a path in front. What ends in slashes and dots leads where it leads without them.
func (w *walk) push(path string) {
	for {
		short := strings.TrimSuffix(strings.TrimRight(path, "/"), "/.")
		if short == path || short == "." {
			break
		}
		path = short
	}
	if path = strings.TrimLeft(path, "/"); path != "" && path != "." {
		*w = append(*w, path)
	}
}

// next takes the next name; "" at the end.
func (w *walk) next() string {
	if len(*w) == 0 {
		return ""
	}
	top := &(*w)[len(*w)-1]
	name, rest, _ := strings.Cut(*top, "/")
	if *top = strings.TrimLeft(rest, "/"); *top == "" {
		*w = (*w)[:len(*w)-1]
	}
	return name
}

// lookup finds what a path leads to, through symbolic links. With last, a link at its end is followed too. Where only
// the last name is missing, the folder and that name come with fs.ErrNotExist.
func (t *tree) lookup(name string, last bool) (folder *Node, base string, n *Node, err error) {
	var trail []*Node // the folders above
	folder, links := t.root, 0
	var todo walk
	todo.push(name)
	for {
		part := todo.next()
		t.steps += limit.Steps(part)
		switch part {
		case "":
			return folder, ".", folder, nil
		case ".":
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
		final := len(todo) == 0
		child := folder.children[part]
		switch {
		case child == nil && final:
			return folder, part, nil, fs.ErrNotExist
		case child == nil:
			return nil, "", nil, fs.ErrNotExist
		case child.IsLink() && (!final || last):
			if links++; links > maxLinks {
				return nil, "", nil, errLoop
			}
			if strings.HasPrefix(child.Target, "/") {
				folder, trail = t.root, nil
			}
			t.steps += limit.Steps(child.Target)
			todo.push(child.Target)
		case final:
			return folder, part, child, nil
		case !child.IsDir():
			return nil, "", nil, errNotDir
		default:
			trail, folder = append(trail, folder), child
		}
	}
}

// put unpacks one entry as the kernel does (do_name, do_symlink in init/initramfs.c). What the kernel drops is counted as
// lost.
func (t *tree) put(name string, h *header, fresh *Node) {
	var kept bool
	// What ends in a slash or a dot can be a folder only, and a link in its place is followed.
	if last := name[strings.LastIndexByte(name, '/')+1:]; last == "" || last == "." || last == ".." {
		kept = t.putFolder(name, last, h, fresh)
	} else {
		kept = t.doName(name, h, fresh)
	}
	if !kept {
		t.lost++
	}
}

// putFolder is put for a name that can be a folder's only, given what stands behind its last slash.
func (t *tree) putFolder(name, last string, h *header, fresh *Node) bool {
	if name == "" || !fresh.IsDir() {
		return false
	}
	_, _, n, err := t.lookup(name, true)
	if err == nil {
		if n.IsDir() {
			n.own(fresh)
		}
		return n.IsDir()
	}
	short := strings.TrimRight(name, "/")
	if _, _, there, _ := t.lookup(short, false); there != nil || last != "" {
		return false
	}
	return t.doName(short, h, fresh)
}

// A place is where an entry goes: a folder, the name in it, and what has that name already, or nil.
type place struct {
	folder *Node
	base   string
	old    *Node
}

// insert gives a node the name.
func (p *place) insert(n *Node) {
	if p.folder.children == nil {
		p.folder.children = map[string]*Node{}
	}
	n.Links++
	p.folder.children[p.base] = n
}

// cleanPath is clean_path: what has the name and is of another type is taken away. It reports whether that was possible;
// a folder with something in it stays.
func (p *place) cleanPath(kind uint32) bool {
	if p.old == nil || p.old.kind() == kind {
		return true
	}
	if p.old.IsDir() && len(p.old.children) > 0 {
		return false
	}
	p.old.Links--
	delete(p.folder.children, p.base)
	p.old = nil
	return true
}

// doName is do_name, and do_symlink. It reports whether the kernel keeps the entry.
func (t *tree) doName(name string, h *header, fresh *Node) bool {
	folder, base, old, err := t.lookup(name, false)
	key := hardLink{h.major, h.minor, h.ino, h.kind()}
	first, known := t.hard[key]
	if h.nlink >= 2 && !known && !fresh.IsDir() && !fresh.IsLink() {
		t.hard[key] = name
	}
	if err != nil && folder == nil {
		return false
	}
	at := &place{folder, base, old}
	switch {
	case fresh.IsDir():
		return at.makeDir(fresh)
	case fresh.IsLink():
		return at.makeLink(fresh)
	}
	free := at.cleanPath(fresh.kind())
	if h.nlink >= 2 && known {
		return t.maybeLink(at, first, fresh)
	}
	if !free {
		return false
	}
	if at.old == nil {
		at.insert(fresh)
		return true
	}
	// The same file gets new content, under all its names.
	at.old.content(fresh)
	at.old.own(fresh)
	return true
}

func (p *place) makeDir(fresh *Node) bool {
	if !p.cleanPath(typeDir) {
		return false
	}
	if p.old == nil {
		p.insert(fresh)
		return true
	}
	p.old.own(fresh) // mkdir fails, chown and chmod do not
	return true
}

func (p *place) makeLink(fresh *Node) bool {
	if !p.cleanPath(0) {
		return false
	}
	p.insert(fresh)
	return true
}

// maybeLink is maybe_link: this name goes first, then it is made one of whatever has the first name now.
func (t *tree) maybeLink(at *place, first string, fresh *Node) bool {
	if !at.cleanPath(0) {
		return false
	}
	_, _, n, err := t.lookup(first, false)
	if err != nil || n.IsDir() {
		return false
	}
	at.insert(n)
	if fresh.IsRegular() && n.IsRegular() {
		if fresh.Size > 0 {
			n.content(fresh)
		}
		n.Mode, n.UID, n.GID = fresh.Mode, fresh.UID, fresh.GID
	}
	return true
}

// own takes over another's mode, owner and time.
func (n *Node) own(from *Node) {
	n.Mode, n.UID, n.GID, n.MTime = from.Mode, from.UID, from.GID, from.MTime
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
