package uki

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// newHeader is the header of the new image, as far as it is known before the contents: with room for every section.
func (m *Image) newHeader(pieces []*piece) (*header, error) {
	h := m.header
	b, err := m.read(0, int64(h.size), "the headers")
	if err != nil {
		return nil, err
	}
	end := h.table + len(pieces)*sectionHeaderSize
	free := b[len(m.header.bytes):]
	if n := end - len(m.header.bytes); n > 0 && n <= len(free) && !bytes.Equal(free[:n], make([]byte, n)) {
		return nil, bad(int64(len(m.header.bytes)), "there is no room for another section header: something stands behind the section table")
	}
	if end > len(b) { // the file's other contents make room: only their addresses are tied
		b = append(b, make([]byte, end-len(b))...)
	}
	b = append(b, make([]byte, -len(b)&int(h.fileAlignment-1))...)
	for _, p := range pieces {
		if p.old != nil && int64(p.VirtualAddress) < int64(len(b)) {
			return nil, bad(int64(h.table), "there is no room for another section header: section %s is at the address 0x%x", p.Name, p.VirtualAddress)
		}
	}
	h.bytes, h.size = b, uint32(len(b)) //nolint:gosec // at most a megabyte and a bit
	h.setField(optHeadersSize, h.size)
	h.put16(h.coff+coffSections, uint16(len(pieces))) //nolint:gosec // two more than maxSections at most
	if _, _, at := h.directory(directorySecurity); at != 0 {
		h.put32(at, 0)
		h.put32(at+4, 0)
	}
	return &h, nil
}

// place gives every section its address: its old one where that is free, else the next one that is. Only what is found
// by its name moves, and it keeps its order, which says what belongs to which profile.
func place(pieces []*piece, h *header) error {
	step := uint64(max(h.sectionAlignment, pageSize))
	next := uint64(h.size)
	var fixed []*piece
	for _, p := range pieces {
		if p.fixed {
			fixed = append(fixed, p)
		}
	}
	for _, p := range pieces {
		if p.fixed {
			continue
		}
		at := uint64(p.VirtualAddress)
		if p.old == nil || at < next {
			at = align(next, step)
		}
		for _, f := range fixed { // in the order of their addresses
			start, end := uint64(f.VirtualAddress), uint64(f.VirtualAddress)+f.span()
			if at < end && start < at+max(p.span(), 1) {
				at = align(end, step)
			}
		}
		next = at + p.span()
		if next > maxOffset {
			return errTooBig
		}
		p.VirtualAddress = uint32(at) //nolint:gosec // checked above
	}
	for _, p := range pieces {
		if p.fixed && p.write != nil && p.span() > p.old.span() {
			return bad(int64(p.old.Offset), "section %s cannot grow: the headers refer into it", p.Name)
		}
	}
	before := profiles(pieces)
	slices.SortStableFunc(pieces, func(a, b *piece) int { return cmp.Compare(a.VirtualAddress, b.VirtualAddress) })
	for p, n := range profiles(pieces) {
		if before[p] != n {
			return bad(-1, "section %s would come into another profile; it cannot give way, since the headers refer to its address", p.Name)
		}
	}
	return nil
}

// profiles counts the profile of every section that is found by its name.
func profiles(pieces []*piece) map[*piece]int {
	of, n := map[*piece]int{}, 0
	for _, p := range pieces {
		if p.Name == secProfile {
			n++
		}
		if payload[p.Name] {
			of[p] = n
		}
	}
	return of
}

func align(n, to uint64) uint64 { return (n + to - 1) &^ (to - 1) }

// describe writes into the header where the sections are.
func (h *header) describe(pieces []*piece) {
	initialized, image := int64(h.field(optInitializedSize)), uint64(h.size)
	for i, p := range pieces {
		at := h.table + i*sectionHeaderSize
		copy(h.bytes[at:], p.raw[:])
		h.put32(at+secVirtualSize, p.VirtualSize)
		h.put32(at+secVirtualAddress, p.VirtualAddress)
		h.put32(at+secRawSize, p.Size)
		h.put32(at+secRawOffset, p.Offset)
		h.put32(at+secFlags, p.flags)
		image = max(image, uint64(p.VirtualAddress)+p.span())
		if p.flags&flagInitializedData != 0 {
			initialized += int64(p.Size)
			if p.old != nil {
				initialized -= int64(p.old.Size)
			}
		}
	}
	// Linkers differ in what they count here, so the difference is what counts.
	h.setField(optInitializedSize, uint32(min(max(initialized, 0), maxOffset)))                //nolint:gosec // within the bounds
	h.setField(optImageSize, uint32(min(align(image, uint64(h.sectionAlignment)), maxOffset))) //nolint:gosec // within the bounds
}

// writer writes one thing behind the other, until its context ends.
type writer struct {
	ctx context.Context //nolint:containedctx // it is what io.Copy can be ended by
	to  io.WriterAt
	at  int64
}

func (w *writer) Write(b []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, context.Cause(w.ctx)
	}
	n, err := w.to.WriteAt(b, w.at)
	w.at += int64(n)
	return n, err
}

func (w *writer) pad(to int64) error {
	_, err := w.Write(make([]byte, -w.at&(to-1)))
	return err
}

// checksum is the sum that the header has a field for: of the file's 16-bit words, the carry added in again, and of its
// length; the field itself counts as zero.
func checksum(ctx context.Context, r io.ReaderAt, size int64, field int) (uint32, error) {
	var sum uint32
	in := io.NewSectionReader(r, 0, size)
	buffer := make([]byte, 64<<10)
	for at := 0; ; {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		n, err := io.ReadFull(in, buffer)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return 0, fmt.Errorf("reading the image again: %w", err)
		}
		if n == 0 {
			return sum + uint32(size), nil //nolint:gosec // an image is shorter than 4 GiB
		}
		block := buffer[:n]
		if at <= field && field < at+n { // a field is aligned, and so are the blocks
			clear(block[field-at:][:4])
		}
		at += n
		if n%2 == 1 {
			block = append(block, 0)
		}
		for ; len(block) > 0; block = block[2:] {
			sum += uint32(binary.LittleEndian.Uint16(block))
			sum = sum&0xffff + sum>>16
		}
	}
}
