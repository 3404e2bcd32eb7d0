package initramfs

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/nametag-boot/nametag/internal/image/limit"
)

type scanner struct {
	ctx    context.Context //nolint:containedctx // of one call
	im     *Image
	budget *limit.Budget
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
	in, err := s.im.idle.open(seg.Format, s.im.src, seg.Offset, s.im.Size)
	if err != nil {
		return &FormatError{Offset: seg.Offset, Within: -1, Reason: seg.Format.String() + " that cannot be unpacked", Err: err}
	}
	defer in.close()
	t := newTape(in, seg.Format == Plain, s.im.Size-seg.Offset)
	defer t.close()
	for {
		if err := s.archive(t, seg); err != nil {
			return s.explain(err, t, seg)
		}
		if seg.Format == Plain {
			seg.Size, seg.Unpacked = t.at, t.at
			return nil
		}
		// Zero bytes, and then nothing or the next archive.
		head, err := t.nextNonZero(s.budget.Unpack)
		if err != nil {
			return s.explain(err, t, seg)
		}
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
	case errors.As(err, new(*limit.Exceeded)):
		e.Reason, e.Err = "it costs too much", err
	default:
		e.Reason, e.Err = "cannot be unpacked", err
	}
	return e
}

// archive reads entries up to the trailer.
func (s *scanner) archive(t *tape, seg *Segment) error {
	s.im.tree.forgetLinks()
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
		s.im.Entries++
		if err := s.budget.Entry(); err != nil {
			return err
		}
	}
}

// entry reads one entry; last is true for the trailer.
func (s *scanner) entry(t *tape, seg *Segment) (name string, last bool, err error) {
	r, err := readRecord(t)
	if err != nil {
		return "", false, err
	}
	if err := s.admit(r); err != nil {
		return "", false, err
	}
	if err := r.check(); err != nil {
		return "", false, err
	}
	n := &Node{
		Mode: r.mode & (typeMask | 0o7777), UID: r.uid, GID: r.gid, MTime: r.mtime,
		Segment: len(s.im.Segments), at: r.at,
	}
	var read []byte
	switch {
	case r.ends():
	case n.IsLink():
		err = s.link(t, r, n)
	case n.IsRegular():
		read, err = s.file(t, seg, r, n)
	}
	if err != nil {
		return "", false, err
	}
	if r.summed && n.IsRegular() {
		if err := t.sum(read, r.end(), r.sum); err != nil {
			return "", false, fmt.Errorf("%q: %w", r.name, err)
		}
	}
	if err := t.skip(r.end() - t.at); err != nil {
		return "", false, err
	}
	if err := t.align(); err != nil {
		return "", false, err
	}
	if r.ends() {
		return "", true, nil
	}
	s.im.tree.put(r.name, &r.header, n)
	return r.name, false, s.budget.Walk(s.im.tree.newSteps())
}

// admit counts what an entry costs, before anything of that size is read.
func (s *scanner) admit(r record) error {
	if err := s.budget.Name(int(r.nameSize)); err != nil {
		return err
	}
	return s.budget.Unpack(int64(r.size))
}

// link reads where a symbolic link leads.
func (s *scanner) link(t *tape, r record, n *Node) error {
	if err := s.budget.Name(int(r.size)); err != nil {
		return err
	}
	target := make([]byte, r.size)
	if err := t.full(target); err != nil {
		return err
	}
	target, _, _ = bytes.Cut(target, []byte{0})
	n.Target = string(target)
	return nil
}

// file looks at the beginning of a regular file, and reads one of which more must be known.
func (s *scanner) file(t *tape, seg *Segment, r record, n *Node) (kept []byte, err error) {
	n.Size = int64(r.size)
	if err := s.look(t, n); err != nil {
		return nil, err
	}
	marks := r.name == markerName && seg.Entries == 0 && n.Size <= maxMarker
	if !marks && (n.Size > maxKept || path.Clean("/"+r.name) != "/"+initName) {
		return nil, nil
	}
	kept = make([]byte, n.Size)
	if err := t.full(kept); err != nil {
		return nil, err
	}
	if !marks {
		n.kept = kept
		return kept, nil
	}
	if seg.Added = parseMarker(kept); seg.Added != nil && s.im.bare == nil {
		s.im.bare = s.im.tree.clone()
	}
	return kept, nil
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
			return s.budget.Name(len(words[0]))
		}
	}
	return nil
}
