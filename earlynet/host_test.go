package earlynet_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/nametag-boot/nametag/earlynet"
)

// What Host does on every system. TestHost has the rest, which takes a network namespace.
func TestTheHostsNetworkIsAPathOnAnySystem(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	defer func() { l.Close(); <-served }()
	go func() {
		defer close(served)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, "hello") // and it stays open
		}
	}()

	var events []earlynet.Event
	n, err := earlynet.Host(t.Context(), earlynet.Config{Observer: func(e earlynet.Event) { events = append(events, e) }})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if len(events) == 0 || events[len(events)-1].Kind != earlynet.PathReady {
		t.Errorf("told was %v", events)
	}
	p := <-n.Paths()
	if p.Method != earlynet.HostNetwork || p.Err() != nil {
		t.Errorf("the path is %v, %v", p, p.Err())
	}
	conn, err := p.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	said := make([]byte, 5)
	if _, err := io.ReadFull(conn, said); err != nil || string(said) != "hello" {
		t.Errorf("%q, %v", said, err)
	}
	if errs := n.Status(); len(errs) > 0 {
		t.Errorf("what is wrong: %v", errs)
	}

	if err := errors.Join(n.Keep(p), n.Close()); err != nil {
		t.Error(err)
	}
	if _, err := conn.Read(said); err == nil {
		t.Error("a connection outlives its network")
	}
	if <-p.Done(); !errors.Is(p.Err(), earlynet.ErrPathDone) {
		t.Errorf("the path ended with %v", p.Err())
	}
	if _, open := <-n.Paths(); open {
		t.Error("there is another path")
	}
	if _, err := p.DialContext(t.Context(), "tcp", l.Addr().String()); !errors.Is(err, earlynet.ErrPathDone) {
		t.Errorf("dialling over it: %v", err)
	}
}

func TestTheHostsNetworkEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	n, err := earlynet.Host(ctx, earlynet.Config{})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	for range n.Paths() { // until it is closed
	}
	if err := errors.Join(n.Close(), n.Close()); err != nil {
		t.Error(err)
	}
}
