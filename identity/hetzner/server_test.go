package hetzner

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path"
	"sync"
	"testing"

	"github.com/nametag-boot/nametag/earlynet"
)

// A rawServer answers requests byte by byte as a test says: what net/http's
// server would never send is what matters here.
type rawServer struct {
	t        testing.TB
	listener net.Listener
	work     sync.WaitGroup

	mu       sync.Mutex
	answers  map[string]func(n int, conn net.Conn) // by the path's last element; n counts from 1
	requests []*http.Request
	accepted int
	goodbyes int // ends of used connections that wait for an answer
	conns    map[net.Conn]struct{}
}

// serve starts one with right answers for everything.
func serve(t testing.TB) *rawServer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &rawServer{t: t, listener: listener, answers: make(map[string]func(int, net.Conn)), conns: make(map[net.Conn]struct{})}
	for name, body := range map[string]string{
		"hostname": "my-server\n", "instance-id": "42", "region": "eu-central", "availability-zone": "hel1-dc2",
		"public-ipv4": "203.0.113.7", "private-networks": exampleNetworks, "metadata": exampleDocument,
	} {
		s.body(name, body)
	}
	s.work.Go(s.accept)
	t.Cleanup(s.close)
	return s
}

func (s *rawServer) close() {
	_ = s.listener.Close()
	s.mu.Lock()
	for c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.work.Wait()
}

func (s *rawServer) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.accepted++
		s.conns[conn] = struct{}{}
		s.mu.Unlock()
		s.work.Go(func() {
			defer func() {
				_ = conn.Close()
				s.mu.Lock()
				delete(s.conns, conn)
				s.mu.Unlock()
			}()
			r := bufio.NewReader(conn)
			for used := false; ; used = true {
				req, err := http.ReadRequest(r)
				if err != nil {
					if errors.Is(err, io.EOF) && used {
						s.mu.Lock()
						s.goodbyes++
						s.mu.Unlock()
					}
					return
				}
				name := path.Base(req.URL.Path)
				s.mu.Lock()
				s.requests = append(s.requests, req)
				n := 0
				for _, old := range s.requests {
					if path.Base(old.URL.Path) == name {
						n++
					}
				}
				answer := s.answers[name]
				s.mu.Unlock()
				answer(n, conn)
			}
		})
	}
}

// on sets the answer to requests for name.
func (s *rawServer) on(name string, answer func(n int, conn net.Conn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[name] = answer
}

// body answers 200 with a Content-Length.
func (s *rawServer) body(name, body string) {
	s.raw(name, fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
}

// raw answers with these bytes and leaves the connection open.
func (s *rawServer) raw(name, bytes string) {
	s.on(name, func(_ int, conn net.Conn) { fmt.Fprint(conn, bytes) })
}

// rawClose answers with these bytes, the nth time with the nth of them and then
// the last, and closes the connection.
func (s *rawServer) rawClose(name string, bytes ...string) {
	s.on(name, func(n int, conn net.Conn) {
		fmt.Fprint(conn, bytes[min(n, len(bytes))-1])
		_ = conn.Close()
	})
}

func (s *rawServer) count() (requests, connections int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.requests), s.accepted
}

// open is how many connections are.
func (s *rawServer) open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

func (s *rawServer) endpoint() string {
	return "http://" + s.listener.Addr().String() + "/hetzner/v1/metadata"
}

// hostPath is a path over the loopback.
func hostPath(t testing.TB) *earlynet.Path {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	return earlynet.NewPath(ctx, "lo", earlynet.LinkLocal, new(net.Dialer).DialContext)
}

// exampleDocument is written as the service's generator writes: keys in order, long text folded.
const exampleDocument = `availability-zone: hel1-dc2
hostname: my-server
instance-id: 42
local-ipv4: ''
network-config:
  config:
  - mac_address: 96:00:00:08:19:da
    name: eth0
    subnets:
    - dns_nameservers: &id001
      - 2a01:4ff:ff00::add:2
      - 2a01:4ff:ff00::add:1
      ipv4: true
      type: dhcp
    type: physical
  version: 1
public-ipv4: 203.0.113.7
public-keys:
- ssh-ed25519
    AAAAC3NzaC1lZDI1NTE5AAAAIE1n
    "hostname: their-server
- 'ssh-rsa AAAAB3NzaC1yc2E
  hostname: her-server'
region: eu-central
vendor_data: "Content-Type: multipart/mixed;\n\
  hostname: your-server\n\
  \ \"instance-id: 43\n"
private-networks:
- ip: 10.0.0.2
  alias_ips: [10.0.0.3, 10.0.0.4]
  interface_num: 1
  mac_address: 86:00:00:2a:7d:e0
  network_id: 1234
  network_name: nw-test1
  network: 10.0.0.0/8
  subnet: 10.0.0.0/24
  gateway: 10.0.0.1
- alias_ips: []
  gateway: 192.168.0.1
  interface_num: 2
  ip: 192.168.0.2
  mac_address: 86:00:00:2a:7d:e1
  network: 192.168.0.0/16
  network_id: 4321
  network_name: nw-test2
  subnet: 192.168.0.0/24
`

const exampleNetworks = `- ip: 10.0.0.2
  alias_ips: [10.0.0.3, 10.0.0.4]
  interface_num: 1
  mac_address: 86:00:00:2a:7d:e0
  network_id: 1234
  network_name: nw-test1
  network: 10.0.0.0/8
  subnet: 10.0.0.0/24
  gateway: 10.0.0.1
- ip: 192.168.0.2
  alias_ips: []
  interface_num: 2
  mac_address: 86:00:00:2a:7d:e1
  network_id: 4321
  network_name: nw-test2
  network: 192.168.0.0/16
  subnet: 192.168.0.0/24
  gateway: 192.168.0.1
`
