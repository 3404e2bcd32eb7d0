package initramfs

import (
	"bufio"
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// An Image is what Read found. It reads from the source again for contents, so that has to stay as it was.
type Image struct {
	Size     int64
	Segments []Segment
	Entries  int // of all archives
	// Lost is how many entries the kernel drops when it unpacks, as their folder is missing.
	Lost int

	src  io.ReaderAt
	tree *tree
	bare *tree     // the tree without what Add has appended; nil where that is nothing
	used sync.Pool // of *lz4Buffers
}

// A Segment is one archive of an image.
type Segment struct {
	Offset   int64  `json:"offset"`
	Size     int64  `json:"size"` // as it stands in the image
	Format   Format `json:"compression"`
	Unpacked int64  `json:"unpacked"`
	Entries  int    `json:"entries"`
	// Warning says why kernels do not unpack it, although other tools do; empty as a rule.
	Warning string `json:"warning,omitempty"`
	// Added is set for an archive that Add has appended.
	Added *Added `json:"nametag,omitempty"`

	names    []string // of an archive that begins with our marker
	trailers int
}

// End is the offset behind it.
func (s Segment) End() int64 { return s.Offset + s.Size }

// runsOn says whether kernels read on through it into what begins at an offset.
func (s Segment) runsOn(offset int64) bool { return s.Format == LZ4 && s.End() == offset }

// Root is the top folder of what the image unpacks to.
func (im *Image) Root() *Node { return im.tree.root }

// Warnings says of each archive that kernels do not unpack why, and where it stands.
func (im *Image) Warnings() []string {
	var all []string
	for _, s := range im.Segments {
		if s.Warning != "" {
			all = append(all, fmt.Sprintf("the archive at byte %d: %s", s.Offset, s.Warning))
		}
	}
	return all
}

// Lookup finds what a path leads to in the unpacked image, through symbolic links.
func (im *Image) Lookup(name string) (*Node, error) {
	_, _, n, err := im.tree.lookup(name, true)
	return n, err
}

// Machine is the processor that a program in the image is for, by way of its interpreter if it is a script; 0 if that
// cannot be told.
func (im *Image) Machine(n *Node) elf.Machine { return im.tree.machine(n) }

// Read reads an image of size bytes to its end and makes sure that the kernel can unpack it. What it cannot is a
// *FormatError. progress, if not nil, is told at which byte of the image it reads; it must be quick.
func Read(ctx context.Context, src io.ReaderAt, size int64, progress func(at int64)) (*Image, error) {
	s := &scanner{ctx: ctx, im: &Image{Size: size, src: &watched{ctx, src, progress}, tree: newTree()}}
	if err := s.scan(); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, err
	}
	s.im.Lost = s.im.tree.lost
	return s.im, nil
}

// without is the image as it was before Add. It has only what is needed to read from it.
func (im *Image) without() *Image {
	if im.bare == nil {
		return im
	}
	return &Image{Size: im.Size, Segments: im.Segments, src: im.src, tree: im.bare}
}

// watched ends reading when its context does, and tells how far it is.
type watched struct {
	ctx      context.Context //nolint:containedctx // of one image
	r        io.ReaderAt
	progress func(int64) // may be nil
}

func (w *watched) ReadAt(p []byte, at int64) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	if w.progress != nil {
		w.progress(at)
	}
	return w.r.ReadAt(p, at)
}

type scanner struct {
	ctx      context.Context //nolint:containedctx // of one call
	im       *Image
	names    int   // bytes of names so far
	unpacked int64 // bytes of content so far, and of zeros between archives
}

