package initramfs

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
)

// A tape is what an archive unpacks to, from front to back.
type tape struct {
	r       *bufio.Reader
	section io.Seeker // set for a plain archive: what is skipped need not be read
	at      int64
	size    int64 // of a plain archive, at most; negative: not known
}

func newTape(in *stream, plain bool, size int64) *tape {
	t := &tape{r: newBuffered(in), size: -1}
	if plain {
		t.section, t.size = in.Reader.(io.Seeker), size
	}
	return t
}

func (t *tape) close() { releaseBuffered(t.r) }

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

// nextNonZero skips zero bytes, as many as unpack takes, and shows what stands behind them; nothing at the end.
func (t *tape) nextNonZero(unpack func(n int64) error) ([]byte, error) {
	for {
		if _, err := t.r.Peek(1); errors.Is(err, io.EOF) {
			return nil, nil
		} else if err != nil {
			return nil, truncated(err)
		}
		b, _ := t.r.Peek(t.r.Buffered()) // never fails
		zeros := len(b) - len(bytes.TrimLeft(b, "\x00"))
		if err := unpack(int64(zeros)); err != nil {
			return nil, err
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
