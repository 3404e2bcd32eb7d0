package cloud

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

const linkLocal = "169.254.0.1/16"

func TestShapes(t *testing.T) {
	own := netip.MustParseAddr("169.254.0.1")
	t.Run("a public NIC answers a link-local source without DHCP", func(t *testing.T) {
		h := plugHost(t, newCloud(t, Config{}), NIC{}, linkLocal, netip.Addr{})
		if got := h.get("metadata/hostname", soon); got.err != nil || got.body != "my-server" {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("a public NIC answers its leased address through the gateway outside the subnet", func(t *testing.T) {
		h := plugHost(t, newCloud(t, Config{}), NIC{}, "203.0.113.17/32", Gateway)
		if got := h.get("metadata/public-ipv4", soon); got.err != nil || got.body != "203.0.113.17" {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("a private NIC answers through its gateway and says its networks", func(t *testing.T) {
		c := newCloud(t, Config{})
		h := plugHost(t, c, NIC{Shape: Private}, "10.0.0.2/32", netip.MustParseAddr("10.0.0.1"))
		if got := h.get("metadata/hostname", soon); got.err != nil || got.body != "my-server" {
			t.Errorf("got %+v", got)
		}
		if got := h.get("metadata/public-ipv4", soon); got.err != nil || got.status != 200 || got.body != "" {
			t.Errorf("public address of a private server: %+v", got)
		}
		if got := h.get("metadata/private-networks", soon); !strings.Contains(got.body, "ip: 10.0.0.2") ||
			!strings.Contains(got.body, hostMAC.String()) {
			t.Errorf("private networks:\n%s", got.body)
		}
	})
	t.Run("on a private NIC only the gateway answers ARP", func(t *testing.T) {
		w := plugWire(t, newCloud(t, Config{}), NIC{Shape: Private})
		if mac := w.arp(own, Service, quiet); mac != nil {
			t.Errorf("%s answers for the service", mac)
		}
		if mac := w.arp(own, netip.MustParseAddr("10.0.0.1"), soon); mac == nil {
			t.Error("the gateway is silent")
		}
	})
	t.Run("an IPv6-only NIC offers nothing and still answers a link-local source", func(t *testing.T) {
		c := newCloud(t, Config{})
		w := plugWire(t, c, NIC{Shape: IPv6Only, Name: "wire"})
		if o := w.dhcp(discover(t), quiet); o != nil {
			t.Errorf("an offer: %s", o.Summary())
		}
		h := plugHost(t, c, NIC{Shape: IPv6Only, Name: "host"}, linkLocal, netip.Addr{})
		if got := h.get("metadata/instance-id", soon); got.err != nil || got.body != "42" {
			t.Errorf("got %+v", got)
		}
		if got := h.get("metadata/public-ipv4", soon); got.err != nil || got.body != "" {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("a dead NIC answers nothing", func(t *testing.T) {
		w := plugWire(t, newCloud(t, Config{}), NIC{Shape: Dead, Name: "eth0"})
		if mac := w.arp(own, Service, quiet); mac != nil {
			t.Errorf("%s answers ARP", mac)
		}
		if o := w.dhcp(discover(t), quiet); o != nil {
			t.Error("DHCP answers")
		}
	})
	t.Run("a black hole answers ARP for its gateway and loses what is for the service", func(t *testing.T) {
		c := newCloud(t, Config{})
		h := plugHost(t, c, NIC{Shape: Private, BlackHole: true}, "10.0.0.2/32", netip.MustParseAddr("10.0.0.1"))
		if got := h.get("metadata/hostname", 4*quiet); !timedOut(got.err) {
			t.Errorf("got %+v", got)
		}
		w := plugWire(t, c, NIC{Shape: Private, BlackHole: true})
		if mac := w.arp(own, netip.MustParseAddr("10.1.0.1"), soon); mac == nil {
			t.Error("the gateway is silent")
		}
	})
	t.Run("a neighbour defends its address", func(t *testing.T) {
		w := plugWire(t, newCloud(t, Config{}), NIC{Neighbours: []netip.Addr{own}})
		if mac := w.arp(netip.IPv4Unspecified(), own, soon); mac == nil {
			t.Error("a probe for a taken address got no answer")
		}
		if mac := w.arp(netip.IPv4Unspecified(), own.Next(), quiet); mac != nil {
			t.Errorf("%s answers for a free address", mac)
		}
	})
	t.Run("the service over IPv6 is there only when asked for", func(t *testing.T) {
		for _, served := range []bool{true, false} {
			c := newCloud(t, Config{IPv6: served})
			h := plugHost(t, c, NIC{}, "fe80::17/64", netip.Addr{})
			got := h.getFrom(ServiceIPv6, "metadata/hostname", map[bool]time.Duration{true: soon, false: 4 * quiet}[served])
			if ok := got.err == nil && got.body == "my-server"; ok != served {
				t.Errorf("served %t: got %+v", served, got)
			}
		}
	})
	t.Run("each NIC has a gateway of its own", func(t *testing.T) {
		c := newCloud(t, Config{})
		a, b := plugWire(t, c, NIC{}), plugWire(t, c, NIC{})
		if ma, mb := a.arp(own, Gateway, soon), b.arp(own, Gateway, soon); bytes.Equal(ma, mb) {
			t.Errorf("both are %s", ma)
		}
	})
}

func TestDocuments(t *testing.T) {
	c := newCloud(t, Config{Server: Server{
		Hostname: "web.example.com", InstanceID: "4711", Region: "us-west", AvailabilityZone: "hil-dc1",
		PublicIPv4: netip.MustParseAddr("198.51.100.7"), PublicKeys: []string{"ssh-ed25519 AAAA me"}, UserData: "#!/bin/true\n",
		PrivateNetworks: []PrivateNetwork{{IP: netip.MustParseAddr("10.0.0.9")}},
	}})
	h := plugHost(t, c, NIC{MAC: hostMAC}, linkLocal, netip.Addr{})
	plugWire(t, c, NIC{Shape: Private})
	for path, want := range map[string]string{
		"metadata/hostname":          "web.example.com",
		"metadata/instance-id":       "4711",
		"metadata/public-ipv4":       "198.51.100.7",
		"metadata/availability-zone": "hil-dc1",
		"metadata/region":            "us-west",
		"metadata/public-keys":       `["ssh-ed25519 AAAA me"]`,
		"userdata":                   "#!/bin/true\n",
	} {
		if got := h.get(path, soon); got.err != nil || got.status != 200 || got.body != want {
			t.Errorf("%s: got %+v", path, got)
		}
	}
	if got := h.get("metadata/nonsense", soon); got.status != 404 {
		t.Errorf("a path that is not there: %+v", got)
	}

	t.Run("the whole as one YAML document has the instance id as a number", func(t *testing.T) {
		got := h.get("metadata", soon)
		var doc struct {
			ID       int              `yaml:"instance-id"`
			Hostname string           `yaml:"hostname"`
			Vendor   string           `yaml:"vendor_data"`
			Private  []PrivateNetwork `yaml:"private-networks"`
			Config   struct {
				Config []struct {
					MAC string `yaml:"mac_address"`
				} `yaml:"config"`
			} `yaml:"network-config"`
		}
		if err := yaml.Unmarshal([]byte(got.body), &doc); err != nil {
			t.Fatal(err)
		}
		if doc.ID != 4711 || doc.Hostname != "web.example.com" || len(doc.Private) != 1 ||
			doc.Private[0].IP != netip.MustParseAddr("10.0.0.9") || doc.Private[0].Gateway != netip.MustParseAddr("10.0.0.1") ||
			len(doc.Config.Config) != 1 || doc.Config.Config[0].MAC != hostMAC.String() {
			t.Errorf("got %+v from\n%s", doc, got.body)
		}
		if doc.Vendor != exampleVendorData || len(got.body) < 2<<10 {
			t.Errorf("the vendor data are %q", doc.Vendor)
		}
	})
	t.Run("a server without a public NIC has an empty network configuration", func(t *testing.T) {
		h := plugHost(t, newCloud(t, Config{}), NIC{Shape: Private}, "10.0.0.2/32", netip.MustParseAddr("10.0.0.1"))
		if got := h.get("metadata/network-config", soon); !strings.Contains(got.body, "config: []") {
			t.Errorf("got %q", got.body)
		}
	})
	t.Run("without user data the answer is 204", func(t *testing.T) {
		h := plugHost(t, newCloud(t, Config{}), NIC{}, linkLocal, netip.Addr{})
		if got := h.get("userdata", soon); got.status != 204 {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("a newline ends the documents when wanted", func(t *testing.T) {
		h := plugHost(t, newCloud(t, Config{Server: Server{Newline: true}}), NIC{}, linkLocal, netip.Addr{})
		if got := h.get("metadata/hostname", soon); got.body != "my-server\n" {
			t.Errorf("got %q", got.body)
		}
	})
}

func TestBehaviours(t *testing.T) {
	// forever holds one behaviour for the whole test.
	forever := func(b Behaviour) Config { return Config{Metadata: []Phase{{Until: time.Hour, Answer: b}}} }
	try := func(t *testing.T, b Behaviour, timeout time.Duration) answer {
		t.Helper()
		return plugHost(t, newCloud(t, forever(b)), NIC{}, linkLocal, netip.Addr{}).get("metadata/hostname", timeout)
	}
	own := netip.MustParseAddr("169.254.0.1")

	t.Run("unreachable answers not even ARP", func(t *testing.T) {
		w := plugWire(t, newCloud(t, forever(Unreachable())), NIC{})
		if mac := w.arp(own, Service, quiet); mac != nil {
			t.Error("ARP was answered")
		}
		if mac := w.arp(own, Gateway, soon); mac == nil {
			t.Error("the gateway is gone as well")
		}
	})
	t.Run("dropped answers ARP and nothing else", func(t *testing.T) {
		w := plugWire(t, newCloud(t, forever(Dropped())), NIC{})
		if mac := w.arp(own, Service, soon); mac == nil {
			t.Error("ARP was not answered")
		}
		if got := try(t, Dropped(), 4*quiet); !timedOut(got.err) {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("refused resets the connection attempt", func(t *testing.T) {
		if got := try(t, Refused(), soon); got.err == nil || !strings.Contains(got.err.Error(), "refused") {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("silent takes the request and says nothing", func(t *testing.T) {
		c := newCloud(t, forever(Silent()))
		h := plugHost(t, c, NIC{}, linkLocal, netip.Addr{})
		if got := h.get("metadata/hostname", patience); !timedOut(got.err) {
			t.Errorf("got %+v", got)
		}
		if r := c.Requests(); len(r) != 1 {
			t.Errorf("requests: %+v", r)
		}
	})
	t.Run("a status comes with its headers", func(t *testing.T) {
		got := try(t, Status(503, "Retry-After", "7"), soon)
		if got.status != 503 || got.header.Get("Retry-After") != "7" {
			t.Errorf("got %+v", got)
		}
		if got := try(t, Status(204), soon); got.status != 204 || got.body != "" {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("a redirect says where to", func(t *testing.T) {
		if got := try(t, Redirect("file:///etc/passwd"), soon); got.status != 302 || got.header.Get("Location") != "file:///etc/passwd" {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("a body is given as it is", func(t *testing.T) {
		if got := try(t, Body("<html>"), soon); got.body != "<html>" || got.status != 200 {
			t.Errorf("got %+v", got)
		}
		if got := try(t, Body(""), soon); got.body != "" || got.status != 200 || got.err != nil {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("raw bytes can be cut short by a close", func(t *testing.T) {
		got := try(t, Raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nmy-s", Close), soon)
		if got.body != "my-s" || !errors.Is(got.err, io.ErrUnexpectedEOF) {
			t.Errorf("got %+v", got)
		}
		got = try(t, Raw("HTTP/1.1 200 OK\r\n\r\nmy-s", Close), soon)
		if got.body != "my-s" || got.err != nil {
			t.Errorf("without a length: got %+v", got)
		}
	})
	t.Run("raw bytes can be cut short by a reset", func(t *testing.T) {
		got := try(t, Raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nmy-s", Reset), soon)
		if got.err == nil || timedOut(got.err) || errors.Is(got.err, io.ErrUnexpectedEOF) {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("raw bytes can be followed by silence", func(t *testing.T) {
		got := try(t, Raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nmy-s", Hang), patience)
		if got.body != "my-s" || !timedOut(got.err) {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("endless does not end", func(t *testing.T) {
		c, err := plugHost(t, newCloud(t, forever(Endless())), NIC{}, linkLocal, netip.Addr{}).dialTo(Service, soon)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(2 * soon)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if n, err := io.CopyN(io.Discard, c, 1<<18); err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
	})
	t.Run("slow takes its time and arrives whole", func(t *testing.T) {
		began := time.Now()
		got := try(t, All(Slow(1000), Body("my-server")), soon)
		if got.err != nil || got.body != "my-server" {
			t.Errorf("got %+v", got)
		}
		if took := time.Since(began); took < 100*time.Millisecond { // more than 100 bytes with the head
			t.Errorf("it took %s only", took)
		}
	})
	t.Run("a delay comes before a right answer", func(t *testing.T) {
		began := time.Now()
		if got := try(t, Delay(quiet), soon); got.err != nil || got.body != "my-server" {
			t.Errorf("got %+v", got)
		}
		if time.Since(began) < quiet {
			t.Error("it came early")
		}
	})
	t.Run("another server's documents can come instead", func(t *testing.T) {
		h := plugHost(t, newCloud(t, forever(Other(Server{Hostname: "other", InstanceID: "43"}))), NIC{}, linkLocal, netip.Addr{})
		if a, b := h.get("metadata/hostname", soon), h.get("metadata/instance-id", soon); a.body != "other" || b.body != "43" {
			t.Errorf("got %+v and %+v", a, b)
		}
	})
	t.Run("a fault can be bound to a path", func(t *testing.T) {
		h := plugHost(t, newCloud(t, forever(On("/instance-id", Status(500)))), NIC{}, linkLocal, netip.Addr{})
		if a, b := h.get("metadata/hostname", soon), h.get("metadata/instance-id", soon); a.status != 200 || b.status != 500 {
			t.Errorf("got %+v and %+v", a, b)
		}
	})
	t.Run("faults can take turns and the last one stays", func(t *testing.T) {
		h := plugHost(t, newCloud(t, forever(InTurn(Status(500), Body("a"), Body("b")))), NIC{}, linkLocal, netip.Addr{})
		var got []string
		for range 4 {
			a := h.get("metadata/hostname", soon)
			got = append(got, fmt.Sprint(a.status, a.body))
		}
		if want := []string{"500Internal Server Error\n", "200a", "200b", "200b"}; !slices.Equal(got, want) {
			t.Errorf("got %q", got)
		}
	})
	t.Run("a scenario may bring a behaviour of its own", func(t *testing.T) {
		got := try(t, All(Headers("X-Mine", "1"), Handler(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "mine")
		})), soon)
		if got.body != "mine" || got.header.Get("X-Mine") != "1" {
			t.Errorf("got %+v", got)
		}
	})
}

func TestSchedule(t *testing.T) {
	const first, second = 200 * time.Millisecond, 400 * time.Millisecond
	c := newCloud(t, Config{Metadata: []Phase{
		{Until: first, Answer: Refused()},
		{Until: second, Answer: Status(503)},
	}})
	h := plugHost(t, c, NIC{Name: "eth7"}, linkLocal, netip.Addr{})
	for _, round := range []string{"from the start", "again after a restart"} {
		t.Run("the phases come one after the other "+round, func(t *testing.T) {
			c.Restart()
			for done := false; !done; time.Sleep(5 * time.Millisecond) {
				before := c.Elapsed()
				a := h.get("metadata/hostname", soon)
				after := c.Elapsed()
				ok := true
				switch { // an answer that a boundary fell into may be either
				case after < first:
					ok = a.err != nil && strings.Contains(a.err.Error(), "refused")
				case before >= first && after < second:
					ok = a.status == 503
				case before >= second:
					ok, done = a.body == "my-server", true
				}
				if !ok {
					t.Errorf("between %s and %s: %+v", before, after, a)
				}
			}
		})
	}
	t.Run("requests are recorded with their time, path and source", func(t *testing.T) {
		all := c.Requests()
		if len(all) == 0 {
			t.Fatal("none")
		}
		last := all[len(all)-1]
		if last.NIC != "eth7" || last.Source.Addr() != netip.MustParseAddr("169.254.0.1") || last.Method != http.MethodGet ||
			last.Path != base+"metadata/hostname" || last.Host != "169.254.169.254" || last.At < second {
			t.Errorf("%+v", last)
		}
	})
}

func TestClose(t *testing.T) {
	t.Run("a cloud with clients in every state closes at once", func(t *testing.T) {
		c, err := New(Config{Metadata: []Phase{{Until: time.Hour, Answer: InTurn(
			Silent(), Delay(time.Hour), Endless(), Raw("HTTP/1.1 200 OK\r\n\r\n", Hang), All(Slow(1), Body("my-server")),
		)}}})
		if err != nil {
			t.Fatal(err)
		}
		h := plugHost(t, c, NIC{}, linkLocal, netip.Addr{})
		var clients sync.WaitGroup
		for range 5 {
			clients.Go(func() { h.get("metadata/hostname", soon) })
		}
		for deadline := time.Now().Add(soon); len(c.Requests()) < 5 && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		closed := make(chan error)
		go func() { closed <- c.Close() }()
		select {
		case err := <-closed:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(2 * soon):
			t.Fatal("it hangs")
		}
		if err := c.Close(); err != nil {
			t.Errorf("a second time: %v", err)
		}
		clients.Wait() // they were reset
	})
	t.Run("a port that takes no frame does not hold it up", func(t *testing.T) {
		c, err := New(Config{})
		if err != nil {
			t.Fatal(err)
		}
		near, far := Pipe()
		stuck := stuckPort{far, make(chan struct{}), make(chan struct{}, 1)}
		if err := c.Attach(NIC{}, stuck); err != nil {
			t.Fatal(err)
		}
		req := header.ARP(make([]byte, header.ARPSize))
		req.SetIPv4OverEthernet()
		req.SetOp(header.ARPRequest)
		copy(req.ProtocolAddressTarget(), Service.AsSlice())
		if err := near.WriteFrame(frame(everybody, header.ARPProtocolNumber, req)); err != nil {
			t.Fatal(err)
		}
		<-stuck.writing
		closed := make(chan error)
		go func() { closed <- c.Close() }()
		select {
		case <-closed:
		case <-time.After(2 * soon):
			t.Fatal("it hangs")
		}
	})
	t.Run("attaching to a closed cloud is an error", func(t *testing.T) {
		c, err := New(Config{})
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		_, far := Pipe()
		if err := c.Attach(NIC{}, far); err == nil {
			t.Error("no error")
		}
	})
}

// stuckPort blocks in WriteFrame until it is closed.
type stuckPort struct {
	Port
	closed  chan struct{}
	writing chan struct{}
}

func (p stuckPort) WriteFrame([]byte) error {
	p.writing <- struct{}{}
	<-p.closed
	return io.ErrClosedPipe
}

func (p stuckPort) Close() error {
	close(p.closed)
	return p.Port.Close()
}

func TestConfigErrors(t *testing.T) {
	for name, cfg := range map[string]Config{
		"a negative round-trip time":  {Link: Link{RTT: -1}},
		"a probability over one":      {Link: Link{Up: Impairment{Loss: 1.1}}},
		"a probability below nothing": {Link: Link{Down: Impairment{Corrupt: -0.1}}},
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			if c, err := New(cfg); err == nil {
				c.Close()
				t.Error("no error")
			}
		})
	}
}
