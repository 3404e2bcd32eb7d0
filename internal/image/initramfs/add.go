package initramfs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Options are what the caller of Add may choose. The zero value is right: nametag as /init, compressed as the image is.
type Options struct {
	Way Way
	// Path is where RDInit puts the helper, without a leading slash; "": DefaultPath.
	Path string
	// Format is how our archive is compressed; nil: as the last compressed archive of the image, which its kernel can
	// read; not at all, if there is none. Behind xz it is an xz stream that packs nothing, since to pack a helper would
	// take longer than all the rest.
	Format *Format
}

// A Change is what Add or Remove did.
type Change struct {
	// Changed is false if the image was already as asked; then nothing was written.
	Changed bool `json:"changed"`
	// Replaced says that an earlier archive of ours was taken out.
	Replaced bool `json:"replaced"`
	// Segment is our archive, as it stands now; zero after Remove. What it unpacks to is not counted.
	Segment Segment `json:"segment"`
	// Before and After are the sizes of the image.
	Before int64 `json:"before"`
	After  int64 `json:"after"`
}

// Add writes the image to w with the helper in it, in an archive of its own at the end. An earlier one of ours is
// replaced. If the image has this helper in this way already, nothing is written. It returns a *RefusedError if the
// image is not one to put a helper in.
func (im *Image) Add(ctx context.Context, w io.Writer, h *Helper, o Options) (Change, error) {
	c := Change{Before: im.Size}
	if o.Way == AsInit {
		o.Path = initName
	} else if o.Path = strings.TrimPrefix(path.Clean("/"+o.Path), "/"); o.Path == "" {
		o.Path = DefaultPath
	}
	begin, end, err := im.ours()
	if err != nil {
		return c, err
	}
	base := im.without()
	a, err := base.plan(h, o)
	if err != nil {
		return c, err
	}
	if same, err := im.has(base, a); same || err != nil {
		c.After = im.Size
		return c, err
	}
	c.Changed, c.Replaced = true, begin < im.Size

	format, last, zeros := base.tail(begin)
	zeros += im.Size - end // what stood behind ours moves in front
	packer := format.fastPacker
	if o.Format != nil {
		format = *o.Format
		packer = format.packer
	}
	out := &counter{ctx: ctx, w: w}
	if err := im.copy(out, begin, end); err != nil {
		return c, err
	}
	a.marker.Padding = gap(last, out.n, zeros, format)
	if _, err := out.Write(make([]byte, a.marker.Padding)); err != nil {
		return c, err
	}
	c.Segment = Segment{Offset: out.n, Format: format, Entries: len(a.marker.Entries), Added: &a.marker}
	pack, err := packer(out)
	if err != nil {
		return c, err
	}
	if err := a.write(base, h, pack); err != nil {
		return c, err
	}
	if err := pack.Close(); err != nil {
		return c, err
	}
	c.Segment.Size, c.After = out.n-c.Segment.Offset, out.n
	return c, nil
}

// Remove writes the image to w as it was before Add. It returns ErrNotAdded if nothing was added, and a *RefusedError if
// that can not be taken out any more.
func (im *Image) Remove(ctx context.Context, w io.Writer) (Change, error) {
	c := Change{Before: im.Size}
	if im.Added() == nil {
		return c, ErrNotAdded
	}
	begin, end, err := im.ours()
	if err != nil {
		return c, err
	}
	out := &counter{ctx: ctx, w: w}
	err = im.copy(out, begin, end)
	c.Changed, c.After = true, out.n
	return c, err
}

// copy writes the image without what lies between begin and end.
func (im *Image) copy(w io.Writer, begin, end int64) error {
	buffer := make([]byte, 1<<20)
	for _, part := range []*io.SectionReader{io.NewSectionReader(im.src, 0, begin), io.NewSectionReader(im.src, end, im.Size-end)} {
		n, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{part}, buffer)
		if err != nil {
			return err
		}
		if n != part.Size() {
			return fmt.Errorf("initramfs: the image became shorter while it was read: %w", io.ErrUnexpectedEOF)
		}
	}
	return nil
}

// CopyTo writes the image as it is.
func (im *Image) CopyTo(w io.Writer) error { return im.copy(w, im.Size, im.Size) }

// tail is what stands in front of where our archive goes: the compression that kernels of this image can read, the last
// archive's, and how many zero bytes follow that.
func (im *Image) tail(end int64) (readable Format, last Segment, zeros int64) {
	for _, s := range im.Segments {
		if s.Added != nil {
			continue
		}
		if s.Format != Plain {
			readable = s.Format
		}
		last, zeros = s, end-s.End()
	}
	return readable, last, zeros
}

