//go:build linux

package qemu

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"sync"
)

// port is the cloud's end of a -netdev stream: each frame behind its length, four bytes, the highest first
// (QEMU's net/stream.c). It is a cloud.Port.
type port struct {
	conn net.Conn
	in   *bufio.Reader

	mu  sync.Mutex // one frame at a time
	out []byte
}

func newPort(conn net.Conn) *port {
	return &port{conn: conn, in: bufio.NewReaderSize(conn, 64<<10)}
}

// ReadFrame blocks for the next frame of the guest. What does not fit is cut off.
func (p *port) ReadFrame(frame []byte) (int, error) {
	var header [4]byte
	if _, err := io.ReadFull(p.in, header[:]); err != nil {
		return 0, err
	}
	size := int64(binary.BigEndian.Uint32(header[:]))
	n := min(size, int64(len(frame)))
	if _, err := io.ReadFull(p.in, frame[:n]); err != nil {
		return 0, err
	}
	if _, err := io.CopyN(io.Discard, p.in, size-n); err != nil {
		return 0, err
	}
	return int(n), nil
}

// WriteFrame sends a frame to the guest, length and all in one write.
func (p *port) WriteFrame(frame []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out = binary.BigEndian.AppendUint32(p.out[:0], uint32(len(frame))) //nolint:gosec // a frame is short
	p.out = append(p.out, frame...)
	_, err := p.conn.Write(p.out)
	return err
}

// Close ends both directions.
func (p *port) Close() error { return p.conn.Close() }