// scan goes through the archives as unpack_to_rootfs does.
func (s *scanner) scan() error {
	var at int64
	afterPlain := false
	for {
		begin, head, err := s.nextNonZero(at)
		if err != nil {
			return err
		}
		if len(head) == 0 {
			break
		}
		format, foreign := detect(head, begin%4 == 0)
		if foreign == "" && afterPlain && begin%4 != 0 {
			foreign = "an archive that does not begin at a multiple of four behind one that is not compressed"
		}
		if foreign != "" {
			return &FormatError{Offset: begin, Within: -1, Found: show(head), Reason: foreign}
		}
		if len(s.im.Segments) == maxArchives {
			return &FormatError{Offset: begin, Within: -1, Reason: fmt.Sprintf("more than %d archives", maxArchives)}
		}
		segment := Segment{Offset: begin, Format: format}
		if i := len(s.im.Segments) - 1; i >= 0 && format == LZ4 && s.im.Segments[i].runsOn(begin) && s.im.Segments[i].Unpacked%4 != 0 {
			return &FormatError{Offset: begin, Within: -1, Found: show(head), Reason: "lz4 right behind lz4, which the kernel takes for one, and the first does not unpack to a multiple of four bytes"}
		}
		if err := s.segment(&segment); err != nil {
			return err
		}
		if format == XZ { // and so its header is there
			segment.Warning = xzWarning(head)
		}
		s.im.Segments = append(s.im.Segments, segment)
		at, afterPlain = segment.End(), format == Plain
	}
	if len(s.im.Segments) == 0 {
		return &FormatError{Within: -1, Reason: "there is no archive in it"}
	}
	return nil
}

// nextNonZero finds the first byte from an offset on that is not zero, and what stands there; nothing at the end.
func (s *scanner) nextNonZero(at int64) (int64, []byte, error) {
	buffer := make([]byte, 4096)
	for at < s.im.Size {
		b := buffer[:min(int64(len(buffer)), s.im.Size-at)]
		if n, err := s.im.src.ReadAt(b, at); n < len(b) {
			return 0, nil, fmt.Errorf("initramfs: byte %d: %w", at+int64(n), truncated(err))
		}
		i := bytes.IndexFunc(b, func(r rune) bool { return r != 0 })
		if i < 0 {
			at += int64(len(b))
			continue
		}
		at += int64(i)
		head := make([]byte, min(16, s.im.Size-at))
		if n, err := s.im.src.ReadAt(head, at); n < len(head) {
			return 0, nil, fmt.Errorf("initramfs: byte %d: %w", at+int64(n), truncated(err))
		}
		return at, head, nil
	}
	return at, nil, nil
}

// segment reads one archive, or several in one compressed stream.
func (s *scanner) segment(seg *Segment) error {
	in, err := seg.Format.open(s.im.src, seg.Offset, s.im.Size, &s.im.used)
	if err != nil {
		return &FormatError{Offset: seg.Offset, Within: -1, Reason: seg.Format.String() + " that cannot be unpacked", Err: err}
	}
	defer in.close()
	t := newTape(in, seg.Format == Plain, s.im.Size-seg.Offset)
	for {
		if err := s.archive(t, seg); err != nil {
			return s.explain(err, t, seg)
		}
		if seg.Format == Plain {
			seg.Size, seg.Unpacked = t.at, t.at
			return nil
		}
		// Zero bytes, and then nothing or the next archive.
		begin := t.at
		head, err := t.nextNonZero(maxUnpacked - s.unpacked)
		if err != nil {
			return s.explain(err, t, seg)
		}
		s.unpacked += t.at - begin
		if len(head) == 0 {
			break
		}
		if head[0] != '0' || t.at%4 != 0 {
			return s.explain(&found{head, "something behind a cpio archive that is none, or none at a multiple of four"}, t, seg)
		}
	}
	seg.Size, seg.Unpacked = in.end()-seg.Offset, t.at
	return nil
}

// found is a failure that is about the bytes at hand.
type found struct {
	bytes  []byte
	reason string
}

func (f *found) Error() string { return f.reason }

// explain says where it happened.
func (s *scanner) explain(err error, t *tape, seg *Segment) error {
	e := &FormatError{Offset: seg.Offset, Format: seg.Format, Within: t.at}
	var f *found
	switch {
	case errors.As(err, &f):
		e.Reason, e.Found = f.reason, show(f.bytes)
	case errors.Is(err, io.ErrUnexpectedEOF):
		e.Reason = "the archive is cut off here"
		if seg.Format != Plain {
			e.Err = err
		}
	default:
		e.Reason, e.Err = "cannot be unpacked", err
	}
	return e
}

// archive reads entries up to the trailer.
func (s *scanner) archive(t *tape, seg *Segment) error {
	clear(s.im.tree.hard)
	for {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		name, last, err := s.entry(t, seg)
		if err != nil {
			return err
		}
		if last {
			seg.trailers++
			return nil
		}
		if seg.Entries++; seg.Added != nil && len(seg.names) <= maxOurEntries {
			seg.names = append(seg.names, name)
		}
		if s.im.Entries++; s.im.Entries > maxEntries {
			return fmt.Errorf("more than %d files", maxEntries)
		}
	}
}

