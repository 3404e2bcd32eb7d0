package uki

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
)

// InitramfsEditor reads an initramfs and writes what is to stand in its place. Neither needs to fit into memory.
type InitramfsEditor func(ctx context.Context, out io.Writer, in *io.SectionReader) error

// Edit is what is to be done to an image. The zero value changes nothing.
type Edit struct {
	// CommandLine amends every command line that the image has, the one of each profile; an image without one is given
	// one, of what it makes of "". nil: they stay. Arguments.Apply is one.
	CommandLine func(line string) (string, error)
	// Initramfs amends every initramfs that the image has; an image without one is given one, of what it makes of
	// nothing. nil: they stay.
	Initramfs InitramfsEditor
	// DropSignature takes the signatures of a signed image away, which is refused otherwise.
	DropSignature bool
}

// Result is what an edit did.
type Result struct {
	CommandLines []CommandLine `json:"command_lines,omitempty"`
	Initramfs    []Initramfs   `json:"initramfs,omitempty"`
	// DroppedSignatures is how many signatures the image had.
	DroppedSignatures int `json:"dropped_signatures,omitempty"`
	// StalePCRSignatures is how many sections .pcrsig there are: signatures over the very sections that the edit
	// changed. What is sealed to them, an encrypted disk say, opens only after they are made anew.
	StalePCRSignatures int   `json:"stale_pcr_signatures,omitempty"`
	Size               int64 `json:"size"` // of the image, in bytes
}

// Changed says whether the image became another one.
func (r *Result) Changed() bool {
	return r.DroppedSignatures > 0 || len(r.Initramfs) > 0 ||
		slices.ContainsFunc(r.CommandLines, CommandLine.changed)
}

// CommandLine is what became of one.
type CommandLine struct {
	Profile string `json:"profile"`
	Before  string `json:"before"`
	After   string `json:"after"`
}

func (c CommandLine) changed() bool { return c.Before != c.After }

// Initramfs is what became of one.
type Initramfs struct {
	Profile string `json:"profile"`
	Before  int64  `json:"before"` // bytes
	After   int64  `json:"after"`
}

// Destination is where an image is written to, an empty *os.File say.
type Destination interface {
	io.ReaderAt
	io.WriterAt
}

// piece is a section on its way into the new image.
type piece struct {
	Section
	old *Section // what it was; nil: it is added
	// write writes another content. nil: it stays as it is.
	write func(io.Writer) error
}

// Write writes the edited image. Where it fails, what is at the destination so far is of no use.
func (m *Image) Write(ctx context.Context, to Destination, e Edit) (*Result, error) {
	if m.Signed() && !e.DropSignature {
		refused := &SignedError{}
		for _, s := range m.Signatures {
			refused.Signers = append(refused.Signers, s.Signers...)
		}
		return nil, refused
	}
	result := &Result{DroppedSignatures: len(m.Signatures), StalePCRSignatures: len(m.Find(secPCRSig))}
	pieces, err := m.pieces(ctx, e, result)
	if err != nil {
		return nil, err
	}
	if err := m.write(ctx, to, pieces, result); err != nil {
		return nil, err
	}
	if len(result.Initramfs) == 0 && !slices.ContainsFunc(result.CommandLines, CommandLine.changed) {
		result.StalePCRSignatures = 0 // they are over the sections, and not over the signature that may have gone
	}
	return result, nil
}

