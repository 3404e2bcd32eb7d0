package hetzner

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
)

const (
	// maxBody bounds a body. The whole document has a few KiB; a hundred SSH keys and much vendor data make it longer.
	maxBody = 256 << 10
	// maxHeader bounds status line and headers, those of interim answers and the framing of chunks included.
	maxHeader = 16 << 10
	// maxInterim bounds the 1xx answers before the real one.
	maxInterim = 4
)

// A client asks the metadata service, one request at a time. What it returns is a 200's body, bounded, not compressed and
// not HTML; anything else is an [*Error].
//
// hcloud-go's own client of the metadata reads without a bound, takes any 2xx for an answer, does not know the whole
// document, and brings Prometheus along. This one speaks HTTP/1.1 with net/http's parser but without its Transport: that
// has a pool and two goroutines a connection that outlive the exchange, knows of proxies, and does not tell whether a
// body's end was said or merely happened. Here, a connection is read in the goroutine of its exchange.
type client struct {
	dial func(ctx context.Context, network, address string) (net.Conn, error)
	base *url.URL // of the whole document

	mu     sync.Mutex
	idle   *wire // the connection between two exchanges, or nil
	closed bool
}

// newClient asks at base, whose host must be an IP address.
func newClient(base string, dial func(ctx context.Context, network, address string) (net.Conn, error)) (*client, error) {
	u, err := parseEndpoint(base)
	if err != nil {
		return nil, err
	}
	return &client{dial: dial, base: u}, nil
}

// parseEndpoint reads a base URL.
func parseEndpoint(base string) (*url.URL, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, fmt.Errorf("the endpoint %.80q is no URL", base)
	}
	if _, err := netip.ParseAddr(u.Hostname()); err != nil || u.Scheme != "http" {
		return nil, fmt.Errorf("the endpoint %.80q is no http URL with an IP address: names are not resolved here", u.Redacted())
	}
	return u, nil
}

// address is what is dialled.
func (c *client) address() string {
	port := c.base.Port()
	if port == "" {
		port = "80"
	}
	return net.JoinHostPort(c.base.Hostname(), port)
}

// get returns the body of the whole document, or of one of the answers below it. It takes the connection that the last
// exchange left, or a new one. The body's end is certain if the service said it, by a length or by chunks, and did not
// just close.
func (c *client) get(ctx context.Context, name string) (body []byte, certain bool, err error) {
	got, err := c.exchange(ctx, name, false)
	return got.body, got.certain, err
}

// whole returns the text of a single answer whose end is certain.
func (c *client) whole(ctx context.Context, name string) (string, error) {
	body, certain, err := c.get(ctx, name)
	if err == nil && !certain {
		err = &Error{Path: name, Err: ErrUncertain}
	}
	return string(body), err
}

// exchange makes one request. With same it does so over the connection of the exchange before it, or not at all.
func (c *client) exchange(ctx context.Context, name string, same bool) (answer, error) {
	got, err := c.try(ctx, name, same)
	if err != nil {
		if name == "" {
			name = "metadata"
		}
		return answer{}, &Error{Path: name, Err: err}
	}
	return got, nil
}

func (c *client) try(ctx context.Context, name string, same bool) (answer, error) {
	where := c.base
	if name != "" {
		where = c.base.JoinPath(name)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, where.String(), http.NoBody)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("User-Agent", "nametag")

	w := c.take()
	reused := w != nil
	switch {
	case reused:
	case same:
		return answer{}, errClosed
	default:
		conn, err := c.connect(ctx)
		if err != nil {
			return answer{}, fmt.Errorf("connecting: %w", plain(ctx, err))
		}
		w = newWire(conn)
	}
	// The end of ctx interrupts a read or write that is under way.
	disarm := context.AfterFunc(ctx, func() { _ = w.conn.SetDeadline(time.Now()) })
	got, err := w.roundTrip(req)
	if disarm() && err == nil && got.reusable {
		c.put(w)
		return got, nil
	}
	earlynet.Reset(w.conn)
	if err != nil && reused && !same && !w.heard && ctx.Err() == nil {
		return c.try(ctx, name, false) // the other end had closed it while it was idle; there is no other one to take
	}
	if err != nil {
		return answer{}, plain(ctx, err)
	}
	return got, nil
}

// plain says the context's end instead of its symptom, and leaves out the addresses and port numbers of a net.OpError: a
// line that differs each time could not be told from news.
func plain(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}

// take returns the idle connection, or nil.
func (c *client) take() *wire {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.idle
	c.idle = nil
	return w
}

