package initramfs

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
)

// A newc archive (Documentation/driver-api/early-userspace/buffer-format.rst).
const (
	magicNewc  = "070701"
	magicCRC   = "070702" // the same, and the sum of each file's bytes
	headerSize = 110
	trailer    = "TRAILER!!!"
)

// The types of files in a mode, as Linux has them (include/uapi/linux/stat.h), whatever system this runs on.
const (
	typeMask   = 0o170000
	typeSocket = 0o140000
	typeLink   = 0o120000
	typeFile   = 0o100000
	typeBlock  = 0o060000
	typeDir    = 0o040000
	typeChar   = 0o020000
	typeFIFO   = 0o010000
)

// header is an entry's, as it stands in the archive.
type header struct {
	ino, mode, uid, gid, nlink, mtime, size uint32
	major, minor, rmajor, rminor            uint32
	nameSize, sum                           uint32
}

// fields are the numbers in the order of the archive.
func (h *header) fields() [13]*uint32 {
	return [13]*uint32{
		&h.ino, &h.mode, &h.uid, &h.gid, &h.nlink, &h.mtime, &h.size,
		&h.major, &h.minor, &h.rmajor, &h.rminor, &h.nameSize, &h.sum,
	}
}

// parse reads the numbers behind the magic.
func (h *header) parse(b []byte) error {
	for i, field := range h.fields() {
		var n [4]byte
		digits := b[6+8*i:][:8]
		if _, err := hex.Decode(n[:], digits); err != nil {
			return fmt.Errorf("a header with %q where a number of eight hexadecimal digits belongs", digits)
		}
		*field = binary.BigEndian.Uint32(n[:])
	}
	return nil
}

func (h *header) kind() uint32 { return h.mode & typeMask }

// A record is one entry of an archive. Its content stands behind it.
type record struct {
	header
	name   string
	summed bool  // the header tells the sum of the content's bytes
	at     int64 // where the content begins in what the archive unpacks to
}

// end is the place behind the content.
func (r *record) end() int64 { return r.at + int64(r.size) }

// ends says whether it is the archive's trailer.
func (r *record) ends() bool { return r.name == trailer }

// readRecord reads an entry up to its content. It believes no number: what it makes is as large as a name can be.
func readRecord(t *tape) (r record, err error) {
	head, err := t.peek(headerSize)
	if err != nil {
		return r, err
	}
	switch string(head[:6]) {
	case magicNewc:
	case magicCRC:
		r.summed = true
	case foreign[0].magic:
		return r, &found{slices.Clone(head), foreign[0].name}
	default:
		return r, &found{slices.Clone(head), "no cpio header where one belongs"}
	}
	if err := r.parse(head); err != nil {
		return r, err
	}
	if r.nameSize == 0 || r.nameSize > maxName {
		return r, fmt.Errorf("a name of %d bytes; the kernel drops an entry whose name is longer than %d", r.nameSize, maxName)
	}
	if err := t.fits(headerSize + int64(r.nameSize) + int64(r.size)); err != nil {
		return r, err
	}
	if err := t.skip(headerSize); err != nil {
		return r, err
	}
	name := make([]byte, r.nameSize)
	if err := t.full(name); err != nil {
		return r, err
	}
	if name[len(name)-1] != 0 {
		return r, &found{name, "a name without its end"}
	}
	r.name = string(name[:bytes.IndexByte(name, 0)])
	err = t.align()
	r.at = t.at
	return r, err
}

// check refuses a record that the kernel would drop, or take for another kind of file than its writer meant.
func (r *record) check() error {
	switch r.kind() {
	case typeLink:
		if r.ends() {
			return fmt.Errorf("%q: a link, which does not end an archive", r.name)
		}
		if r.size == 0 || r.size > maxName {
			return fmt.Errorf("%q: a link of %d bytes", r.name, r.size)
		}
	case typeFile:
	case typeDir, typeChar, typeBlock, typeFIFO, typeSocket:
		if r.size > 0 { // then the kernel does not even look at the name
			return fmt.Errorf("%q: a folder or device with %d bytes of content", r.name, r.size)
		}
	default:
		if !r.ends() || r.size > 0 {
			return fmt.Errorf("%q: a mode of %#o, which is no type of file", r.name, r.mode)
		}
	}
	return nil
}

// archiveWriter writes a newc archive. u-root's leaves out the second entry of a name, which is one that we need, and
// wants files that can be read at any place.
type archiveWriter struct {
	w   io.Writer
	at  int64
	ino uint32
}

// write writes an entry; a regular file's or link's content is what content gives, exactly h.size bytes.
func (a *archiveWriter) write(name string, h header, content io.Reader) error {
	a.ino++
	h.ino, h.nameSize = a.ino, uint32(len(name)+1) //nolint:gosec // names of ours
	if h.nlink == 0 {
		h.nlink = 1
	}
	b := []byte(magicNewc)
	for _, field := range h.fields() {
		b = fmt.Appendf(b, "%08X", *field)
	}
	b = append(append(b, name...), 0)
	if err := a.bytes(b); err != nil {
		return err
	}
	if h.size > 0 {
		n, err := io.Copy(a.w, io.LimitReader(content, int64(h.size)))
		a.at += n
		if err != nil {
			return err
		}
		if n != int64(h.size) {
			return fmt.Errorf("%s: %d bytes came, not %d: %w", name, n, h.size, io.ErrUnexpectedEOF)
		}
	}
	return a.bytes(nil)
}

// bytes writes b and fills up to a multiple of four.
func (a *archiveWriter) bytes(b []byte) error {
	b = append(b, make([]byte, -(a.at+int64(len(b)))&3)...)
	n, err := a.w.Write(b)
	a.at += int64(n)
	return err
}

func (a *archiveWriter) close() error {
	a.ino = ^uint32(0) // the trailer's is 0, as everywhere
	return a.write(trailer, header{}, nil)
}