// entry reads one entry; last is true for the trailer.
func (s *scanner) entry(t *tape, seg *Segment) (name string, last bool, err error) {
	head, err := t.peek(headerSize)
	if err != nil {
		return "", false, err
	}
	if m := string(head[:6]); m != magicNewc && m != magicCRC {
		reason := "no cpio header where one belongs"
		if m == foreign[0].magic {
			reason = foreign[0].name
		}
		return "", false, &found{slices.Clone(head), reason}
	}
	summed := string(head[:6]) == magicCRC
	var h header
	if err := h.parse(head); err != nil {
		return "", false, err
	}
	if h.nameSize == 0 || h.nameSize > maxName {
		return "", false, fmt.Errorf("a name of %d bytes; the kernel drops an entry whose name is longer than %d", h.nameSize, maxName)
	}
	if s.names += int(h.nameSize); s.names > maxNames {
		return "", false, fmt.Errorf("the names take more than %d bytes", maxNames)
	}
	if s.unpacked += int64(h.size); s.unpacked > maxUnpacked {
		return "", false, fmt.Errorf("it unpacks to more than %d bytes", int64(maxUnpacked))
	}
	if err := t.fits(headerSize + int64(h.nameSize) + int64(h.size)); err != nil {
		return "", false, err
	}
	if err := t.skip(headerSize); err != nil {
		return "", false, err
	}
	text := make([]byte, h.nameSize)
	if err := t.full(text); err != nil {
		return "", false, err
	}
	if text[len(text)-1] != 0 {
		return "", false, &found{text, "a name without its end"}
	}
	name = string(text[:bytes.IndexByte(text, 0)])
	if err := t.align(); err != nil {
		return "", false, err
	}

	n := &Node{
		Mode: h.mode & (unix.S_IFMT | 0o7777), UID: h.uid, GID: h.gid, MTime: h.mtime,
		Segment: len(s.im.Segments), at: t.at,
	}
	body := t.at + int64(h.size)
	var kept []byte
	switch {
	case name == trailer && n.IsLink():
		return "", false, fmt.Errorf("%q: a link, which does not end an archive", name)
	case name == trailer && (h.size == 0 || n.IsRegular()):
	case n.IsLink():
		if h.size == 0 || h.size > maxName {
			return "", false, fmt.Errorf("%q: a link of %d bytes", name, h.size)
		}
		target := make([]byte, h.size)
		if err := t.full(target); err != nil {
			return "", false, err
		}
		if s.names += len(target); s.names > maxNames {
			return "", false, fmt.Errorf("the names take more than %d bytes", maxNames)
		}
		target, _, _ = bytes.Cut(target, []byte{0})
		n.Target = string(target)
	case n.IsRegular():
		n.Size = int64(h.size)
		if err := s.look(t, n); err != nil {
			return "", false, err
		}
		marks := name == markerName && seg.Entries == 0 && n.Size <= maxMarker
		if marks || n.Size <= maxKept && path.Clean("/"+name) == "/"+initName {
			kept = make([]byte, n.Size)
			if err := t.full(kept); err != nil {
				return "", false, err
			}
		}
		if marks {
			if seg.Added = parseMarker(kept); seg.Added != nil && s.im.bare == nil {
				s.im.bare = s.im.tree.clone()
			}
		} else {
			n.kept = kept
		}
	case n.IsDir(), n.kind() == unix.S_IFCHR, n.kind() == unix.S_IFBLK, n.kind() == unix.S_IFIFO, n.kind() == unix.S_IFSOCK:
		if h.size > 0 { // then the kernel does not even look at the name
			return "", false, fmt.Errorf("%q: a folder or device with %d bytes of content", name, h.size)
		}
	default:
		return "", false, fmt.Errorf("%q: a mode of %#o, which is no type of file", name, h.mode)
	}
	if summed && n.IsRegular() {
		if err := t.sum(kept, body, h.sum); err != nil {
			return "", false, fmt.Errorf("%q: %w", name, err)
		}
	}
	if err := t.skip(body - t.at); err != nil {
		return "", false, err
	}
	if err := t.align(); err != nil {
		return "", false, err
	}
	if name == trailer {
		return "", true, nil
	}
	s.im.tree.put(name, &h, n)
	return name, false, nil
}

