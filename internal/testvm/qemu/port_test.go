//go:build linux

package qemu

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
)

func TestAFrameStandsBehindItsLength(t *testing.T) {
	near, far := net.Pipe()
	p := newPort(near)
	defer p.Close()

	t.Run("on the way out, in one write", func(t *testing.T) {
		go func() { _ = p.WriteFrame([]byte("frame")) }()
		got := make([]byte, 64)
		n, err := far.Read(got)
		if err != nil || !bytes.Equal(got[:n], []byte("\x00\x00\x00\x05frame")) {
			t.Errorf("%q, %v", got[:n], err)
		}
	})
	t.Run("on the way in, however it is cut up", func(t *testing.T) {
		go func() {
			for _, b := range []byte("\x00\x00\x00\x05frame\x00\x00\x00\x00\x00\x00\x00\x04more") {
				_, _ = far.Write([]byte{b})
			}
		}()
		for _, want := range []string{"frame", "", "more"} {
			got := make([]byte, 64)
			n, err := p.ReadFrame(got)
			if err != nil || string(got[:n]) != want {
				t.Errorf("%q, %v; not %q", got[:n], err, want)
			}
		}
	})
	t.Run("one that does not fit is cut off, and the next one is whole", func(t *testing.T) {
		go func() { _, _ = far.Write([]byte("\x00\x00\x00\x05frame\x00\x00\x00\x04more")) }()
		for _, want := range []string{"fra", "mor"} {
			got := make([]byte, 3)
			n, err := p.ReadFrame(got)
			if err != nil || string(got[:n]) != want {
				t.Errorf("%q, %v; not %q", got[:n], err, want)
			}
		}
	})
	t.Run("a guest that goes away in the middle of one is an error", func(t *testing.T) {
		go func() {
			_, _ = far.Write([]byte("\x00\x00\x00\x05fr"))
			_ = far.Close()
		}()
		if _, err := p.ReadFrame(make([]byte, 64)); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%v", err)
		}
	})
}
