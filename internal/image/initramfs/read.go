package initramfs

import (
	"context"
	"debug/elf"
	"fmt"
	"io"

	"github.com/nametag-boot/nametag/internal/image/limit"
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
	bare *tree // the tree without what Add has appended; nil where that is nothing
	idle decoders
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
// *FormatError; what costs more than the budget has left, one that wraps a *limit.Exceeded. A nil budget is a fresh one.
// progress, if not nil, is told at which byte of the image it reads; it must be quick.
func Read(ctx context.Context, src io.ReaderAt, size int64, budget *limit.Budget, progress func(at int64)) (*Image, error) {
	if budget == nil {
		budget = new(limit.Budget)
	}
	whole := ctx
	ctx, cancel := budget.Limits.WithTime(ctx)
	defer cancel()
	from := &watched{ctx, src, progress}
	s := &scanner{ctx: ctx, im: &Image{Size: size, src: from, tree: newTree()}, budget: budget}
	if err := s.scan(); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, err
	}
	from.ctx = whole // the time is that of reading; contents may be read later
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
