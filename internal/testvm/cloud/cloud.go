package cloud

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// The addresses that Hetzner uses.
var (
	// Service is the address of the metadata service.
	Service = netip.MustParseAddr("169.254.169.254")
	// ServiceIPv6 is where cloud-init also looks for it. Hetzner does not serve it today; see [Config.IPv6].
	ServiceIPv6 = netip.MustParseAddr("fe80::a9fe:a9fe")
	// Gateway is the gateway of every public NIC; it is outside the /32 that DHCP hands out.
	Gateway = netip.MustParseAddr("172.31.1.1")
)

// Config says what the cloud is like. The zero value is a cloud that answers at once and rightly.
type Config struct {
	// Server is the server whose metadata is served; empty fields get example values.
	Server Server
	// Link is the cable of every NIC that brings none of its own.
	Link Link
	// Metadata is the schedule of the service: the first phase that has not ended counts. After the last one, and
	// with none, the answers are right.
	Metadata []Phase
	// Documents are served in place of Hetzner's, where the service answers rightly: another cloud's. nil: Hetzner's.
	Documents http.Handler
	// IPv6 serves the metadata on [ServiceIPv6] as well, which Hetzner does not do.
	IPv6 bool
	// Seed seeds the decisions about frames. Zero is a seed like any other.
	Seed uint64
	// Pcap, when set, gets every frame as a pcap file with nanosecond time stamps, as a capture on the node's NICs
	// would show it: what the node sent even if it is lost on the way, and what reaches the node. Each record is one
	// Write, never two at once, so that the file can be read while the cloud runs.
	Pcap io.Writer
}

// Cloud is a running network. Its methods may be called from several goroutines.
type Cloud struct {
	cfg  Config
	http *http.Server
	pcap *capture
	done chan struct{} // closed by Close

	mu       sync.Mutex
	began    time.Time // the schedule's zero
	nics     []*nic
	requests []Request
	leases   []Exchange
	closed   bool
	handlers sync.WaitGroup
	closing  sync.Once
	closeErr error
}

// New starts a cloud without any NIC. Close it.
func New(cfg Config) (*Cloud, error) {
	if err := cfg.Link.check(); err != nil {
		return nil, err
	}
	cfg.Metadata = slices.Clone(cfg.Metadata)
	c := &Cloud{cfg: cfg, done: make(chan struct{}), began: time.Now()}
	if cfg.Pcap != nil {
		c.pcap = newCapture(cfg.Pcap)
	}
	c.http = &http.Server{
		Handler:     http.HandlerFunc(c.serve),
		ConnContext: withConn,
		ErrorLog:    log.New(io.Discard, "", 0), // a client that hangs up is a scenario, not a problem
	}
	return c, nil
}

// Attach plugs a NIC of the server in at port, which belongs to the cloud from then on, also when Attach fails.
func (c *Cloud) Attach(desc NIC, port Port) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errors.Join(errors.New("cloud: attach after Close"), port.Close())
	}
	n, err := newNIC(c, len(c.nics), desc, port)
	if err != nil {
		return errors.Join(fmt.Errorf("cloud: attach %s: %w", desc.Name, err), port.Close())
	}
	c.nics = append(c.nics, n)
	return nil
}

// Restart sets the schedule's clock back to zero, and with it the times of the requests from then on. The records stay.
func (c *Cloud) Restart() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.began = time.Now()
}

// Heal ends the schedule: from now on the answers are right.
func (c *Cloud) Heal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cfg.Metadata = nil
}

// Elapsed is the time on the schedule's clock.
func (c *Cloud) Elapsed() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Since(c.began)
}

// Requests returns what the metadata service was asked so far, oldest first.
func (c *Cloud) Requests() []Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.requests)
}

// Exchanges returns the DHCP messages that reached the servers so far, oldest first.
func (c *Cloud) Exchanges() []Exchange {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.leases)
}

// Traffic counts the frames of a NIC by its name; nothing for a name that is not there.
func (c *Cloud) Traffic(nic string) (up, down Counters) {
	if n := c.nic(nic); n != nil {
		return n.up.counters(), n.down.counters()
	}
	return up, down
}

// SetLink changes the cable of a NIC from now on, for a partition that comes and goes. Frames under way are not touched.
func (c *Cloud) SetLink(nic string, link Link) error {
	if err := link.check(); err != nil {
		return err
	}
	n := c.nic(nic)
	if n == nil {
		return fmt.Errorf("cloud: no NIC %q", nic)
	}
	return errors.Join(n.up.set(link.RTT/2, link.Up), n.down.set(link.RTT-link.RTT/2, link.Down))
}

func (c *Cloud) nic(name string) *nic {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.nics {
		if n.desc.Name == name {
			return n
		}
	}
	return nil
}

// Close unplugs all NICs, ends every connection, and waits until nothing of the cloud runs any more. It returns what
// went wrong with the pcap. It may be called more than once.
func (c *Cloud) Close() error {
	c.closing.Do(func() {
		c.mu.Lock()
		c.closed = true
		nics := c.nics
		c.mu.Unlock()

		close(c.done)
		for _, n := range nics {
			n.unplug()
		}
		_ = c.http.Close()
		for _, n := range nics {
			n.wait()
		}
		c.handlers.Wait()
		if c.pcap != nil {
			c.closeErr = c.pcap.failure()
		}
	})
	return c.closeErr
}

// behaviour is what the schedule says now.
func (c *Cloud) behaviour() Behaviour {
	c.mu.Lock()
	now, schedule := time.Since(c.began), c.cfg.Metadata
	c.mu.Unlock()
	for _, p := range schedule {
		if now < p.Until {
			return p.Answer
		}
	}
	return Right()
}

// record takes a request down and says whether it may be answered; the caller then ends it at c.handlers.
func (c *Cloud) record(r Request) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.handlers.Add(1)
	r.At = time.Since(c.began)
	c.requests = append(c.requests, r)
	return true
}

func (c *Cloud) recordExchange(e Exchange) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.At = time.Since(c.began)
	c.leases = append(c.leases, e)
}
