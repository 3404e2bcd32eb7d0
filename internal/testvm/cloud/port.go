package cloud

import (
	"io"
	"sync"
)

// A Port is one end of a cable: whole Ethernet frames, no preamble, no checksum behind them.
//
// The cloud reads from one goroutine and never writes from two at once; reading, writing and closing may overlap.
type Port interface {
	// ReadFrame blocks until the next frame is there and copies it to p; what does not fit is cut off. Any error ends
	// the use of the port.
	ReadFrame(p []byte) (int, error)
	// WriteFrame sends one frame and does not keep it. An error means that this frame was lost, no more.
	WriteFrame(p []byte) error
	// Close makes a blocked ReadFrame return. It may be called more than once.
	Close() error
}

// pipeDepth is how many frames a pipe holds in each direction before it loses some, as a NIC's ring does.
const pipeDepth = 1024

// Pipe returns the two ends of a cable in memory. Frames that nobody reads are lost once 1024 of them wait.
func Pipe() (Port, Port) {
	a, b := make(chan []byte, pipeDepth), make(chan []byte, pipeDepth)
	return &pipe{in: a, out: b, done: make(chan struct{})}, &pipe{in: b, out: a, done: make(chan struct{})}
}

type pipe struct {
	in, out chan []byte
	once    sync.Once
	done    chan struct{}
}

func (p *pipe) ReadFrame(b []byte) (int, error) {
	select {
	case frame := <-p.in:
		return copy(b, frame), nil
	case <-p.done:
		return 0, io.EOF
	}
}

func (p *pipe) WriteFrame(b []byte) error {
	select {
	case <-p.done:
		return io.ErrClosedPipe
	default:
	}
	select {
	case p.out <- append([]byte(nil), b...):
	default: // the ring is full
	}
	return nil
}

func (p *pipe) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}
