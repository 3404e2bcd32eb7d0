package kmod

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

const xzMagic = "\xfd7zXZ\x00"

// xzReader decodes the .xz container (The .xz File Format, version 1.2.1) around
// ulikunitz/xz's LZMA2. That library has a reader for the container too, which
// allocates the dictionary that the header asks for, up to 4 GiB, before it has
// seen a byte of data; and running out of memory cannot be recovered from.
//
// It reads one stream of LZMA2 blocks with no other filter, as the kernel's
// scripts/Makefile.modinst and every distribution make modules, and verifies the
// checks of headers and blocks. The index at the end only repeats them.
type xzReader struct {
	r     *countingReader
	check byte // the stream's kind of check
	begun bool
	block io.Reader // the current block's data; nil between blocks
	hash  hash.Hash // of the current block; nil for no check
	start int64     // where the current block's data begins
	err   error     // what Read returns from now on
}

func newXZReader(r io.Reader) *xzReader { return &xzReader{r: &countingReader{r: bufio.NewReader(r)}} }

// Read decodes into p.
func (x *xzReader) Read(p []byte) (int, error) {
	for x.err == nil {
		if x.block == nil {
			x.err = x.next()
			continue
		}
		n, err := x.block.Read(p)
		if x.hash != nil {
			_, _ = x.hash.Write(p[:n]) // never fails
		}
		switch {
		case errors.Is(err, io.EOF):
			x.err = x.endBlock()
		case err != nil:
			x.err = err
		}
		if n > 0 || len(p) == 0 {
			return n, nil
		}
	}
	return 0, x.err
}

// next reads the header of the stream, once, and of the next block. It returns
// io.EOF at the index, which follows the last block (section 3.1.1).
func (x *xzReader) next() error {
	if !x.begun {
		if err := x.streamHeader(); err != nil {
			return err
		}
		x.begun = true
	}
	var size [1]byte
	if err := x.full(size[:]); err != nil {
		return err
	}
	if size[0] == 0 {
		return io.EOF
	}
	header := make([]byte, 4*(int(size[0])+1))
	header[0] = size[0]
	if err := x.full(header[1:]); err != nil {
		return err
	}
	body, sum := header[:len(header)-4], header[len(header)-4:]
	if crc32.ChecksumIEEE(body) != binary.LittleEndian.Uint32(sum) {
		return errors.New("xz: a block's header is damaged")
	}
	dictionary, err := dictionarySize(body)
	if err != nil {
		return err
	}
	x.start = x.r.n
	// Nothing refers to farther back than its own beginning, and no module is
	// longer than largest.
	config := lzma.Reader2Config{DictCap: int(min(max(dictionary, lzma.MinDictCap), largest))}
	if x.block, err = config.NewReader2(x.r); err != nil {
		return err
	}
	return nil
}

// streamHeader reads the first 12 bytes (section 2.1.1).
func (x *xzReader) streamHeader() error {
	var header [12]byte
	if err := x.full(header[:]); err != nil {
		return err
	}
	if string(header[:6]) != xzMagic || header[6] != 0 ||
		crc32.ChecksumIEEE(header[6:8]) != binary.LittleEndian.Uint32(header[8:]) {
		return errors.New("xz: the stream's header is damaged")
	}
	x.check = header[7]
	return x.newHash()
}

// newHash makes the hash of the stream's kind (section 2.1.1.2).
func (x *xzReader) newHash() error {
	switch x.check {
	case 0x0:
		x.hash = nil
	case 0x1:
		x.hash = crc32.NewIEEE()
	case 0x4:
		x.hash = crc64.New(crc64.MakeTable(crc64.ECMA))
	case 0xa:
		x.hash = sha256.New()
	default:
		return fmt.Errorf("xz: unknown kind of check %#x", x.check)
	}
	return nil
}

// dictionarySize finds the dictionary's size in a block's header (section 3.1).
func dictionarySize(header []byte) (uint64, error) {
	flags := header[1]
	rest := bytes.NewReader(header[2:])
	for _, present := range []bool{flags&0x40 != 0, flags&0x80 != 0} { // compressed and uncompressed size
		if present {
			if _, err := binary.ReadUvarint(rest); err != nil {
				return 0, errors.New("xz: a block's header is malformed")
			}
		}
	}
	filter := make([]byte, 3) // id, size of properties, the property
	if _, err := io.ReadFull(rest, filter); err != nil || flags&0x3f != 0 || filter[0] != 0x21 || filter[1] != 1 {
		return 0, errors.New("xz: a filter other than LZMA2, which modules are not made with")
	}
	bits := filter[2] // section 5.3.1
	if bits > 40 {
		return 0, errors.New("xz: a dictionary larger than any")
	}
	return uint64(2|bits&1) << (bits/2 + 11), nil
}

// endBlock reads the padding after a block and compares its check (3.3, 3.4).
func (x *xzReader) endBlock() error {
	x.block = nil
	var padding [3]byte
	if err := x.full(padding[:(4-(x.r.n-x.start)%4)%4]); err != nil {
		return err
	}
	if x.hash == nil {
		return nil
	}
	want := make([]byte, x.hash.Size())
	if err := x.full(want); err != nil {
		return err
	}
	got := x.hash.Sum(nil)
	if x.check != 0xa { // the CRCs are stored in little endian
		for i, j := 0, len(got)-1; i < j; i, j = i+1, j-1 {
			got[i], got[j] = got[j], got[i]
		}
	}
	if !bytes.Equal(got, want) {
		return errors.New("xz: the check does not fit the data")
	}
	x.hash.Reset()
	return nil
}

// full fills p; an end before that is unexpected.
func (x *xzReader) full(p []byte) error {
	_, err := io.ReadFull(x.r, p)
	if errors.Is(err, io.EOF) && len(p) > 0 {
		return io.ErrUnexpectedEOF
	}
	return err
}

// countingReader knows how much was read of it, for the padding. It is buffered
// below, as the decoder takes single bytes.
type countingReader struct {
	r *bufio.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
