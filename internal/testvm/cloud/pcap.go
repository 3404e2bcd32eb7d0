package cloud

import (
	"encoding/binary"
	"io"
	"sync"
	"time"
)

// The classic file format (draft-ietf-opsawg-pcap): a header of 24 bytes, then each frame behind one of 16.
const (
	pcapNanoseconds = 0xa1b23c4d
	pcapEthernet    = 1
)

// capture writes frames to a pcap file.
type capture struct {
	mu    sync.Mutex
	w     io.Writer
	start time.Time // wall clock once, monotonic from there: a clock that jumps does not shuffle the file
	buf   []byte
	err   error
}

func newCapture(w io.Writer) *capture {
	c := &capture{w: w, start: time.Now()}
	h := binary.LittleEndian.AppendUint32(nil, pcapNanoseconds)
	h = binary.LittleEndian.AppendUint16(h, 2)
	h = binary.LittleEndian.AppendUint16(h, 4)
	h = append(h, make([]byte, 8)...)
	h = binary.LittleEndian.AppendUint32(h, frameMax)
	h = binary.LittleEndian.AppendUint32(h, pcapEthernet)
	_, c.err = w.Write(h)
	return c
}

// write adds a frame. After a failed write there are no more.
func (c *capture) write(frame []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	at := c.start.Add(time.Since(c.start))
	c.buf = binary.LittleEndian.AppendUint32(c.buf[:0], uint32(at.Unix()))
	c.buf = binary.LittleEndian.AppendUint32(c.buf, uint32(at.Nanosecond()))
	c.buf = binary.LittleEndian.AppendUint32(c.buf, uint32(len(frame)))
	c.buf = binary.LittleEndian.AppendUint32(c.buf, uint32(len(frame)))
	c.buf = append(c.buf, frame...)
	_, c.err = c.w.Write(c.buf)
}

func (c *capture) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}