// pieces is the sections of the new image, in order.
func (m *Image) pieces(ctx context.Context, e Edit, result *Result) ([]*piece, error) {
	if !slices.IsSortedFunc(m.Sections, byAddress) {
		return nil, bad(int64(m.header.table), "the sections do not stand in the order of their addresses; this is not understood well enough to change it")
	}
	pieces := make([]*piece, 0, len(m.Sections)+2)
	for i := range m.Sections {
		pieces = append(pieces, &piece{Section: m.Sections[i], old: &m.Sections[i]})
	}
	if e.CommandLine != nil {
		pieces = m.ensure(pieces, secCmdline)
	}
	if e.Initramfs != nil {
		pieces = m.ensure(pieces, secInitrd)
	}
	for _, p := range pieces {
		var err error
		switch {
		case p.Name == secCmdline && e.CommandLine != nil:
			err = m.editCommandLine(p, e.CommandLine, result)
		case p.Name == secInitrd && e.Initramfs != nil:
			in := m.Data(p.Section)
			p.write = func(w io.Writer) error { return e.Initramfs(ctx, w, in) }
		}
		if err != nil {
			return nil, err
		}
	}
	// A section that was to be added and stayed empty is none.
	return slices.DeleteFunc(pieces, func(p *piece) bool { return p.old == nil && p.write == nil }), nil
}

func byAddress(a, b Section) int { return cmp.Compare(a.VirtualAddress, b.VirtualAddress) }

// ensure adds a section of the name to the base, at its end, where the image has none.
func (m *Image) ensure(pieces []*piece, name string) []*piece {
	if len(m.Find(name)) > 0 {
		return pieces
	}
	at := slices.IndexFunc(pieces, func(p *piece) bool { return p.Name == secProfile })
	if at < 0 {
		at = len(pieces)
	}
	return slices.Insert(pieces, at, newPiece(name))
}

func newPiece(name string) *piece {
	p := &piece{Section: Section{Name: name, flags: flagInitializedData | flagRead}}
	copy(p.raw[:8], name)
	return p
}

func (m *Image) editCommandLine(p *piece, edit func(string) (string, error), result *Result) error {
	before, err := m.Text(p.Section)
	if err != nil {
		return err
	}
	after, err := edit(before)
	if err != nil {
		return fmt.Errorf("the command line of %s: %w", m.ProfileName(p.Profile), err)
	}
	result.CommandLines = append(result.CommandLines, CommandLine{m.ProfileName(p.Profile), before, after})
	if after != before {
		p.write = func(w io.Writer) error {
			_, err := io.WriteString(w, after)
			return err
		}
	}
	return nil
}

// write puts the new image together: the contents first, since only then it is known how big they are; then their
// addresses; the headers last.
func (m *Image) write(ctx context.Context, to Destination, pieces []*piece, result *Result) error {
	h, err := m.newHeader(pieces)
	if err != nil {
		return err
	}
	end, err := m.writeContents(ctx, to, h, pieces)
	if err != nil {
		return err
	}
	for _, p := range pieces {
		if p.Name == secInitrd && p.write != nil {
			change := Initramfs{Profile: m.ProfileName(p.Profile), After: p.Len()}
			if p.old != nil {
				change.Before = p.old.Len()
			}
			result.Initramfs = append(result.Initramfs, change)
		}
	}
	if result.Size, err = m.writeTail(ctx, to, h, end); err != nil {
		return err
	}
	if err := place(pieces, h); err != nil {
		return err
	}
	h.describe(pieces)
	if _, err := to.WriteAt(h.bytes, 0); err != nil {
		return err
	}
	if err := m.fixDebug(to, pieces); err != nil {
		return err
	}
	if m.header.field(optChecksum) == 0 {
		return nil // none was made, and no firmware asks for one
	}
	sum, err := checksum(ctx, to, result.Size, h.optional+optChecksum)
	if err != nil {
		return err
	}
	h.setField(optChecksum, sum)
	_, err = to.WriteAt(h.bytes[h.optional+optChecksum:][:4], int64(h.optional+optChecksum))
	return err
}