// look finds out what a file runs on, without taking its first bytes.
func (s *scanner) look(t *tape, n *Node) error {
	head, err := t.peek(int(min(n.Size, 128)))
	if err != nil {
		return err
	}
	switch {
	case len(head) >= 20 && string(head[:4]) == elf.ELFMAG:
		order := binary.ByteOrder(binary.LittleEndian)
		if elf.Data(head[elf.EI_DATA]) == elf.ELFDATA2MSB {
			order = binary.BigEndian
		}
		n.Machine = elf.Machine(order.Uint16(head[18:]))
	case bytes.HasPrefix(head, []byte("#!")):
		line, _, _ := bytes.Cut(head[2:], []byte{'\n'})
		if words := bytes.Fields(line); len(words) > 0 {
			n.Interpreter = string(words[0])
			s.names += len(words[0])
		}
	}
	return nil
}

// A tape is what an archive unpacks to, from front to back.
type tape struct {
	r       *bufio.Reader
	section io.Seeker // set for a plain archive: what is skipped need not be read
	at      int64
	size    int64 // of a plain archive, at most; negative: not known
}

func newTape(in *stream, plain bool, size int64) *tape {
	t := &tape{r: bufio.NewReaderSize(in, bufferSize), size: -1}
	if plain {
		t.section, t.size = in.Reader.(io.Seeker), size
	}
	return t
}

// fits says whether n more bytes can be there at all.
func (t *tape) fits(n int64) error {
	if t.size >= 0 && n > t.size-t.at {
		return io.ErrUnexpectedEOF
	}
	return nil
}

func (t *tape) peek(n int) ([]byte, error) {
	b, err := t.r.Peek(n)
	return b, truncated(err)
}

func (t *tape) full(p []byte) error {
	n, err := io.ReadFull(t.r, p)
	t.at += int64(n)
	return truncated(err)
}

func (t *tape) skip(n int64) error {
	if err := t.fits(n); err != nil {
		return err
	}
	for n > 0 {
		if ahead := n - int64(t.r.Buffered()); t.section != nil && ahead > bufferSize {
			if _, err := t.section.Seek(ahead, io.SeekCurrent); err != nil {
				return err
			}
			t.r.Reset(t.section.(io.Reader))
			t.at += n
			return nil
		}
		k, err := t.r.Discard(int(min(n, 1<<30)))
		t.at += int64(k)
		n -= int64(k)
		if err != nil {
			return truncated(err)
		}
	}
	return nil
}

// align skips to the next multiple of four. The kernel does not look at what it skips.
func (t *tape) align() error { return t.skip(-t.at & 3) }

// nextNonZero skips zero bytes, limit at most, and shows what stands behind them; nothing at the end.
func (t *tape) nextNonZero(limit int64) ([]byte, error) {
	for {
		if _, err := t.r.Peek(1); errors.Is(err, io.EOF) {
			return nil, nil
		} else if err != nil {
			return nil, truncated(err)
		}
		b, _ := t.r.Peek(t.r.Buffered()) // never fails
		zeros := len(b) - len(bytes.TrimLeft(b, "\x00"))
		if limit -= int64(zeros); limit < 0 {
			return nil, fmt.Errorf("it unpacks to more than %d bytes", int64(maxUnpacked))
		}
		if _, err := t.r.Discard(zeros); err != nil {
			return nil, err
		}
		t.at += int64(zeros)
		if zeros == len(b) {
			continue
		}
		head, err := t.r.Peek(8)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		return slices.Clone(head), nil
	}
}

// sum adds up the bytes of a file that the archive tells the sum of. kept is what of it was read already.
func (t *tape) sum(kept []byte, end int64, want uint32) error {
	var got uint32
	for _, c := range kept {
		got += uint32(c)
	}
	for t.at < end {
		b, err := t.r.Peek(int(min(end-t.at, 4096)))
		if err != nil {
			return truncated(err)
		}
		for _, c := range b {
			got += uint32(c)
		}
		if err := t.skip(int64(len(b))); err != nil {
			return err
		}
	}
	if got != want {
		return fmt.Errorf("its bytes add up to %#x, not %#x as the archive says", got, want)
	}
	return nil
}