func (c *client) put(w *wire) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		earlynet.Reset(w.conn)
		return
	}
	c.idle = w
}

// Close closes the idle connection, and one that is in use as it becomes idle.
func (c *client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.idle != nil {
		earlynet.Reset(c.idle.conn)
		c.idle = nil
	}
}

// A wire is one connection.
type wire struct {
	conn  net.Conn
	limit io.LimitedReader // under reader
	read  *bufio.Reader
	heard bool // since the last request
}

func newWire(conn net.Conn) *wire {
	w := &wire{conn: conn}
	w.limit.R = conn
	w.read = bufio.NewReaderSize(&w.limit, 2<<10)
	return w
}

// An answer is a 200's body.
type answer struct {
	body     []byte
	certain  bool // its end was said
	reusable bool // the connection may carry another exchange
}

func (w *wire) roundTrip(req *http.Request) (answer, error) {
	w.heard = false
	if err := req.Write(w.conn); err != nil {
		return answer{}, fmt.Errorf("asking: %w", err)
	}
	w.limit.N = maxHeader
	if _, err := w.read.Peek(1); err != nil {
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("%w: closed without a byte", ErrCutShort)
		}
		return answer{}, err
	}
	w.heard = true
	resp, err := w.response(req)
	if err != nil {
		return answer{}, w.explain(err)
	}
	// The connection is not closed here but by exchange: this only ends the body.
	defer resp.Body.Close()
	if err := acceptable(resp); err != nil {
		earlynet.Reset(w.conn) // before Body.Close, which would read the rest
		return answer{}, err
	}
	w.limit.N += maxBody
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	switch {
	case err != nil:
		earlynet.Reset(w.conn)
		return answer{}, w.explain(err)
	case len(body) > maxBody:
		earlynet.Reset(w.conn)
		return answer{}, ErrTooLarge
	case w.read.Buffered() > 0:
		return answer{}, ErrTrailing // a length that is too short gives another valid name
	}
	if looksLikeHTML(body) {
		return answer{}, ErrHTML
	}
	certain := resp.ContentLength >= 0 || len(resp.TransferEncoding) > 0
	if !certain && w.limit.N <= 0 {
		return answer{}, ErrTooLarge
	}
	return answer{body: body, certain: certain, reusable: certain && !resp.Close}, nil
}

func looksLikeHTML(body []byte) bool {
	return bytes.HasPrefix(bytes.TrimPrefix(bytes.TrimSpace(body), []byte("\ufeff")), []byte("<"))
}

// response reads up to the body, past interim answers.
func (w *wire) response(req *http.Request) (*http.Response, error) {
	for range maxInterim {
		resp, err := http.ReadResponse(w.read, req)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, nil
		}
		_ = resp.Body.Close() // there is none
	}
	return nil, fmt.Errorf("%w: too many interim answers", ErrMalformed)
}

// explain tells our own bound from the other end's fault.
func (w *wire) explain(err error) error {
	var network net.Error
	switch {
	case w.limit.N <= 0:
		return ErrTooLarge
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return ErrCutShort
	case errors.As(err, &network):
		return fmt.Errorf("%w: %w", ErrCutShort, err)
	default: // the parser's words may quote what it read
		return fmt.Errorf("%w: %.80q", ErrMalformed, err.Error())
	}
}

// acceptable looks at what comes before the body.
func acceptable(resp *http.Response) error {
	encoding := resp.Header.Get("Content-Encoding")
	kind := strings.ToLower(resp.Header.Get("Content-Type"))
	switch {
	case resp.StatusCode != http.StatusOK:
		return &StatusError{Code: resp.StatusCode, Wait: retryAfter(resp.Header)}
	case encoding != "" && !strings.EqualFold(encoding, "identity"):
		return ErrEncoded
	case strings.HasPrefix(kind, "text/html"), strings.HasPrefix(kind, "application/xhtml"):
		return ErrHTML
	case resp.ContentLength > maxBody:
		return ErrTooLarge
	}
	return nil
}

// retryAfter reads RFC 9110, section 10.2.3: seconds, or a date. A date is
// compared with the service's own: the clock of a machine that boots may be wrong.
func retryAfter(h http.Header) time.Duration {
	const most = 24 * time.Hour
	value := h.Get("Retry-After")
	if s, err := strconv.ParseUint(value, 10, 31); err == nil {
		return min(time.Duration(s)*time.Second, most)
	}
	then, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return 0
	}
	return min(max(0, then.Sub(now)), most)
}