// gap is how many zero bytes must come in between, so that the kernel finds an archive of format next behind an offset
// that lies zeros bytes behind the last one. It is none between packed archives: the tools that unpack them take zeros for
// damage.
func gap(last Segment, offset, zeros int64, next Format) int64 {
	step := int64(1)
	if next == Plain || last.Format == Plain { // those begin at a multiple of four, and so does what follows them
		step = 4
	}
	n := -offset & (step - 1)
	if last.Format != LZ4 || next == LZ4 && zeros == 0 && last.Unpacked%4 == 0 {
		return n // lz4 behind lz4: it reads on anyway, and old kernels know no other end
	}
	for zeros+n < 4 {
		n += step
	}
	return n
}

// counter counts what is written, and ends when its context does.
type counter struct {
	ctx context.Context //nolint:containedctx // of one call
	w   io.Writer
	n   int64
}

func (c *counter) Write(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// archive is what is to be appended.
type archive struct {
	marker  Added
	devices []string // /dev/null and the folder that it needs, where they are not there
	folders []string // that are not there
	init    *Node    // the image's own /init
	unshare bool     // /init is a hard link: what is written into it would be written into the others
}

// plan decides what goes into our archive, from the image without it.
func (im *Image) plan(h *Helper, o Options) (*archive, error) {
	a := &archive{marker: Added{Schema: schema, Way: o.Way, Path: o.Path, Helper: h.SHA256, Entries: []string{markerName}}}
	_, _, first, err := im.tree.lookup(initName, false)
	if err != nil {
		return nil, refuse("is it an initramfs, and the whole of it?", "the image has no /init")
	}
	program := first
	if first.IsLink() {
		if program, err = im.Lookup(initName); err != nil {
			return nil, refuse("", "the image's /init is a link to %q, which leads nowhere: %v", first.Target, err)
		}
	}
	if !program.IsRegular() || program.Mode&0o111 == 0 || program.Size == 0 {
		return nil, refuse("", "the image's /init is not a program: its mode is %#o, its size %d", program.Mode, program.Size)
	}
	if m := im.Machine(program); m != 0 && m != h.Machine {
		return nil, refuse("give the one for "+MachineName(m)+" with --helper", "the image's /init is for %s and the helper for %s", MachineName(m), MachineName(h.Machine))
	}
	if _, _, n, err := im.tree.lookup(markerName, false); err == nil {
		return nil, refuse("begin with the image as it was before nametag was added", "the image has a /%s of %d bytes that is not in an archive of nametag's own: it was repacked", markerName, n.Size)
	}

	a.devices = im.devices()
	a.marker.Entries = append(a.marker.Entries, a.devices...)
	if o.Way == RDInit {
		if long := func(part string) bool { return len(part) > maxPart }; o.Path == markerName || o.Path == trailer || strings.HasPrefix(o.Path+"/", nullName+"/") ||
			len(o.Path) >= maxName || strings.ContainsRune(o.Path, 0) || slices.ContainsFunc(strings.Split(o.Path, "/"), long) {
			return nil, refuse("give another --path", "%q cannot be the name of the helper", "/"+o.Path)
		}
		if _, _, _, err := im.tree.lookup(o.Path, false); err == nil {
			return nil, refuse("give another --path, or use the image as it is", "the image has a /%s already, which this command did not add", o.Path)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, refuse("give another --path", "/%s: %v", o.Path, err)
		}
		if a.folders, err = im.tree.missing(o.Path); err != nil {
			return nil, err
		}
		a.folders = slices.DeleteFunc(a.folders, func(dir string) bool { return slices.Contains(a.devices, dir) })
		a.marker.Entries = append(append(a.marker.Entries, a.folders...), o.Path)
		return a, nil
	}
	if _, _, _, err := im.tree.lookup(nextName, false); err == nil {
		return nil, refuse("use --rdinit", "the image has an /%s of its own", nextName)
	}
	a.init, a.unshare = first, first.Links > 1
	a.marker.Entries = append(a.marker.Entries, nextName)
	if a.unshare {
		a.marker.Entries = append(a.marker.Entries, initName)
	}
	a.marker.Entries = append(a.marker.Entries, initName)
	return a, nil
}

// devices are the entries that make a /dev/null: none where the image has something of that name, or no place for it.
func (im *Image) devices() []string {
	if _, _, _, err := im.tree.lookup(nullName, false); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	folders, err := im.tree.missing(nullName)
	if err != nil {
		return nil
	}
	return append(folders, nullName)
}

// write writes the archive. base is the image that /init is taken from.
func (a *archive) write(base *Image, h *Helper, w io.Writer) error {
	marker, err := json.Marshal(a.marker)
	if err != nil {
		return err
	}
	marker = append(marker, '\n')
	out := &archiveWriter{w: w}
	if err := out.write(markerName, header{mode: typeFile | 0o444, size: uint32(len(marker))}, bytes.NewReader(marker)); err != nil { //nolint:gosec // a few hundred bytes
		return err
	}
	folder := func(name string) error { return out.write(name, header{mode: typeDir | 0o755, nlink: 2}, nil) }
	for _, name := range a.devices {
		if name != nullName {
			err = folder(name)
		} else {
			err = out.write(name, header{mode: typeChar | 0o666, rmajor: 1, rminor: 3}, nil)
		}
		if err != nil {
			return err
		}
	}
	link := func(name, target string) error {
		return out.write(name, header{mode: typeLink | 0o777, size: uint32(len(target))}, strings.NewReader(target)) //nolint:gosec // at most maxName
	}
	switch n := a.init; {
	case n == nil:
		for _, dir := range a.folders {
			if err := folder(dir); err != nil {
				return err
			}
		}
	case n.IsLink(): // what it leads to is meant as seen from /, and so it is from here
		if err := link(nextName, n.Target); err != nil {
			return err
		}
	default:
		content, err := base.Open(n)
		if err != nil {
			return err
		}
		defer content.Close()
		if err := out.write(nextName, header{mode: n.Mode, uid: n.UID, gid: n.GID, mtime: n.MTime, size: uint32(n.Size)}, content); err != nil { //nolint:gosec // it comes from such a header
			return err
		}
	}
	if a.unshare { // a name of another type is taken away before the next one is made
		if err := link(initName, nextName); err != nil {
			return err
		}
	}
	if err := out.write(a.marker.Path, header{mode: typeFile | 0o755, size: uint32(h.Size)}, h.open()); err != nil { //nolint:gosec // NewHelper saw to it
		return err
	}
	return out.close()
}

// has says whether the image has what the plan would put in, to the byte.
func (im *Image) has(base *Image, a *archive) (bool, error) {
	old := im.Added()
	if old == nil || old.Way != a.marker.Way || old.Path != a.marker.Path || old.Helper != a.marker.Helper || !slices.Equal(old.Entries, a.marker.Entries) {
		return false, nil
	}
	_, _, helper, err := im.tree.lookup(a.marker.Path, false)
	if err != nil || !helper.IsRegular() {
		return false, nil //nolint:nilerr // then it is not there
	}
	if sum, err := im.hash(helper); err != nil || sum != a.marker.Helper {
		return false, err
	}
	if a.init == nil {
		return true, nil
	}
	_, _, next, err := im.tree.lookup(nextName, false)
	if err != nil || next.Mode != a.init.Mode || next.Target != a.init.Target {
		return false, nil //nolint:nilerr // then it is not there
	}
	if next.IsLink() {
		return true, nil
	}
	want, err := base.hash(a.init)
	if err != nil {
		return false, err
	}
	got, err := im.hash(next)
	return got == want, err
}

func (im *Image) hash(n *Node) (string, error) {
	content, err := im.Open(n)
	if err != nil {
		return "", err
	}
	defer content.Close()
	return hash(content)
}

// Open reads a regular file's content. Where it was not kept, its archive is unpacked once more up to there.
func (im *Image) Open(n *Node) (io.ReadCloser, error) {
	if n.Size == int64(len(n.kept)) {
		return io.NopCloser(bytes.NewReader(n.kept)), nil
	}
	s := im.Segments[n.Segment]
	if s.Format == Plain {
		return io.NopCloser(io.NewSectionReader(im.src, s.Offset+n.at, n.Size)), nil
	}
	in, err := im.idle.open(s.Format, im.src, s.Offset, im.Size)
	if err != nil {
		return nil, err
	}
	c := &content{Reader: io.LimitReader(in, n.Size), close: in.close}
	if _, err := io.CopyN(io.Discard, in, n.at); err != nil {
		in.close()
		return nil, truncated(err)
	}
	return c, nil
}

type content struct {
	io.Reader
	close func()
}

func (c *content) Close() error {
	if c.close != nil {
		c.close()
		c.close = nil // the decoder is another's now
	}
	return nil
}