// writeContents writes the sections one behind the other, in the order in which they stand in the old file, and takes
// down where they are. It returns the end.
func (m *Image) writeContents(ctx context.Context, to Destination, h *header, pieces []*piece) (int64, error) {
	order := make([]*piece, 0, len(pieces))
	for _, p := range pieces {
		if p.old != nil {
			order = append(order, p)
		}
	}
	slices.SortStableFunc(order, func(a, b *piece) int { return cmp.Compare(a.Offset, b.Offset) })
	for i, p := range pieces {
		if p.old != nil {
			continue
		}
		at := 0 // an added section stands behind the one before it
		if i > 0 {
			at = slices.Index(order, pieces[i-1]) + 1
		}
		order = slices.Insert(order, at, p)
	}
	w := &writer{ctx: ctx, to: to, at: int64(h.size)}
	for _, p := range order {
		if p.Size == 0 && p.write == nil {
			continue // it has only memory
		}
		start := w.at
		if p.write == nil {
			if _, err := io.Copy(w, io.NewSectionReader(m.reader, int64(p.Offset), int64(p.Size))); err != nil {
				return 0, fmt.Errorf("section %s: %w", p.Name, err)
			}
		} else {
			if err := p.write(w); err != nil {
				return 0, fmt.Errorf("section %s: %w", p.Name, err)
			}
			if w.at-start > maxOffset {
				return 0, errTooBig
			}
			p.VirtualSize = uint32(w.at - start)
		}
		if err := w.pad(int64(h.fileAlignment)); err != nil {
			return 0, err
		}
		if w.at > maxOffset {
			return 0, errTooBig
		}
		p.Offset, p.Size = uint32(start), uint32(w.at-start) //nolint:gosec // checked above
	}
	return w.at, nil
}

const maxOffset = 1<<32 - 1

var errTooBig = errors.New("the image would be bigger than the 4 GiB that one can have")

// writeTail copies what stands behind the sections: a table of symbols, as a rule nothing. It returns the file's size.
func (m *Image) writeTail(ctx context.Context, to Destination, h *header, at int64) (int64, error) {
	start, end := m.sectionsEnd(), m.size
	if offset, size := m.certificates(); size > 0 {
		end = offset
	}
	if symbols := int64(h.at32(h.coff + coffSymbols)); symbols != 0 {
		if symbols < start || symbols+int64(h.at32(h.coff+coffSymbolCount))*symbolSize > end {
			return 0, bad(int64(h.coff+coffSymbols), "the table of symbols, at 0x%x, is not between the sections and the end of the file", symbols)
		}
		if symbols += at - start; symbols > maxOffset {
			return 0, errTooBig
		}
		h.put32(h.coff+coffSymbols, uint32(symbols)) //nolint:gosec // checked above
	}
	w := &writer{ctx: ctx, to: to, at: at}
	_, err := io.Copy(w, io.NewSectionReader(m.reader, start, end-start))
	return w.at, err
}

// fixDebug amends the debug directory, whose entries give offsets in the file beside addresses.
func (m *Image) fixDebug(to Destination, pieces []*piece) error {
	place, size, at := m.header.directory(directoryDebug)
	if size == 0 {
		return nil
	}
	if size/debugEntrySize > maxDebugEntries {
		return bad(int64(at), "a debug directory of %d bytes", size)
	}
	moved := func(offset uint32) uint32 {
		for _, p := range pieces {
			if old := p.old; old != nil && offset >= old.Offset && offset-old.Offset < old.Size {
				return p.Offset + (offset - old.Offset)
			}
		}
		return offset
	}
	for _, p := range pieces {
		if place < p.VirtualAddress || uint64(place)+uint64(size) > uint64(p.VirtualAddress)+min(p.span(), uint64(p.Size)) {
			continue
		}
		for entry := range size / debugEntrySize {
			field := int64(p.Offset) + int64(place-p.VirtualAddress) + int64(entry)*debugEntrySize + debugRawOffset
			b := make([]byte, 4)
			if _, err := to.ReadAt(b, field); err != nil {
				return err
			}
			h := header{bytes: b}
			if offset := h.at32(0); offset != 0 && moved(offset) != offset {
				h.put32(0, moved(offset))
				if _, err := to.WriteAt(b, field); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
