//go:build linux

package scenarios

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/hetzner"
	"github.com/nametag-boot/nametag/internal/testvm"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
)

// What a service sees that does not answer at all, as docs/retry.md says: two connections an attempt. Thousands may be
// doing the same.
func TestABlackHoleSeesTwoConnectionsAnAttempt(t *testing.T) {
	var frames capture
	cfg := always(cloud.Dropped())
	cfg.Pcap = &frames
	testvm.Start(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	r := identity.Resolver{Source: hetzner.Source(), Link: earlynet.Config{NICs: []string{"eth0"}, Methods: []earlynet.Method{earlynet.LinkLocal}}}
	_, err := r.Resolve(ctx)
	var timeout *identity.TimeoutError
	if !errors.As(err, &timeout) || len(timeout.Paths) == 0 { // first the path, then what explains its silence
		t.Fatalf("got %v", err)
	}
	connections := map[uint16]int{}
	for _, frame := range captured(frames.bytes()) {
		if port, ok := syn(frame); ok {
			connections[port]++
		}
	}
	tries := timeout.Paths[0].Tries
	t.Logf("%d attempts, %d connections: %v", tries, len(connections), connections)
	if n := len(connections); n == 0 || n > 2*tries {
		t.Errorf("%d connections in %d attempts", n, tries)
	}
}

// A capture is a pcap file in memory.
type capture struct {
	mu   sync.Mutex
	file []byte
}

func (c *capture) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.file = append(c.file, b...)
	return len(b), nil
}

func (c *capture) bytes() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.file)
}

// captured splits a pcap file into its frames.
func captured(file []byte) (frames [][]byte) {
	const header, record = 24, 16
	for file = file[min(header, len(file)):]; len(file) >= record; {
		n := int(binary.LittleEndian.Uint32(file[8:]))
		if len(file) < record+n {
			break
		}
		frames = append(frames, file[record:record+n])
		file = file[record+n:]
	}
	return frames
}

// syn is the source port of a TCP segment that begins a connection with an HTTP service.
func syn(frame []byte) (port uint16, ok bool) {
	const ethernet = 14
	if len(frame) < ethernet+20 || binary.BigEndian.Uint16(frame[12:]) != 0x0800 || frame[ethernet+9] != 6 {
		return 0, false
	}
	tcp := frame[ethernet+int(frame[ethernet]&0xf)*4:]
	if len(tcp) < 14 || binary.BigEndian.Uint16(tcp[2:]) != 80 || tcp[13]&0x12 != 0x02 {
		return 0, false
	}
	return binary.BigEndian.Uint16(tcp), true
}
